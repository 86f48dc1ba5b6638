//go:build linux

package cmd

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
	"fdkit/internal/hint"
	"fdkit/internal/interrupt"
)

func TestParseSource(t *testing.T) {
	const read, write = unix.O_RDONLY, unix.O_WRONLY | unix.O_CREAT
	for _, test := range []struct {
		text string
		want source
	}{
		{"0", source{fd: 0}},
		{"017", source{fd: 17}},
		{"1048575", source{fd: 1<<20 - 1}},
		{"stdin", source{fd: 0}},
		{"stdout", source{fd: 1}},
		{"stderr", source{fd: 2}},
		{"12:3", source{pid: 12, fd: 3}},
		{"12:stderr", source{pid: 12, fd: 2}},
		{"r:/etc/passwd", source{fd: -1, path: "/etc/passwd", flags: read}},
		{"r:a:b", source{fd: -1, path: "a:b", flags: read}},
		{"w:a", source{fd: -1, path: "a", flags: write | unix.O_TRUNC}},
		{"a:a", source{fd: -1, path: "a", flags: write | unix.O_APPEND}},
		{"rw:a", source{fd: -1, path: "a", flags: unix.O_RDWR | unix.O_CREAT}},
	} {
		test.want.text = test.text
		if got, err := parseSource(test.text); err != nil || got != test.want {
			t.Errorf("parseSource(%q) = %+v, %v; want %+v", test.text, got, err, test.want)
		}
	}
	for _, test := range []struct{ text, err, hint string }{
		{"", "is no descriptor", "a descriptor is"},
		{"1048576", "is no descriptor", "a descriptor is"},
		{"+1", "is no descriptor", "a descriptor is"},
		{"0x1", "is no descriptor", "a descriptor is"},
		{"STDIN", "is no descriptor", "a descriptor is"},
		{"/nosuch", "is no descriptor", "r:/nosuch"},
		{"source_test.go", "is no descriptor", "r:source_test.go"},
		{"./nosuch:80", "is no descriptor", "r:./nosuch"},
		{"localhost:80", "is no descriptor", "fdkit connect"},
		{":80", "is no descriptor", "fdkit connect"},
		{"wr:a", "is no descriptor", ""},
		{"r:", "the path is empty", ""},
		{"r:a\x00b", "NUL", ""},
		{"0:1", "no PID:FD", "4711:3"},
		{"12:", "no PID:FD", "4711:3"},
		{"12:x", "no PID:FD", "4711:3"},
		{"12:3:4", "is no IP address", ""},
		{"2147483648:3", "is no descriptor", ""},
	} {
		got, err := parseSource(test.text)
		var usage usageError
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), test.err) || !strings.Contains(hint.Of(err), test.hint) {
			t.Errorf("parseSource(%q) = %+v, %v (hint %q); want wrong usage %q and a hint %q", test.text, got, err, hint.Of(err), test.err, test.hint)
		}
	}
}

func FuzzParseSource(f *testing.F) {
	for _, text := range []string{"0", "stdin", "12:3", "12:stdin", "r:a", "rw:/a:b", "w:", ":", "0:0", "a:\x00", "99999999999999999999", "1:99999999999999999999"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseSource(text)
		if err != nil {
			if exitStatus(err) != exitUsage {
				t.Errorf("parseSource(%q): %v has exit status %d, want %d", text, err, exitStatus(err), exitUsage)
			}
			return
		}
		isFile := s.path != ""
		if isFile == (s.fd >= 0) || isFile && s.pid != 0 || s.pid < 0 || s.fd >= 1<<20 || strings.Contains(s.path, "\x00") {
			t.Errorf("parseSource(%q) = %+v, which is neither a file nor a descriptor", text, s)
		}
		if isFile && !strings.HasSuffix(text, ":"+s.path) {
			t.Errorf("parseSource(%q) has the path %q", text, s.path)
		}
	})
}

// sourcesOf parses operands.
func sourcesOf(t *testing.T, texts ...string) (all []source) {
	t.Helper()
	for _, text := range texts {
		s, err := parseSource(text)
		if err != nil {
			t.Fatalf("parseSource(%q) = %v", text, err)
		}
		all = append(all, s)
	}
	return all
}

func TestAcquire(t *testing.T) {
	fdtest.NoLeaks(t)
	t.Chdir(t.TempDir())
	if err := os.WriteFile("full", []byte("text\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	s := &sending{sources: sourcesOf(t, "2", "r:full", "rw:full", "a:full", "r:.", "w:new", "rw:newer")}
	fds, release, err := s.acquire(nil)
	if err != nil || len(fds) != len(s.sources) || fds[0] != 2 {
		t.Fatalf("acquire() = %v, %v; want a descriptor for each of %d, the first 2", fds, err, len(s.sources))
	}
	for i, want := range []int{unix.O_RDONLY, unix.O_RDWR, unix.O_WRONLY | unix.O_APPEND, unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR} {
		flags, err := unix.FcntlInt(uintptr(fds[i+1]), unix.F_GETFL, 0)
		if got := flags & (unix.O_ACCMODE | unix.O_APPEND); err != nil || got != want {
			t.Errorf("%s is open with flags %#o, %v; want %#o", s.sources[i+1].text, got, err, want)
		}
	}
	release()
	if text, err := os.ReadFile("full"); err != nil || string(text) != "text\n" {
		t.Errorf("the file has %q, %v after opening; want it unchanged", text, err)
	}
	if _, release, err := (&sending{sources: sourcesOf(t, "w:full", "r:nosuch")}).acquire(nil); err == nil || err.Error() != "cannot open r:nosuch: no such file or directory" {
		t.Errorf("acquire() of a file that is not there = %v", err)
	} else {
		release()
	}
	if text, err := os.ReadFile("full"); err != nil || string(text) != "" {
		t.Errorf("the file has %q, %v after w:; want it empty", text, err)
	}
}

// A FIFO is waited for until its other end is open, or stop is closed.
func TestAcquireFIFO(t *testing.T) {
	fdtest.NoLeaks(t)
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, stopped := range []bool{true, false} {
		s := &sending{sources: sourcesOf(t, "r:.", "r:"+fifo)}
		stop, ended := make(chan struct{}), make(chan error, 1)
		go func() {
			_, release, err := s.acquire(stop)
			release()
			ended <- err
		}()
		fdtest.Eventually(t, "open sleeps", func() bool { return fdtest.Blocked(unix.SYS_OPENAT, -1) })
		if stopped {
			close(stop)
			if err := fdtest.Soon(t, "the end of acquire", ended); !errors.Is(err, interrupt.ErrStopped) {
				t.Errorf("acquire() that is stopped = %v, want ErrStopped", err)
			}
			continue
		}
		other, err := unix.Open(fifo, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := fdtest.Soon(t, "the end of acquire", ended); err != nil {
			t.Errorf("acquire() of a FIFO with a writer = %v", err)
		}
		_ = unix.Close(other)
	}
}
