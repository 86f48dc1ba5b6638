//go:build linux

package thread

import (
	"testing"
	"time"
)

// However long the calls take, one turn is over well before 10 ms, and most calls do not
// end one.
func TestTurnOver(t *testing.T) {
	const call = 100 * time.Microsecond
	var turn Turn
	now := time.Now()
	if !turn.over(now) {
		t.Error("the first turn is not over at once")
	}
	begin, last, turns := now, now, 0
	for ; now.Sub(begin) < time.Second; now = now.Add(call) {
		if turn.over(now) {
			if took := now.Sub(last); took > 8*time.Millisecond {
				t.Errorf("a turn took %v, want at most 8ms", took)
			}
			last, turns = now, turns+1
		}
	}
	if turns < 125 || turns > 250 {
		t.Errorf("%d turns in a second, want 125 to 250", turns)
	}
}
