//go:build linux

package pidfd_test

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
	"fdkit/internal/hint"
	"fdkit/internal/pidfd"
)

func TestMain(m *testing.M) {
	fdtest.Main(m, map[string]func([]string) error{
		// wait ends when its stdin does.
		"wait": func([]string) error {
			_, err := io.Copy(io.Discard, os.Stdin)
			return err
		},
		"get": func(args []string) error {
			var pid int
			if _, err := fmt.Sscan(args[0], &pid); err != nil {
				return err
			}
			_, err := pidfd.Get(pid, 0)
			return err
		},
	})
}

func TestGet(t *testing.T) {
	fdtest.NoLeaks(t)
	process := fdtest.Program(t, "wait")
	read, write := fdtest.Pipe(t)
	stdin := os.NewFile(uintptr(fdtest.Dup(t, read.FD).Take()), "stdin")
	process.Stdin = stdin
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	stdin.Close()
	pid := process.Process.Pid

	fd, err := pidfd.Get(pid, 0)
	if err != nil {
		t.Fatalf("Get(%d, 0) = %v, want a copy of its stdin", pid, err)
	}
	if !fdtest.SameFile(fd, read.FD) {
		t.Errorf("Get(%d, 0) is not the pipe that the process has", pid)
	}
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("Get(%d, 0) has flags %#x (%v), want close-on-exec", pid, flags, err)
	}
	_ = unix.Close(fd)

	_, err = pidfd.Get(pid, 999)
	if want := fmt.Sprintf("process %d has no descriptor 999", pid); err == nil || err.Error() != want || !strings.Contains(hint.Of(err), "/fd") {
		t.Errorf("Get(%d, 999) = %v (hint %q), want %q and where to look", pid, err, hint.Of(err), want)
	}
	write.Close()
	if err := process.Wait(); err != nil {
		t.Fatal(err)
	}
	_, err = pidfd.Get(pid, 0)
	if want := fmt.Sprintf("there is no process %d", pid); err == nil || err.Error() != want {
		t.Errorf("Get(%d, 0) of a process that has ended = %v, want %q", pid, err, want)
	}
}

// A process of another user is not to be had.
func TestGetOfAnother(t *testing.T) {
	fdtest.NoLeaks(t)
	other := fdtest.AsNobody(t, fdtest.Program(t, "get", fmt.Sprint(os.Getpid())))
	out, err := other.CombinedOutput()
	if want := "get: pidfd_getfd: operation not permitted\n"; err == nil || string(out) != want {
		t.Errorf("Get of root's process by nobody says %q, %v; want %q", out, err, want)
	}
}
