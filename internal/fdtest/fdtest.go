//go:build linux

// Package fdtest helps tests of descriptor passing: socket pairs, a check for
// leaked descriptors, waiting for a condition, and programs to test with, for
// which the test binary itself is run again.
package fdtest

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Limit is how long the helpers wait for what must come. No test passes because
// of it: it only bounds how long a failing one takes.
const Limit = 20 * time.Second

// End is one end of a socket pair or pipe. The test's end closes it.
type End struct {
	FD     int
	closed bool
}

// Close closes the descriptor, once.
func (e *End) Close() {
	if !e.closed {
		e.closed = true
		_ = unix.Close(e.FD)
	}
}

// Take gives the descriptor away: whoever calls it must close it.
func (e *End) Take() int {
	e.closed = true
	return e.FD
}

func newEnd(t testing.TB, fd int) *End {
	e := &End{FD: fd}
	t.Cleanup(e.Close)
	return e
}

// Pair returns the two ends of a pair of Unix sockets of type typ.
func Pair(t testing.TB, typ int) (a, b *End) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("socketpair: %v", err)
	}
	return newEnd(t, fds[0]), newEnd(t, fds[1])
}

// Pipe returns the two ends of a pipe.
func Pipe(t testing.TB) (read, write *End) {
	t.Helper()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		t.Fatalf("pipe2: %v", err)
	}
	return newEnd(t, fds[0]), newEnd(t, fds[1])
}

// Dup returns a copy of fd.
func Dup(t testing.TB, fd int) *End {
	t.Helper()
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatalf("fcntl(%d, F_DUPFD_CLOEXEC): %v", fd, err)
	}
	return newEnd(t, n)
}

// SameFile tells whether two descriptors lead to the same file.
func SameFile(a, b int) bool {
	var sa, sb unix.Stat_t
	return unix.Fstat(a, &sa) == nil && unix.Fstat(b, &sb) == nil && sa.Dev == sb.Dev && sa.Ino == sb.Ino
}

// NoLeaks fails the test if, at its end, descriptors are open that were not when
// NoLeaks was called, or if some of those have been closed. It is called first, so
// that the test's other cleanups come before it. Tests that run in parallel
// cannot use it.
func NoLeaks(t testing.TB) {
	t.Helper()
	before := open()
	t.Cleanup(func() {
		var leaked, lost []string
		for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(time.Millisecond) {
			after := open()
			leaked, lost = missing(after, before), missing(before, after)
			if len(leaked)+len(lost) == 0 {
				return
			}
			if time.Now().After(deadline) {
				break
			}
			runtime.GC() // closes the pipes that package net keeps for splice(2)
		}
		if len(leaked) > 0 {
			t.Errorf("%d descriptors leaked: %s", len(leaked), strings.Join(leaked, ", "))
		}
		if len(lost) > 0 {
			t.Errorf("%d descriptors of somebody else were closed: %s", len(lost), strings.Join(lost, ", "))
		}
	})
}

// open returns what the open descriptors lead to.
func open() map[int]string {
	found := map[int]string{}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	for _, entry := range entries {
		link, err := os.Readlink("/proc/self/fd/" + entry.Name())
		switch {
		case err != nil: // the descriptor that ReadDir itself had
		case link == "anon_inode:[eventpoll]", link == "anon_inode:[eventfd]": // the Go runtime's
		case strings.HasPrefix(link, "/proc/"), strings.HasPrefix(link, "/sys/"): // the Go runtime's looks at its limits
		default:
			if fd, err := strconv.Atoi(entry.Name()); err == nil {
				found[fd] = link
			}
		}
	}
	return found
}

func missing(have, from map[int]string) (names []string) {
	for _, fd := range slices.Sorted(maps.Keys(have)) {
		if from[fd] != have[fd] {
			names = append(names, fmt.Sprintf("%d -> %s", fd, have[fd]))
		}
	}
	return names
}

// Eventually waits until the condition holds, and fails the test if it does not.
func Eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(Limit)
	for pause := 50 * time.Microsecond; !condition(); pause = min(2*pause, 5*time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not so within %v: %s", Limit, what)
		}
		time.Sleep(pause)
	}
}

// Soon returns what comes from the channel, and fails the test if nothing does.
func Soon[T any](t testing.TB, what string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(Limit):
		t.Fatalf("nothing within %v: %s", Limit, what)
		panic("unreachable")
	}
}

// Blocked tells whether a thread of this process sleeps in the system call nr
// with fd as its first argument; -1 stands for any.
func Blocked(nr uintptr, fd int) bool {
	files, _ := filepath.Glob("/proc/self/task/*/syscall") // proc(5): the number, the arguments
	for _, file := range files {
		text, err := os.ReadFile(file)
		fields := strings.Fields(string(text))
		if err != nil || len(fields) < 2 || fields[0] != strconv.Itoa(int(nr)) {
			continue
		}
		if arg, err := strconv.ParseUint(fields[1], 0, 64); err == nil && (fd < 0 || arg == uint64(fd)) {
			return true
		}
	}
	return false
}

// Inside tells whether a goroutine is inside all of these functions, each given by
// a part of its name, such as time.Sleep or (*Pool).reap.
func Inside(functions ...string) bool {
	buf := make([]byte, 1<<20)
	for stack := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if !slices.ContainsFunc(functions, func(f string) bool { return !strings.Contains(stack, f+"(") }) {
			return true
		}
	}
	return false
}

// FewFiles lowers RLIMIT_NOFILE until the test's end, or until restore is called,
// so that just n more descriptors can be opened.
func FewFiles(t testing.TB, n int) (restore func()) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &old); err != nil {
		t.Fatalf("prlimit: %v", err)
	}
	var held []int
	for range n + 1 { // the lowest free numbers
		fd, err := unix.FcntlInt(2, unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			t.Fatalf("fcntl(2, F_DUPFD_CLOEXEC): %v", err)
		}
		held = append(held, fd)
	}
	for _, fd := range held {
		_ = unix.Close(fd)
	}
	restore = func() { _ = unix.Prlimit(0, unix.RLIMIT_NOFILE, &old, nil) }
	t.Cleanup(restore)
	low := unix.Rlimit{Cur: uint64(held[n]), Max: old.Max}
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, &low, nil); err != nil {
		t.Fatalf("prlimit: %v", err)
	}
	return restore
}
