//go:build linux

package listen_test

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
	"fdkit/internal/interrupt"
	"fdkit/internal/scm"
	"fdkit/listen"
)

// sink is a queue, with its sending end as a Sink.
type sink struct {
	*scm.Sender
	receiver *scm.Receiver
	receive  *fdtest.End
}

func newSink(t *testing.T) *sink {
	t.Helper()
	a, b := fdtest.Pair(t, unix.SOCK_SEQPACKET)
	return &sink{scm.NewSender(a.FD, new(interrupt.Calls)), scm.NewReceiver(b.FD, new(interrupt.Calls)), b}
}

// serve runs Serve until the test's end.
func serve(t *testing.T, l *listen.Listener, to listen.Sink, events listen.Events) (*listen.Acceptor, <-chan error) {
	t.Helper()
	a := acceptor(t, listen.Policy{}, events, l)
	ended := make(chan error, 1)
	var group sync.WaitGroup
	group.Go(func() { ended <- a.Serve(to) })
	t.Cleanup(func() {
		a.Stop()
		group.Wait()
	})
	return a, ended
}

// acceptor returns an Acceptor that is closed at the test's end.
func acceptor(t *testing.T, policy listen.Policy, events listen.Events, ls ...*listen.Listener) *listen.Acceptor {
	t.Helper()
	a, err := listen.NewAcceptor(ls, policy, events)
	if err != nil {
		t.Fatalf("NewAcceptor() = %v", err)
	}
	t.Cleanup(a.Close)
	return a
}

func TestServe(t *testing.T) {
	fdtest.NoLeaks(t)
	l := on(t, "127.0.0.1:0")
	s := newSink(t)
	var accepted atomic.Int64
	a, ended := serve(t, l, s, listen.Events{Accepted: func(*listen.Conn) { accepted.Add(1) }})
	const clients = 20
	for range clients {
		from := client(t, l.String())
		var m scm.Message
		if err := s.receiver.Receive(&m); err != nil || len(m.FDs) != 1 {
			t.Fatalf("Receive() = %v, %d descriptors; want one", err, len(m.FDs))
		}
		if port, _ := scm.Var(m.Payload, "TCPREMOTEPORT"); port != fmt.Sprint(localAddress(t, from.FD).Port()) {
			t.Errorf("the message has TCPREMOTEPORT=%s, want %d", port, localAddress(t, from.FD).Port())
		}
		// No other copy of the connection is left open: its end reaches the client.
		m.Close()
		if n, err := unix.Read(from.FD, make([]byte, 1)); n != 0 || err != nil {
			t.Errorf("the client reads %d bytes, %v; want the end", n, err)
		}
	}
	if n := accepted.Load(); n != clients {
		t.Errorf("Accepted was told %d times, want %d", n, clients)
	}
	a.Stop()
	if err := fdtest.Soon(t, "Serve ends with Stop", ended); err != listen.ErrStopped {
		t.Errorf("Serve() = %v, want ErrStopped", err)
	}
}

// counting is a sink that notes how much has been allocated.
type counting struct {
	*sink
	mallocs []uint64
}

func (c *counting) Send(_ []byte, fds ...int) error {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if c.mallocs = append(c.mallocs, m.Mallocs); len(c.mallocs) == cap(c.mallocs) {
		return scm.ErrGone
	}
	return nil
}

// TestServeAllocatesNothing: what listen allocates for each connection would make it grow
// until the collector runs.
func TestServeAllocatesNothing(t *testing.T) {
	const clients = 60
	l := on(t, "127.0.0.1:0")
	for range clients {
		client(t, l.String())
	}
	c := &counting{newSink(t), make([]uint64, 0, clients)}
	a := acceptor(t, listen.Policy{}, listen.Events{}, l)
	if err := a.Serve(c); !errors.Is(err, scm.ErrGone) {
		t.Fatalf("Serve() = %v, want that of the sink", err)
	}
	// Other goroutines, of tests before, may allocate something.
	if n := c.mallocs[clients-1] - c.mallocs[9]; n >= clients-10 {
		t.Errorf("%d allocations for %d connections, want none", n, clients-10)
	}
}

