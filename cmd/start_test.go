//go:build linux

package cmd_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/cmd"
	"fdkit/fdsend"
	"fdkit/internal/fdtest"
)

// TestStartInit holds the packages to little work before main: each start of each command
// pays for it. The Go release's own packages are not ours to hold.
func TestStartInit(t *testing.T) {
	dir, err := fdkit()
	if err != nil {
		t.Fatalf("go build fdkit: %v", err)
	}
	const each, all = 6 << 10, 24 << 10 // bytes; two regular expressions took 24 KiB
	version := exec.Command(filepath.Join(dir, "fdkit"), "--version")
	version.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	trace, err := version.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", version, err, trace)
	}
	sum, packages, early := 0, 0, false
	for line := range strings.Lines(string(trace)) {
		var path string
		var at, took float64
		var size, allocations int
		if _, err := fmt.Sscanf(line, "init %s @%f ms, %f ms clock, %d bytes, %d allocs", &path, &at, &took, &size, &allocations); err != nil {
			continue
		}
		if early = early || path == "fdkit/internal/stack"; path == "os" && !early {
			t.Errorf("package %s is initialised before fdkit/internal/stack; want that one among the first", path)
		}
		if ours := strings.HasPrefix(path, "fdkit/"); !ours && !strings.Contains(path, ".") || strings.HasPrefix(path, "vendor/") {
			continue
		}
		packages++
		sum += size
		if size > each {
			t.Errorf("package %s allocates %d bytes in %d pieces before main; want at most %d: sync.OnceValue does it when it is needed", path, size, allocations, each)
		}
		if strings.HasPrefix(path, "github.com/prometheus/") {
			t.Errorf("package %s does work at each start; want none", path)
		}
	}
	if packages < 5 {
		t.Fatalf("GODEBUG=inittrace=1 tells of %d packages of this module and others; want more:\n%s", packages, trace)
	}
	if sum > all {
		t.Errorf("the packages allocate %d bytes before main; want at most %d", sum, all)
	}
}

// TestCommandsFor holds the table to the commands' own names, and the start of one to
// making that one.
func TestCommandsFor(t *testing.T) {
	all := cmd.New("x").Commands
	if len(all) < 19 {
		t.Errorf("there are %d commands; want all", len(all))
	}
	for _, c := range all {
		if one := cmd.New("x", "fdkit", c.Name, "operand").Commands; len(one) != 1 || one[0].Name != c.Name {
			t.Errorf("New for %s makes %d commands; want that one", c.Name, len(one))
		}
	}
	for _, other := range []string{"", "--help", "nonsense"} {
		if n := len(cmd.New("x", "fdkit", other).Commands); n != len(all) {
			t.Errorf("New for %q makes %d commands; want all, %d", other, n, len(all))
		}
	}
}

// inSocket returns a queue with one message in it.
func inSocket(t *testing.T) *os.File {
	queue, end := fdtest.Pair(t, unix.SOCK_SEQPACKET)
	fillQueue(t, end.Take())
	return os.NewFile(uintptr(queue.Take()), "queue")
}

// inPipe is inSocket behind a pipe, as a shell makes it.
func inPipe(t *testing.T) *os.File {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	fillQueue(t, pipe[1])
	return os.NewFile(uintptr(pipe[0]), "pipe")
}

// fillQueue sends one message to the queue behind fd, which it takes over until the test ends.
func fillQueue(t *testing.T, fd int) {
	q, err := fdsend.Open(fmt.Sprintf("fd:%d", fd), fdsend.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = q.Close() })
	if err := q.Sender().Send([]byte("x"), 2); err != nil {
		t.Fatal(err)
	}
}

// TestStartHandlers: recv-exec takes a message that waits in what is its stdin without
// asking for signals, polling, and a thread of its own. Go unblocks the signals that a
// program has asked for one by one, so that its thread for signals has a mask with some left
// out, as strace(1) writes it.
func TestStartHandlers(t *testing.T) {
	fdtest.NoLeaks(t)
	fdtest.NeedsProgram(t, "strace")
	dir, err := fdkit()
	if err != nil {
		t.Fatalf("go build fdkit: %v", err)
	}
	for _, test := range []struct {
		stdin   func(*testing.T) *os.File
		options []string
		asks    bool
	}{
		{inSocket, nil, false},
		{inPipe, nil, false},
		{inSocket, []string{"--from", "fd:0"}, true}, // may be anything that has to be waited for
	} {
		stdin := test.stdin(t)
		file := filepath.Join(t.TempDir(), "calls")
		args := append([]string{"-f", "-o", file, "-e", "trace=rt_sigprocmask,epoll_create1,close_range", filepath.Join(dir, "fdkit"), "recv-exec"}, test.options...)
		run := exec.Command("strace", append(args, "true")...)
		run.Stdin = stdin
		out, err := run.CombinedOutput()
		_ = stdin.Close()
		if err != nil {
			t.Fatalf("%v: %v\n%s", run, err, out)
		}
		calls, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for what, call := range map[string]string{
			"asks for signals":                     "SIG_SETMASK, ~[HUP INT ",
			"polls":                                "epoll_create1(",
			"has a thread with a table of its own": "CLOSE_RANGE_UNSHARE",
		} {
			if does := bytes.Contains(calls, []byte(call)); does != test.asks {
				t.Errorf("fdkit recv-exec %q %s: %v; want %v\n%s", test.options, what, does, test.asks, calls)
			}
		}
	}
}
