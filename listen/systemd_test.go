//go:build linux

package listen

import (
	"slices"
	"strings"
	"testing"

	"fdkit/internal/hint"
)

func TestParsePassed(t *testing.T) {
	const self = 42
	for _, test := range []struct {
		pid, fds, names string
		want            []Socket
		err, hint       string
	}{
		{"42", "1", "", []Socket{{3, "unknown"}}, "", ""},
		{"42", "2", "web:admin", []Socket{{3, "web"}, {4, "admin"}}, "", ""},
		{"42", "3", "web:web:", []Socket{{3, "web"}, {4, "web"}, {5, ""}}, "", ""},
		{"", "", "", nil, "no sockets were passed", "systemd-socket-activate"},
		{"42", "", "", nil, "no sockets were passed", "systemd-socket-activate"},
		{"42", "0", "", nil, "LISTEN_FDS is 0", ""},
		{"41", "1", "", nil, "to process 41, and this is process 42", "exec fdkit"},
		{"x", "1", "", nil, `LISTEN_PID is "x"`, ""},
		{"-42", "1", "", nil, `LISTEN_PID is "-42"`, ""},
		{"42", "-1", "", nil, `LISTEN_FDS is "-1"`, ""},
		{"42", "1048577", "", nil, `LISTEN_FDS is "1048577"`, ""},
		{"42", "2", "web", nil, "1 names for 2 descriptors", ""},
		{"42", "1", "web:admin", nil, "2 names for 1 descriptors", ""},
	} {
		env := map[string]string{"LISTEN_PID": test.pid, "LISTEN_FDS": test.fds, "LISTEN_FDNAMES": test.names}
		got, err := parsePassed(func(name string) string { return env[name] }, self)
		if !slices.Equal(got, test.want) || (err == nil) != (test.err == "") {
			t.Errorf("parsePassed(%v) = %v, %v; want %v, %q", env, got, err, test.want, test.err)
			continue
		}
		if err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("parsePassed(%v) = %v; want an error that says %q", env, err, test.err)
		}
		if h := hint.Of(err); !strings.Contains(h, test.hint) || test.hint == "" && h != "" {
			t.Errorf("parsePassed(%v) has the hint %q, want one that says %q", env, h, test.hint)
		}
	}
}

// FuzzParsePassed parses whatever a parent may set: there are as many sockets as it
// says, each with its name.
func FuzzParsePassed(f *testing.F) {
	f.Add("42", "2", "web:admin")
	f.Add("42", "1", "")
	f.Add("41", "x", "::")
	f.Fuzz(func(t *testing.T, pid, fds, names string) {
		env := map[string]string{"LISTEN_PID": pid, "LISTEN_FDS": fds, "LISTEN_FDNAMES": names}
		sockets, err := parsePassed(func(name string) string { return env[name] }, 42)
		if err != nil {
			if sockets != nil {
				t.Errorf("parsePassed(%v) = %v with the error %v", env, sockets, err)
			}
			return
		}
		var got []string
		for i, s := range sockets {
			if s.FD != 3+i {
				t.Errorf("parsePassed(%v)[%d] is descriptor %d, want %d", env, i, s.FD, 3+i)
			}
			got = append(got, s.Name)
		}
		if joined := strings.Join(got, ":"); len(got) == 0 || names != "" && joined != names {
			t.Errorf("parsePassed(%v) has the names %q", env, got)
		}
	})
}

func TestSockets(t *testing.T) {
	t.Setenv("LISTEN_PID", "1")
	t.Setenv("LISTEN_FDS", "1")
	for _, test := range []struct {
		address Address
		want    []Socket
		err     bool
	}{
		{Address{Port: 80}, nil, false},
		{Address{Kind: Unix, Path: "/a"}, nil, false},
		{Address{Kind: Inherited, FD: 7}, []Socket{{FD: 7}}, false},
		{Address{Kind: Systemd}, nil, true}, // they are for process 1
		{Address{Kind: Systemd, Name: "web"}, nil, true},
	} {
		got, err := test.address.Sockets()
		if !slices.Equal(got, test.want) || (err != nil) != test.err {
			t.Errorf("%v.Sockets() = %v, %v; want %v, an error: %t", test.address, got, err, test.want, test.err)
		}
	}
}