func TestServeToNobody(t *testing.T) {
	fdtest.NoLeaks(t)
	l := on(t, "127.0.0.1:0")
	s := newSink(t)
	s.receive.Close()
	_, ended := serve(t, l, s, listen.Events{})
	from := client(t, l.String())
	err := fdtest.Soon(t, "Serve ends", ended)
	failed, ok := errors.AsType[*listen.SendError](err)
	if !ok || !errors.Is(err, scm.ErrGone) || failed.Remote != localAddress(t, from.FD).String() {
		t.Errorf("Serve() = %v, want a SendError for %v that wraps ErrGone", err, localAddress(t, from.FD))
	}
	if n, err := unix.Read(from.FD, make([]byte, 1)); n != 0 && err == nil {
		t.Errorf("the client reads %d bytes, %v; want that its connection is closed", n, err)
	}
}

// What nobody has room for is not accepted.
func TestServeWaitsForRoom(t *testing.T) {
	fdtest.NoLeaks(t)
	l := on(t, "127.0.0.1:0")
	s := newSink(t)
	full := fill(t, s.FD())
	var accepted atomic.Int64
	serve(t, l, s, listen.Events{Accepted: func(*listen.Conn) { accepted.Add(1) }})
	client(t, l.String())
	fdtest.Eventually(t, "Serve waits in poll", func() bool { return fdtest.Blocked(unix.SYS_PPOLL, -1) })
	if n := accepted.Load(); n != 0 {
		t.Errorf("%d connections were accepted with a full queue, want 0", n)
	}
	var m scm.Message
	for range full + 1 {
		if err := s.receiver.Receive(&m); err != nil {
			t.Fatalf("Receive() = %v", err)
		}
	}
	if len(m.FDs) != 1 {
		t.Errorf("the last message has %d descriptors, want the connection", len(m.FDs))
	}
	m.Close()
}

func TestServeOutOfDescriptors(t *testing.T) {
	fdtest.NoLeaks(t)
	l := on(t, "127.0.0.1:0")
	s := newSink(t)
	// With the queue full Serve does not wait in accept4 yet, which takes the
	// connection's number before it waits.
	full := fill(t, s.FD())
	var resumed atomic.Int64
	pausing := make(chan error, 1000)
	serve(t, l, s, listen.Events{
		Pausing: func(cause error) { pausing <- cause },
		Resumed: func() { resumed.Add(1) },
	})
	fdtest.Eventually(t, "Serve waits in poll", func() bool { return fdtest.Blocked(unix.SYS_PPOLL, -1) })
	from := client(t, l.String())
	restore := fdtest.FewFiles(t, 0)
	var m scm.Message
	for range full {
		if err := s.receiver.Receive(&m); err != nil {
			t.Fatalf("Receive() = %v", err)
		}
	}
	if cause := fdtest.Soon(t, "Pausing is told", pausing); !errors.Is(cause, unix.EMFILE) {
		t.Errorf("Pausing(%v), want EMFILE", cause)
	}
	before := cpu(t)
	poll := []unix.PollFd{{Fd: int32(from.FD), Events: unix.POLLIN}}
	if n, err := unix.Poll(poll, 200); n != 0 || err != nil {
		t.Errorf("poll of the client = %d, %v; want nothing to happen", n, err)
	}
	if spent := cpu(t) - before; spent > 100_000 { // it would be all of them if it spun
		t.Errorf("Serve spent %d µs of CPU time in 200 ms of waiting, want nearly none", spent)
	}
	if n := resumed.Load(); n != 0 {
		t.Errorf("Resumed was told %d times before the limit was lifted, want 0", n)
	}
	restore()
	if err := s.receiver.Receive(&m); err != nil || len(m.FDs) != 1 {
		t.Fatalf("Receive() = %v, %d descriptors; want the connection", err, len(m.FDs))
	}
	m.Close()
	if n := resumed.Load(); n != 1 || len(pausing) != 0 {
		t.Errorf("Resumed was told %d times, Pausing %d times more; want 1, 0", n, len(pausing))
	}
}

