//go:build linux

package thread

import (
	"runtime"
	"time"
)

// Turns is for a goroutine that does little but system calls, again and again. The zero
// value is ready for use.
type Turns struct{ last time.Time }

// often is less than the 10 ms, forcePreemptNS in runtime/proc.go, after which Go's
// scheduler takes the processor from a goroutine that has not left it, in a system call
// or not.
const often = 5 * time.Millisecond

// Yield is to be called between system calls, where the goroutine is not locked to its
// thread. It leaves the processor for a moment, now and then.
//
// Otherwise the thread that takes it away, sysmon, looks for milliseconds every 20 µs
// whether there is more to be taken, and then begins anew: at full load a third of the
// CPU time that it takes to pass connections on.
func (t *Turns) Yield(now time.Time) {
	if now.Sub(t.last) >= often {
		t.last = now
		runtime.Gosched()
	}
}
