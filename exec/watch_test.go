//go:build linux

package exec

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
)

// The clock is set for the nearest limit, and wakes up no more often.
func TestDue(t *testing.T) {
	client, server := fdtest.TCPPair(t)
	const second = time.Second
	for _, test := range []struct {
		times TimeLimits
		after time.Duration
		limit string
		next  time.Duration
	}{
		{TimeLimits{}, 0, "", 0},
		{TimeLimits{Run: 9 * second}, 0, "", 9 * second},
		{TimeLimits{Run: 9 * second}, 4 * second, "", 5 * second},
		{TimeLimits{Run: 9 * second}, 9 * second, LimitTimeout, 0},
		{TimeLimits{Run: 9 * second, Idle: 3 * second, FirstByte: 5 * second}, 0, "", 3 * second},
		{TimeLimits{Run: 9 * second, Idle: 3 * second, FirstByte: 2 * second}, 0, "", 2 * second},
		{TimeLimits{Run: 9 * second, Idle: 3 * second, FirstByte: 2 * second}, 2 * second, LimitFirstByte, 0},
		{TimeLimits{Run: 9 * second, Idle: 3 * second, FirstByte: 5 * second}, 3 * second, LimitIdle, 0},
		{TimeLimits{Run: 2 * second, Idle: 3 * second, FirstByte: 5 * second}, 4 * second, LimitTimeout, 0},
	} {
		p := &Pool{Times: test.times}
		run := &Run{Begin: time.Now(), watch: &watch{fd: server.FD, tcp: true}}
		run.watch.begin()
		run.watch.active = run.Begin
		limit, next := p.due(run, run.Begin.Add(test.after))
		if limit != test.limit || limit == "" && next != test.next {
			t.Errorf("due(%+v) after %v = %q, %v; want %q, %v", test.times, test.after, limit, next, test.limit, test.next)
		}
	}

	// What has come moves the limit by as much as it has come later.
	p := &Pool{Times: TimeLimits{Idle: 10 * second, FirstByte: second}}
	run := &Run{Begin: time.Now().Add(-10 * second), watch: &watch{fd: server.FD, tcp: true}}
	run.watch.begin()
	run.watch.active = run.Begin
	if _, err := unix.Write(client.FD, []byte("x")); err != nil {
		t.Fatal(err)
	}
	fdtest.Eventually(t, "the byte has come", func() bool {
		n, err := unix.IoctlGetInt(server.FD, unix.TIOCINQ)
		return n == 1 && err == nil
	})
	limit, next := p.due(run, time.Now())
	if limit != "" || next < 9*second || next > 10*second {
		t.Errorf("due() = %q, %v after a byte has come now; want some 10s", limit, next)
	}
	// And only once.
	if limit, _ = p.due(run, time.Now().Add(11*second)); limit != LimitIdle {
		t.Errorf("due() = %q 11s later; want %s", limit, LimitIdle)
	}
}
