//go:build linux

package cmd

import (
	"os"
	"runtime"
)

// blockers is how many threads of a pool may sleep in system calls: those that receive,
// and the one that waits for programs.
const blockers = 3

// keepProcessors makes Go's scheduler leave threads that sleep in system calls alone.
//
// Each of them keeps a processor, in the sense of GOMAXPROCS, as long as a further one is
// idle: retake in runtime/proc.go. Where there are fewer it is taken away within
// microseconds, by a thread that never comes to rest, and to get it back costs calls of
// futex(2) for each connection. More of them take nothing: threads that sleep need no CPU.
func keepProcessors() {
	if os.Getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) <= blockers {
		runtime.GOMAXPROCS(blockers + 1)
	}
}
