//go:build linux

package fdtest

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TCPPair returns the two ends of a TCP connection over the loopback interface, the
// client's first.
func TCPPair(t testing.TB) (client, server *End) {
	t.Helper()
	listener, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("socket: %v", err)
	}
	defer unix.Close(listener)
	loopback := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	if err := unix.Bind(listener, loopback); err != nil {
		t.Fatalf("bind: %v", err)
	}
	if err := unix.Listen(listener, 1); err != nil {
		t.Fatalf("listen: %v", err)
	}
	address, err := unix.Getsockname(listener)
	if err != nil {
		t.Fatalf("getsockname: %v", err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("socket: %v", err)
	}
	client = newEnd(t, fd)
	if err := unix.Connect(fd, address); err != nil {
		t.Fatalf("connect: %v", err)
	}
	fd, _, err = unix.Accept4(listener, unix.SOCK_CLOEXEC)
	if err != nil {
		t.Fatalf("accept4: %v", err)
	}
	return client, newEnd(t, fd)
}

// Reset closes a client's end so that the other one sees a reset, SO_LINGER in
// socket(7).
func (e *End) Reset() {
	_ = unix.SetsockoptLinger(e.FD, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	e.Close()
}