// fill sends until the queue is full, and returns how many messages that took.
func fill(t *testing.T, socket int) (n int) {
	t.Helper()
	for {
		err := unix.Sendmsg(socket, []byte("x"), nil, nil, unix.MSG_DONTWAIT)
		if err == unix.EAGAIN {
			return n
		}
		if err != nil {
			t.Fatalf("sendmsg: %v", err)
		}
		n++
	}
}

// cpu returns the CPU time of this process in microseconds.
func cpu(t *testing.T) int64 {
	t.Helper()
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	return (usage.Utime.Sec+usage.Stime.Sec)*1e6 + usage.Utime.Usec + usage.Stime.Usec
}

// Connections at each of several addresses are accepted, however busy one of them is,
// and by several goroutines.
func TestAcceptSeveral(t *testing.T) {
	fdtest.NoLeaks(t)
	ls := []*listen.Listener{on(t, "127.0.0.1:0"), on(t, fmt.Sprintf("unix:@fdkit-several-%d", os.Getpid())), on(t, "127.0.0.1:0")}
	a := acceptor(t, listen.Policy{}, listen.Events{}, ls...)
	const each = 10
	for range each {
		for _, l := range ls {
			client(t, l.String())
		}
	}
	locals := make(chan string, each*len(ls))
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			var c listen.Conn
			for a.Accept(&c) == nil {
				locals <- c.Local()
				checkFlags(t, c.FD)
				_ = unix.Close(c.FD)
			}
		})
	}
	count := map[string]int{}
	for n := range each * len(ls) {
		count[fdtest.Soon(t, "a connection is accepted", locals)]++
		if n == 2*len(ls) && len(count) != len(ls) {
			t.Errorf("of the first %d connections some are at %d addresses only, want all %d", n, len(count), len(ls))
		}
	}
	for _, l := range ls {
		if count[l.String()] != each {
			t.Errorf("%d connections were accepted at %v, want %d", count[l.String()], l, each)
		}
	}
	a.Stop()
	group.Wait()
}

// An Acceptor leaves a socket that others have as well as it was.
func TestAcceptorRestoresBlocking(t *testing.T) {
	fdtest.NoLeaks(t)
	given := on(t, "127.0.0.1:0")
	socket := descriptor(t, given)
	inherited := on(t, fmt.Sprintf("fd:%d", fdtest.Dup(t, socket).Take()))
	a := acceptor(t, listen.Policy{}, listen.Events{}, inherited, on(t, "127.0.0.1:0"))
	a.Close()
	if flags, err := unix.FcntlInt(uintptr(socket), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
		t.Errorf("after Close the socket has flags %#x (%v), want it blocking", flags, err)
	}
}

// During a pause Accept waits, and clients wait in the backlog.
func TestPause(t *testing.T) {
	for _, addresses := range [][]string{{"127.0.0.1:0"}, {"127.0.0.1:0", "127.0.0.1:0"}} {
		t.Run(fmt.Sprintf("%d addresses", len(addresses)), func(t *testing.T) { testPause(t, addresses) })
	}
}

func testPause(t *testing.T, addresses []string) {
	fdtest.NoLeaks(t)
	var ls []*listen.Listener
	for _, address := range addresses {
		ls = append(ls, on(t, address))
	}
	a := acceptor(t, listen.Policy{}, listen.Events{}, ls...)
	accepted := make(chan error, 1)
	accept := func() {
		var c listen.Conn
		err := a.Accept(&c)
		if err == nil {
			_ = unix.Close(c.FD)
		}
		accepted <- err
	}
	a.Pause()
	go accept()
	from := client(t, ls[0].String())
	poll := []unix.PollFd{{Fd: int32(from.FD), Events: unix.POLLIN}}
	if n, err := unix.Poll(poll, 50); n != 0 || err != nil || len(accepted) != 0 {
		t.Errorf("in a pause poll of a client = %d, %v, and %d connections were accepted; want none", n, err, len(accepted))
	}
	a.Resume()
	if err := fdtest.Soon(t, "Accept goes on", accepted); err != nil {
		t.Errorf("Accept() = %v after the pause, want nil", err)
	}
	go accept()
	a.Pause()
	a.Stop()
	if err := fdtest.Soon(t, "Accept ends", accepted); err != listen.ErrStopped {
		t.Errorf("Accept() = %v after Stop in a pause, want ErrStopped", err)
	}
}
