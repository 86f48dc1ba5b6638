//go:build linux

package thread_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
	"fdkit/internal/thread"
)

// It is never the first thread, and each time it ends.
func TestApart(t *testing.T) {
	for range 50 {
		tid := 0
		thread.Apart(func() {
			if tid = unix.Gettid(); tid == unix.Getpid() {
				t.Error("Apart runs in the first thread")
			}
		})
		fdtest.Eventually(t, "the thread has ended", func() bool { return unix.Tgkill(unix.Getpid(), tid, 0) != nil })
	}
}
