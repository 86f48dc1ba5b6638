//go:build linux

package exec

import (
	"fmt"
	"testing"
	"time"
)

// A step of the table: what a run that began and ended then tells.
type runEnd struct {
	began, ended time.Duration
	verdict      verdict
}

func endsOf(n int, v verdict, from time.Duration) (all []runEnd) {
	for i := range n {
		at := from + time.Duration(i)*20*time.Second // later than any pause
		all = append(all, runEnd{at, at + time.Millisecond, v})
	}
	return all
}

func join(parts ...[]runEnd) (all []runEnd) {
	for _, part := range parts {
		all = append(all, part...)
	}
	return all
}

func TestFailing(t *testing.T) {
	const h = time.Hour
	for _, test := range []struct {
		about      string
		runs       []runEnd
		suspicious bool
		pause      time.Duration
		said       string // the pauses that were said, 0s for their end
	}{
		{"nothing", nil, false, 0, ""},
		{"two suspects", endsOf(2, suspect, 0), false, 0, ""},
		{"three suspects", endsOf(3, suspect, 0), true, 0, ""},
		{"any number of suspects", endsOf(100, suspect, 0), true, 0, ""},
		{"a good one between", join(endsOf(2, suspect, 0), endsOf(1, good, h), endsOf(2, suspect, 2*h)), false, 0, ""},
		{"unclear ones between", join(endsOf(2, suspect, 0), endsOf(50, unclear, h), endsOf(1, suspect, 2*h)), true, 0, ""},
		{"four failures", join(endsOf(3, suspect, 0), endsOf(4, failed, h)), true, 0, ""},
		{"five failures", join(endsOf(3, suspect, 0), endsOf(5, failed, h)), true, 100 * time.Millisecond, "100ms"},
		{"six", join(endsOf(3, suspect, 0), endsOf(6, failed, h)), true, 200 * time.Millisecond, "100ms"},
		{"eleven", join(endsOf(3, suspect, 0), endsOf(11, failed, h)), true, 6400 * time.Millisecond, "100ms"},
		{"twelve", join(endsOf(3, suspect, 0), endsOf(12, failed, h)), true, 10 * time.Second, "100ms 10s"},
		{"a hundred", join(endsOf(3, suspect, 0), endsOf(100, failed, h)), true, 10 * time.Second, "100ms 10s"},
		{"unclear ones change nothing", join(endsOf(3, suspect, 0), endsOf(6, failed, h), endsOf(9, unclear, 2*h)), true, 200 * time.Millisecond, "100ms"},
		{"it recovers", join(endsOf(3, suspect, 0), endsOf(100, failed, h), endsOf(2, good, 3*h)), false, 0, "100ms 10s 0s"},
		{"and fails again", join(endsOf(3, suspect, 0), endsOf(6, failed, h), endsOf(1, good, 3*h), endsOf(3, suspect, 4*h), endsOf(5, failed, 5*h)), true, 100 * time.Millisecond, "100ms 0s 100ms"},
		{"an old run ends well", join(endsOf(3, suspect, h), endsOf(6, failed, 2*h), []runEnd{{0, 3 * h, good}}), true, 200 * time.Millisecond, "100ms"},
		{"it cannot even be started", endsOf(5, failed, 0), false, 100 * time.Millisecond, "100ms"},
		{
			"many at once count as one", join(endsOf(3, suspect, 0), endsOf(4, failed, h),
				[]runEnd{{2 * h, 2*h + 1, failed}, {2 * h, 2*h + 2, failed}, {2 * h, 2*h + 3, failed}}),
			true, 100 * time.Millisecond, "100ms",
		},
		{
			"now and then is not said each time", join(endsOf(5, failed, h),
				[]runEnd{{2 * h, 2 * h, good}}, []runEnd{{2*h + 1, 2*h + 1, failed}, {2*h + 2, 2*h + 2, failed}, {2*h + 3, 2*h + 3, failed}, {2*h + 4, 2*h + 4, failed}, {2*h + 5, 2*h + 5, failed}},
				[]runEnd{{2*h + 6, 2*h + 6, good}}, []runEnd{{2*h + 7, 2*h + 7, failed}, {2*h + 8, 2*h + 8, failed}, {2*h + 9, 2*h + 9, failed}, {2*h + 10, 2*h + 10, failed}, {2*h + 11, 2*h + 11, failed}}),
			false, 100 * time.Millisecond, "100ms 0s 100ms 0s",
		},
	} {
		t.Run(test.about, func(t *testing.T) {
			var f failing
			said := ""
			begin := time.Now()
			for _, run := range test.runs {
				if f.end(run.verdict, begin.Add(run.began), begin.Add(run.ended)) {
					said += fmt.Sprint(" ", f.pause)
				}
			}
			if said != "" {
				said = said[1:]
			}
			if f.suspicious() != test.suspicious || f.pause != test.pause || said != test.said {
				t.Errorf("suspicious %t, pause %v, said %q; want %t, %v, %q", f.suspicious(), f.pause, said, test.suspicious, test.pause, test.said)
			}
		})
	}
}

// While the program fails one start comes for each pause; when it does not any more,
// all go on.
func TestFailingTurn(t *testing.T) {
	var f failing
	now := time.Now()
	if wait, _ := f.turn(now); wait != 0 {
		t.Fatalf("turn() = %v without a failure, want 0", wait)
	}
	for _, run := range endsOf(6, failed, 0) {
		f.end(run.verdict, now.Add(run.began), now.Add(run.ended))
		now = now.Add(run.ended)
	}
	now = f.grown
	first, over := f.turn(now)
	second, _ := f.turn(now.Add(50 * time.Millisecond))
	if first != 200*time.Millisecond || second != 150*time.Millisecond {
		t.Errorf("turn() = %v, and 50 ms later %v; want 200ms and 150ms", first, second)
	}
	now = now.Add(first)
	first, _ = f.turn(now)
	second, _ = f.turn(now)
	if first != 0 || second != 200*time.Millisecond {
		t.Errorf("after the pause turn() = %v and for the next start %v; want 0 and 200ms", first, second)
	}
	f.end(good, now, now)
	select {
	case <-over:
	default:
		t.Error("the program has recovered, and who waits is not told")
	}
	if wait, _ := f.turn(now); wait != 0 {
		t.Errorf("turn() = %v after recovery, want 0", wait)
	}
}
