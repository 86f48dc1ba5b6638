//go:build linux

package fdrecv_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/fdrecv"
	"fdkit/internal/fdtest"
)

// heard returns the next that the worker has said.
func heard(t *testing.T, pool *fdtest.End) string {
	t.Helper()
	fds := []unix.PollFd{{Fd: int32(pool.FD), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, int(fdtest.Limit.Milliseconds())); n != 1 || err != nil {
		t.Fatalf("poll: %d, %v; want a word of the worker", n, err)
	}
	b := make([]byte, 256)
	n, _, err := unix.Recvfrom(pool.FD, b, unix.MSG_DONTWAIT)
	if err != nil {
		t.Fatalf("recvfrom: %v", err)
	}
	return strings.ReplaceAll(string(b[:n]), "\n", " ")
}

func silent(t *testing.T, pool *fdtest.End) {
	t.Helper()
	b := make([]byte, 256)
	if n, _, err := unix.Recvfrom(pool.FD, b, unix.MSG_DONTWAIT); err != unix.EAGAIN {
		t.Errorf("the worker says %q, %v; want nothing", b[:max(n, 0)], err)
	}
}

// A worker asks for its connections and says, once for each, when it is done; the client
// sees the end although the pool has a copy of the connection.
func TestLeases(t *testing.T) {
	fdtest.NoLeaks(t)
	pool, q := newQueue(t)
	var told troubles
	l := fdrecv.Listener(q, fdrecv.Leases(2), fdrecv.Trouble(told.add))
	silent(t, pool)
	client, server := fdtest.TCPPair(t)
	kept := fdtest.Dup(t, server.FD)
	give(t, pool, []string{"FDKIT_LEASE=7"}, server)
	first := accept(t, l)
	if got := heard(t, pool); got != "READY=2" {
		t.Errorf("the worker says %q, want READY=2", got)
	}
	_, server = fdtest.TCPPair(t)
	give(t, pool, []string{"FDKIT_LEASE=8"}, server)
	second := accept(t, l)
	silent(t, pool)

	for range 3 {
		first.Close()
	}
	if n, err := unix.Read(client.FD, make([]byte, 1)); n != 0 || err != nil {
		t.Errorf("the client reads %d, %v; want the end", n, err)
	}
	kept.Close()
	if got := heard(t, pool); got != "DONE=7 READY" {
		t.Errorf("the worker says %q, want DONE=7 READY", got)
	}
	silent(t, pool)

	// What is no connection is done with at once, and so is one without variables.
	read, _ := fdtest.Pipe(t)
	give(t, pool, []string{"FDKIT_LEASE=9"}, read)
	_, server = fdtest.TCPPair(t)
	giveRaw(t, pool, []byte("!"), server)
	third := accept(t, l)
	if got := heard(t, pool); got != "DONE=9 READY" || len(told.all()) != 1 {
		t.Errorf("the worker says %q, and Trouble is told %q; want DONE=9 READY, and once", got, told.all())
	}
	third.Close()
	if got := heard(t, pool); got != "DONE READY" {
		t.Errorf("the worker says %q, want DONE READY", got)
	}

	// A worker that is to end says DONE to the last, and wants no further one.
	l.Close()
	silent(t, pool)
	second.Close()
	if got := heard(t, pool); got != "DONE=8" {
		t.Errorf("the worker says %q, want DONE=8", got)
	}
	pool.Close()
}

// It is no trouble that the pool has gone.
func TestLeasesPoolGone(t *testing.T) {
	fdtest.NoLeaks(t)
	pool, q := newQueue(t)
	var told troubles
	l := fdrecv.Listener(q, fdrecv.Leases(1), fdrecv.Trouble(told.add))
	_, server := fdtest.TCPPair(t)
	give(t, pool, nil, server)
	conn := accept(t, l)
	pool.Close()
	defer l.Close()
	if err := conn.Close(); err != nil || len(told.all()) != 0 {
		t.Errorf("Close() = %v, Trouble is told %q; want nil, nothing", err, told.all())
	}
}

// Nothing is said through a queue that is no worker's own.
func TestLeasesOfNamedQueue(t *testing.T) {
	fdtest.NoLeaks(t)
	q, err := fdrecv.Open(fmt.Sprintf("@fdrecv-leases-%d", os.Getpid()), fdrecv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l := fdrecv.Listener(q, fdrecv.Leases(1))
	defer l.Close()
	if _, err := l.Accept(); err == nil || !strings.Contains(err.Error(), "worker's own queue") {
		t.Errorf("Accept() = %v, want an error that tells why", err)
	}
}
