//go:build linux

package holders

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
)

func inode(t *testing.T, fd int) uint64 {
	t.Helper()
	var s unix.Stat_t
	if err := unix.Fstat(fd, &s); err != nil {
		t.Fatal(err)
	}
	return s.Ino
}

func wantPeer(t *testing.T, fd int, want uint64) {
	t.Helper()
	th := thing(t, os.Getpid(), fd)
	if p, err := PeerOf(th); err != nil || p == nil || p.Inode != want {
		t.Errorf("PeerOf(%s) = %+v, %v; want inode %d", th.Link, p, err, want)
	}
}

func wantNoPeer(t *testing.T, th Thing) {
	t.Helper()
	if p, err := PeerOf(th); p != nil || err != nil {
		t.Errorf("PeerOf(%+v) = %+v, %v; want none", th, p, err)
	}
}

func TestPeerOf(t *testing.T) {
	fdtest.NoLeaks(t)
	for _, typ := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_SEQPACKET} {
		a, b := fdtest.Pair(t, typ)
		wantPeer(t, a.FD, inode(t, b.FD))
		wantPeer(t, b.FD, inode(t, a.FD))
	}
	client, server := fdtest.TCPPair(t)
	wantPeer(t, client.FD, inode(t, server.FD))
	wantPeer(t, server.FD, inode(t, client.FD))
	r, _ := fdtest.Pipe(t)
	wantNoPeer(t, thing(t, os.Getpid(), r.FD))
	a, b := fdtest.Pair(t, unix.SOCK_STREAM)
	b.Close()
	wantPeer(t, a.FD, 0)
	wantNoPeer(t, Thing{Link: "socket:[4294967295]"})
	for _, link := range []string{"socket:[x]", "socket:[", "socket:", ""} {
		wantNoPeer(t, Thing{Link: link})
	}
}

// A client that nobody has accepted is connected to no socket that a process could have.
func TestPeerNotAccepted(t *testing.T) {
	fdtest.NoLeaks(t)
	listening := func(domain int, at unix.Sockaddr) (l, c int) {
		l, _ = unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		c, _ = unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		t.Cleanup(func() { unix.Close(l); unix.Close(c) })
		if err := unix.Bind(l, at); err != nil {
			t.Fatal(err)
		}
		if err := unix.Listen(l, 1); err != nil {
			t.Fatal(err)
		}
		at, err := unix.Getsockname(l)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Connect(c, at); err != nil {
			t.Fatal(err)
		}
		return l, c
	}
	l, c := listening(unix.AF_UNIX, &unix.SockaddrUnix{Name: filepath.Join(t.TempDir(), "s")})
	wantPeer(t, c, 0)
	wantNoPeer(t, thing(t, os.Getpid(), l))
	l, c = listening(unix.AF_INET, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	wantPeer(t, c, 0)
	wantNoPeer(t, thing(t, os.Getpid(), l))
}

// The other end is found in the network namespace of the socket.
func TestPeerOfOtherNamespace(t *testing.T) {
	fdtest.NeedsRoot(t)
	fdtest.NoLeaks(t)
	var fds [2]int
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and so the thread ends
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			fds, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		}
	}()
	<-done
	if err != nil {
		fdtest.Lacks(t, "no network namespace can be made: %v", err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	wantPeer(t, fds[0], inode(t, fds[1]))
	// Of an inode alone the namespace is not known.
	wantNoPeer(t, Thing{Link: thing(t, os.Getpid(), fds[0]).Link})
}
