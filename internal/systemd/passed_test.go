//go:build linux

package systemd

import (
	"slices"
	"strings"
	"testing"

	"fdkit/internal/hint"
)

func lookup(env map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		value, ok := env[name]
		return value, ok
	}
}

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
		{"41", "1", "", nil, "to process 41, and this is process 42", "exec COMMAND"},
		{"x", "1", "", nil, `LISTEN_PID is "x"`, ""},
		{"-42", "1", "", nil, `LISTEN_PID is "-42"`, ""},
		{"42", "-1", "", nil, `LISTEN_FDS is "-1"`, ""},
		{"42", "1048577", "", nil, `LISTEN_FDS is "1048577"`, ""},
		{"42", "2", "web", nil, "1 names for 2 descriptors", ""},
		{"42", "1", "web:admin", nil, "2 names for 1 descriptors", ""},
	} {
		env := map[string]string{"LISTEN_PID": test.pid, "LISTEN_FDS": test.fds, "LISTEN_FDNAMES": test.names}
		got, err := ParsePassed(lookup(env), self)
		if !slices.Equal(got, test.want) || (err == nil) != (test.err == "") {
			t.Errorf("ParsePassed(%v) = %v, %v; want %v, %q", env, got, err, test.want, test.err)
			continue
		}
		if err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("ParsePassed(%v) = %v; want an error that says %q", env, err, test.err)
		}
		if h := hint.Of(err); !strings.Contains(h, test.hint) || test.hint == "" && h != "" {
			t.Errorf("ParsePassed(%v) has the hint %q, want one that says %q", env, h, test.hint)
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
		sockets, err := ParsePassed(lookup(env), 42)
		if err != nil {
			if sockets != nil {
				t.Errorf("ParsePassed(%v) = %v with the error %v", env, sockets, err)
			}
			return
		}
		var got []string
		for i, s := range sockets {
			if s.FD != 3+i {
				t.Errorf("ParsePassed(%v)[%d] is descriptor %d, want %d", env, i, s.FD, 3+i)
			}
			got = append(got, s.Name)
		}
		if joined := strings.Join(got, ":"); len(got) == 0 || names != "" && joined != names {
			t.Errorf("ParsePassed(%v) has the names %q", env, got)
		}
	})
}
