//go:build linux

package thread

import (
	"runtime"
	"time"
)

// Turn is how long a goroutine has had its processor, in the sense of GOMAXPROCS. The zero
// value has begun long ago.
type Turn struct{ begun time.Time }

// longest is well below the 10 ms after which the runtime takes a turn to be too long.
const longest = 6 * time.Millisecond

// Yield ends the turn, and begins another, if it has lasted long. It is for goroutines
// that do nothing but system calls, some of which wait, and that are not locked to a
// thread.
//
// Between such calls nothing is scheduled, so that the turn never ends by itself. After
// 10 ms the runtime takes the processor away in each call that waits: retake in
// runtime/proc.go. The thread that does so looks every 20 microseconds, and as it always
// finds something it never comes to rest; to get the processor back costs calls of
// futex(2).
func (t *Turn) Yield(now time.Time) {
	if t.over(now) {
		runtime.Gosched()
	}
}

// over tells whether the turn has lasted long, and begins the next one if it has.
func (t *Turn) over(now time.Time) bool {
	if now.Sub(t.begun) < longest {
		return false
	}
	t.begun = now
	return true
}
