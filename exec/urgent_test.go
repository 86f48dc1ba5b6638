//go:build linux

package exec

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
)

// Urgent data hides from the kernel's count what comes behind it: a program that has
// read it all, and failed for it, has failed by its client's doing.
func TestUrgentDataIsNoFailure(t *testing.T) {
	fdtest.NoLeaks(t)
	client, server := fdtest.TCPPair(t)
	if err := unix.Sendto(client.FD, []byte("!"), unix.MSG_OOB, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Write(client.FD, []byte("bad line\n")); err != nil {
		t.Fatal(err)
	}
	fdtest.Eventually(t, "the data has come", func() bool {
		var info unix.TCPInfo
		return tcpInfo(server.FD, &info) && info.Bytes_received >= 10
	})
	w := &watch{fd: server.FD, tcp: true}
	w.begin()
	n, err := unix.Read(server.FD, make([]byte, 100))
	if err != nil {
		t.Fatal(err)
	}
	if v := w.verdict(time.Millisecond); v == failed {
		t.Errorf("a program that has read %d bytes has failed by itself; want by its client's doing", n)
	}
}
