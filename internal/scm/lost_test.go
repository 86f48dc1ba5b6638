//go:build linux

package scm

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
)

// Why descriptors are lost is told by whether there is room for one more.
func TestLostReason(t *testing.T) {
	fdtest.NoLeaks(t)
	_, end := fdtest.Pair(t, unix.SOCK_SEQPACKET)
	for _, test := range []struct {
		room int
		want string
	}{
		{0, "descriptors were lost on the way (MSG_CTRUNC), 0 came and were closed: out of descriptors (RLIMIT_NOFILE)"},
		{1, "descriptors were lost on the way (MSG_CTRUNC), 0 came and were closed: refused by a security module"},
	} {
		r := NewReceiver(end.FD, nil)
		r.header.Flags = unix.MSG_CTRUNC
		r.header.SetControllen(0)
		restore := fdtest.FewFiles(t, test.room)
		_, err := r.take(&Message{}, 1)
		restore()
		if _, ok := errors.AsType[*LostError](err); !ok || err.Error() != test.want {
			t.Errorf("take() of a truncated message with room for %d descriptors = %v; want %s", test.room, err, test.want)
		}
	}
}
