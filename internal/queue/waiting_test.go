//go:build linux

package queue

import (
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
)

// TestWaiting holds which sides know how much is in the queue, and that they know
// it exactly.
func TestWaiting(t *testing.T) {
	const unknown = -1
	for name, open := range map[string]func(t *testing.T) (s, r *side, more int){
		"named": func(t *testing.T) (s, r *side, more int) {
			path := aPath(t)
			return openToSend(t, path, Options{}), openToReceive(t, path, Options{}), 0
		},
		"pipe": func(t *testing.T) (s, r *side, more int) {
			s, r, _ = join1(t)
			return s, r, 0
		},
		"socket": func(t *testing.T) (s, r *side, more int) {
			a, b := fdtest.Pair(t, unix.SOCK_SEQPACKET)
			return openToSend(t, number(a.Take()), Options{}), openToReceive(t, number(b.Take()), Options{}), unknown
		},
	} {
		t.Run(name, func(t *testing.T) {
			fdtest.NoLeaks(t)
			s, r, sees := open(t)
			expect := func(q *Queue, who string, want int) {
				t.Helper()
				n, ok := q.Waiting()
				if !ok {
					n = unknown
				}
				if n != want {
					t.Errorf("Waiting() of the %s = %d; want %d", who, n, want)
				}
			}
			for n, payload := range []string{"", "one", "two"} {
				if n > 0 {
					s.send(t, payload)
				}
				expect(r.Queue, "receiver", n)
				expect(s.Queue, "sender", n|sees)
			}
			r.receive(t, "one")
			expect(r.Queue, "receiver", 1)
			expect(s.Queue, "sender", 1|sees)
			r.receive(t, "two")
			expect(s.Queue, "sender", 0|sees)
			s.close(t, 0)
			expect(s.Queue, "sender that is closed", unknown)
			r.close(t, 0)
			expect(r.Queue, "receiver that is closed", unknown)
		})
	}
}
