//go:build linux

package thread_test

import (
	"runtime"
	"testing"
	"time"

	"fdkit/internal/thread"
)

// Others have their turn at the first call, and then often enough.
func TestTurns(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var turns thread.Turns
	begin := time.Now()
	for _, test := range []struct {
		after time.Duration
		want  bool
	}{{0, true}, {4 * time.Millisecond, false}, {6 * time.Millisecond, true}, {10 * time.Millisecond, false}, {time.Minute, true}} {
		// Again if the scheduler has given them a turn by itself, or not first.
		for try := 0; ; try++ {
			again := turns
			done := make(chan struct{})
			go close(done)
			again.Yield(begin.Add(test.after))
			had := false
			select {
			case <-done:
				had = true
			default:
				<-done
			}
			if had == test.want {
				turns = again
				break
			}
			if try == 10 {
				t.Fatalf("another goroutine had its turn at Yield after %v: %v; want %v", test.after, had, test.want)
			}
		}
	}
}
