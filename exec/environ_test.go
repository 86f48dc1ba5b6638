//go:build linux

package exec_test

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/exec"
	"fdkit/internal/fdtest"
)

const begin = "FDKIT=1|"

// payload writes | for NUL.
func payload(text string) []byte { return []byte(strings.ReplaceAll(text, "|", "\x00")) }

func TestEnviron(t *testing.T) {
	r, _ := fdtest.Pipe(t)
	for _, test := range []struct {
		about   string
		base    []string
		accept  []string
		payload string
		want    []string
	}{
		{"nothing", nil, nil, "", nil},
		{"the base alone", []string{"PATH=/bin", "USER=x", "EMPTY="}, nil, begin, []string{"PATH=/bin", "USER=x", "EMPTY="}},
		{
			"what describes a connection", nil, nil,
			begin + "PROTO=TCP|TCPREMOTEIP=::1|UNIXLOCALPATH=/a|IPCX=1|SSL_CIPHER=x|FDKIT_ACCEPTED=1.5|REMOTE_ADDR=::1|",
			[]string{"PROTO=TCP", "TCPREMOTEIP=::1", "UNIXLOCALPATH=/a", "IPCX=1", "SSL_CIPHER=x", "FDKIT_ACCEPTED=1.5", "REMOTE_ADDR=::1"},
		},
		{
			"stale ones are not inherited",
			[]string{"PROTO=UNIX", "TCPREMOTEIP=1.2.3.4", "TCPREMOTEHOST=old", "UNIXREMOTEPID=1", "REMOTE_ADDR=1.2.3.4", "SSL_CIPHER=x", "IPCX=1", "FDKIT_X=1", "FDKIT=1", "TERM=x"},
			nil, begin + "PROTO=TCP|",
			[]string{"TERM=x", "PROTO=TCP"},
		},
		{"others do not come", nil, nil, begin + "USER=root|FOO=x|TERM=y|FDKITX=1|PROTOX=1|", nil},
		{"but those that are named", []string{"USER=me", "FOO=old"}, []string{"FOO", "X_*"}, begin + "FOO=x|X_=1|X_A=2|X=3|FOOBAR=4|USER=root|", []string{"USER=me", "FOO=x", "X_=1", "X_A=2"}},
		{"a named one that does not come is unset", []string{"FOO=old"}, []string{"FOO"}, begin, nil},
		{
			"dangerous ones never, whatever is named",
			[]string{"PATH=/bin", "LD_LIBRARY_PATH=/lib", "SSL_CERT_FILE=/x"},
			[]string{"*", "L*", "B*"},
			begin + "PATH=/evil|LD_PRELOAD=/evil.so|IFS=/|BASH_ENV=/evil|ENV=/evil|PERL5OPT=-M|PYTHONPATH=/evil|GCONV_PATH=/|SSL_CERT_FILE=/evil|HOME=/evil|LD_=|OK=1|",
			[]string{"PATH=/bin", "LD_LIBRARY_PATH=/lib", "SSL_CERT_FILE=/x", "OK=1"},
		},
		{"the first of the same name", nil, nil, begin + "PROTO=TCP|PROTO=UNIX|", []string{"PROTO=TCP"}},
		{"names that are none", nil, []string{"*"}, begin + "A B=1|=2|1A=3|BASH_FUNC_x%%=() { evil; }|B=4|", []string{"B=4"}},
		{"a cut payload", nil, nil, begin + "PROTO=TCP|TCPREMOTEIP=192.0.2", []string{"PROTO=TCP"}},
		{"a foreign payload", []string{"A=1"}, []string{"*"}, "PROTO=TCP|TCPREMOTEIP=::1|", nil},
	} {
		t.Run(test.about, func(t *testing.T) {
			e, err := exec.NewEnviron(test.base, test.accept...)
			if err != nil {
				t.Fatalf("NewEnviron(%q, %q) = %v, want nil", test.base, test.accept, err)
			}
			for range 2 { // For leaves the Environ as it is
				if got := e.For(r.FD, payload(test.payload)); !slices.Equal(got, test.want) {
					t.Errorf("For(%q):\n got %q\nwant %q", test.payload, got, test.want)
				}
			}
		})
	}
}

// If nothing is said of the connection, the socket is asked.
func TestEnvironAsksTheSocket(t *testing.T) {
	a, _ := fdtest.Pair(t, unix.SOCK_STREAM)
	e, err := exec.NewEnviron([]string{"A=1", "TCPREMOTEIP=old"})
	if err != nil {
		t.Fatal(err)
	}
	for _, payload := range []string{"", "x", "PROTO=TCP\x00"} {
		got := e.For(a.FD, []byte(payload))
		if len(got) < 3 || got[0] != "A=1" || got[1] != "PROTO=UNIX" || !strings.HasPrefix(got[2], "UNIXREMOTEEUID=") {
			t.Errorf("For(%q) = %q, want A=1, PROTO=UNIX and UNIXREMOTEEUID among others", payload, got)
		}
	}
}

func TestNewEnvironErrors(t *testing.T) {
	for name, want := range map[string]string{
		"": "no variable name", "A B": "no variable name", "1A": "no variable name", "A=": "no variable name", "A**": "no variable name",
		"*A":   "no variable name",
		"PATH": "never taken from a message", "LD_PRELOAD": "never taken from a message", "LD_*": "never taken from a message",
		"IFS": "never taken from a message", "PERL5LIB": "never taken from a message", "PYTHON*": "never taken from a message",
	} {
		if _, err := exec.NewEnviron(nil, name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("NewEnviron(nil, %q) = %v, want an error that says %q", name, err, want)
		}
	}
	for _, name := range []string{"A", "_", "*", "L*", "HTTP_*", "a1"} {
		if _, err := exec.NewEnviron(nil, name); err != nil {
			t.Errorf("NewEnviron(nil, %q) = %v, want nil", name, err)
		}
	}
}
