//go:build linux

package relay

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
)

func TestParseEndpoint(t *testing.T) {
	for text, want := range map[string]Endpoint{
		"a.sock":                  {Path: "a.sock"},
		"/run/a":                  {Path: "/run/a"},
		"@name":                   {Path: "@name"},
		"@name:1":                 {Path: "@name:1"},
		"./odd:name":              {Path: "./odd:name"},
		"/tmp/a:b":                {Path: "/tmp/a:b"},
		"unix:/run/a":             {"/run/a", unix.SOCK_STREAM},
		"unix:@name":              {"@name", unix.SOCK_STREAM},
		"unix-seqpacket:a":        {"a", unix.SOCK_SEQPACKET},
		"unix-dgram:/dev/log":     {"/dev/log", unix.SOCK_DGRAM},
		"unix-dgram:unix:strange": {"unix:strange", unix.SOCK_DGRAM},
	} {
		if got, err := ParseEndpoint(text); err != nil || got != want {
			t.Errorf("ParseEndpoint(%q) = %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "@", "unix:", "unix-dgram:@", "tcp:x", "unix-listen:a", "a\x00b", strings.Repeat("x", 108)} {
		if got, err := ParseEndpoint(text); err == nil {
			t.Errorf("ParseEndpoint(%q) = %+v; want an error", text, got)
		}
	}
}

func FuzzParseEndpoint(f *testing.F) {
	f.Add("unix:/a")
	f.Fuzz(func(t *testing.T, text string) {
		if e, err := ParseEndpoint(text); err == nil && (!strings.HasSuffix(text, e.Path) || len(e.Path) > 107) {
			t.Errorf("ParseEndpoint(%q) = %+v", text, e)
		}
	})
}

// TestTypeOf holds that a stream's server sees nothing of it.
func TestTypeOf(t *testing.T) {
	fdtest.NoLeaks(t)
	for name, typ := range types {
		path := filepath.Join(t.TempDir(), "socket")
		fd := serve(t, typ, path)
		if got, err := TypeOf(path); err != nil || got != typ {
			t.Errorf("TypeOf a socket of type %s = %s, %v", name, TypeName(got), err)
		}
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, _ := unix.Poll(fds, 0); n != 0 && typ != unix.SOCK_SEQPACKET {
			t.Errorf("%s: the server is told", name)
		}
	}
}
