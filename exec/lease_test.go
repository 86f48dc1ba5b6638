//go:build linux

package exec

import (
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
)

// TestUntouched: a connection is untouched also while its client is sending, until somebody
// reads or writes.
func TestUntouched(t *testing.T) {
	fdtest.NoLeaks(t)
	for round := range 20 {
		client, server := fdtest.TCPPair(t)
		l := lease{parcel: parcel{fds: []int{server.FD}}}
		if !l.untouched() {
			t.Fatalf("round %d: a new connection is touched", round)
		}
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				select {
				case <-stop:
					return
				default:
					_, _ = unix.SendmsgN(client.FD, []byte("x"), nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
				}
			}
		}()
		for look := range 500 {
			if !l.untouched() {
				t.Errorf("round %d, look %d: a connection whose client sends is touched", round, look)
				break
			}
		}
		if n, err := unix.Read(server.FD, make([]byte, 1)); n != 1 || err != nil {
			t.Fatalf("read: %d, %v", n, err)
		}
		if l.untouched() {
			t.Errorf("round %d: a connection from which was read is untouched", round)
		}
		close(stop)
		<-stopped
		client.Close()
		server.Close()
	}
	_, server := fdtest.TCPPair(t)
	if _, err := unix.Write(server.FD, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if (lease{parcel: parcel{fds: []int{server.FD}}}).untouched() {
		t.Error("a connection to which was written is untouched")
	}
}
