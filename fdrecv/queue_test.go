//go:build linux

package fdrecv_test

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/fdrecv"
	"fdkit/fdsend"
	"fdkit/internal/fdtest"
)

// sendReceive opens both ends of a queue, and returns what passes one message on.
func sendReceive(t testing.TB) func() {
	a, b := fdtest.Pair(t, unix.SOCK_SEQPACKET)
	to, err := fdsend.Open(fmt.Sprintf("fd:%d", a.Take()), fdsend.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = to.Close() })
	from, err := fdrecv.Open(fmt.Sprintf("fd:%d", b.Take()), fdrecv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = from.Close() })
	sender, receiver := to.Sender(), from.Receiver()
	payload := []byte(fdsend.Begin + "PROTO=TCP\x00TCPREMOTEIP=192.0.2.1\x00")
	var m fdrecv.Message
	return func() {
		if err := sender.Send(payload, 2); err != nil {
			t.Fatalf("Send: %v", err)
		}
		if err := receiver.Receive(&m); err != nil || len(m.FDs) != 1 {
			t.Fatalf("Receive: %v, %d descriptors", err, len(m.FDs))
		}
		m.Close()
	}
}

// Send and Receive keep what their comments promise.
func TestNothingIsAllocated(t *testing.T) {
	if n := testing.AllocsPerRun(200, sendReceive(t)); n != 0 {
		t.Errorf("Send and Receive allocate %v times for a message, want 0", n)
	}
}

func BenchmarkSendReceive(b *testing.B) {
	pass := sendReceive(b)
	b.ReportAllocs()
	for b.Loop() {
		pass()
	}
}
