//go:build linux

// Package thread runs functions in threads that end with them.
package thread

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Apart runs do in a thread of its own and returns when it has. Whatever becomes of the
// thread, its user, its namespaces or its privileges, ends with it: the rest of the
// process is what it was.
func Apart(do func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the runtime ends the thread
		if unix.Gettid() == unix.Getpid() {
			// The first thread would not end, and /proc/self shows what it has. While
			// it is held here, it is another one.
			Apart(do)
			runtime.UnlockOSThread()
			return
		}
		do()
	}()
	<-done
}
