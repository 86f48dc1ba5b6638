//go:build linux

package queue

import (
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
)

func TestWaiting(t *testing.T) {
	fdtest.NoLeaks(t)
	pipeSender, pipeReceiver, more := join1(t)
	path := aPath(t)
	for _, test := range []struct {
		kind             string
		sender, receiver *side
	}{
		{"pipe", pipeSender, pipeReceiver},
		{"named", openToSend(t, path, Options{}), openToReceive(t, path, Options{})},
	} {
		want := func(n int) {
			t.Helper()
			if got, known := test.sender.Waiting(); got != n || !known {
				t.Errorf("%s: Waiting() = %d, %t; want %d, true", test.kind, got, known, n)
			}
		}
		want(0)
		test.sender.send(t, "one")
		test.sender.send(t, "two, which is longer")
		want(2)
		test.receiver.receive(t, "one")
		want(1)
		test.receiver.receive(t, "two, which is longer")
		want(0)
	}
	more.Close()

	a, _ := fdtest.Pair(t, unix.SOCK_SEQPACKET)
	foreign := openToSend(t, number(a.Take()), Options{})
	foreign.send(t, "x")
	if n, known := foreign.Waiting(); n != 0 || known {
		t.Errorf("Waiting() at a socket whose other end is not here = %d, %t; want 0, false", n, known)
	}
}

func TestParseWaiting(t *testing.T) {
	for _, test := range []struct {
		fdinfo string
		want   int
		known  bool
	}{
		{"pos:\t0\nflags:\t02000002\nmnt_id:\t9\nino:\t7\nscm_fds: 12\n", 12, true},
		{"pos:\t0\nflags:\t02000002\nmnt_id:\t9\n", 0, false}, // before Linux 5.9
		{"", 0, false},
	} {
		if n, known := parseWaiting(test.fdinfo); n != test.want || known != test.known {
			t.Errorf("parseWaiting(%q) = %d, %t; want %d, %t", test.fdinfo, n, known, test.want, test.known)
		}
	}
}
