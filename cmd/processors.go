//go:build linux

package cmd

import (
	"os"
	"runtime"
)

// poolBlockers is how many threads of a pool sleep in system calls for each connection:
// those that receive. The one that waits for programs lingers elsewhere.
const poolBlockers = 2

// keepProcessors makes Go's scheduler leave so many threads that sleep in system calls
// alone.
//
// Each of them keeps a processor, in the sense of GOMAXPROCS, as long as a further one is
// idle: retake in runtime/proc.go. Where there are fewer it is taken away within
// microseconds, by a thread that never comes to rest, and to get it back costs calls of
// futex(2) for each connection. More of them take nothing: threads that sleep need no CPU.
func keepProcessors(blockers int) {
	if os.Getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) <= blockers {
		runtime.GOMAXPROCS(blockers + 1)
	}
}
