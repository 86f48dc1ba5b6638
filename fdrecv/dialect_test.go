//go:build linux

package fdrecv_test

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/fdrecv"
	"fdkit/internal/fdtest"
)

// Who sends is known of what is sent after PassCredentials, and the socket is as it was
// when the queue is closed.
func TestPassCredentials(t *testing.T) {
	for _, before := range []int{0, 1} {
		fdtest.NoLeaks(t)
		send, receive := fdtest.Pair(t, unix.SOCK_SEQPACKET)
		option := func() int {
			t.Helper()
			n, err := unix.GetsockoptInt(receive.FD, unix.SOL_SOCKET, unix.SO_PASSCRED)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		if err := unix.SetsockoptInt(receive.FD, unix.SOL_SOCKET, unix.SO_PASSCRED, before); err != nil {
			t.Fatal(err)
		}
		q, err := fdrecv.Open(fmt.Sprintf("fd:%d", fdtest.Dup(t, receive.FD).Take()), fdrecv.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if who, ok := q.Peer(); !ok || who.PID != os.Getpid() || who.UID != os.Getuid() || who.GID != os.Getgid() {
			t.Errorf("Peer() = %v, %v; want this process, true", who, ok)
		}
		if err := unix.Sendmsg(send.FD, []byte("early"), nil, nil, 0); err != nil {
			t.Fatal(err)
		}
		if err := q.PassCredentials(); err != nil || option() == 0 {
			t.Errorf("PassCredentials() = %v, SO_PASSCRED is %d; want nil, 1", err, option())
		}
		if err := unix.Sendmsg(send.FD, []byte("late"), nil, nil, 0); err != nil {
			t.Fatal(err)
		}
		early := before * os.Getpid()
		receiver := q.Receiver()
		for _, want := range []int{early, os.Getpid()} {
			var m fdrecv.Message
			if err := receiver.Receive(&m); err != nil || m.Sender == nil || m.Sender.PID != want {
				t.Errorf("Receive() = %v, sender %v; want nil, process %d", err, m.Sender, want)
			}
		}
		if _, err := q.Close(); err != nil || option() != before {
			t.Errorf("Close() = %v, SO_PASSCRED is %d; want nil, %d as before", err, option(), before)
		}
		if err := q.PassCredentials(); err != fdrecv.ErrStopped {
			t.Errorf("PassCredentials() after Close = %v, want ErrStopped", err)
		}
	}
}
