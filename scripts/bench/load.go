//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// load is what clients do, a number of them at once, each again and again: connect, send
// the question, read the answer up to the end, close. The server closes first, as a
// program that ends does, and has the socket in TIME_WAIT.
type load struct {
	address  netip.AddrPort
	clients  int
	sources  int // client addresses, from 127.0.0.2 on, in turn; 0: as the kernel chooses
	length   time.Duration
	total    int // end after so many connections; 0: when the time is over
	question []byte
	half     bool // shut the sending side down after the answer, whose end comes then
	answer   []byte
	// answered is told of each whole answer, may keep nothing of it, and says whether
	// it is right. If it is nil, the answer must be as above.
	answered func(answer []byte) bool
}

// served is what came of a load.
type served struct {
	connections int             // with the right answer
	failed      int             // without
	failure     error           // of the last that failed
	within      int             // connections that ended within the time
	took        time.Duration   // that time
	latencies   []time.Duration // from connect to the end, sorted
	cpu         time.Duration   // of the generator itself
}

// rate is connections per second.
func (s *served) rate() float64 { return float64(s.within) / s.took.Seconds() }

// quantile returns the latency that the part q of all connections does not exceed.
func (s *served) quantile(q float64) time.Duration {
	if len(s.latencies) == 0 {
		return 0
	}
	return s.latencies[min(int(q*float64(len(s.latencies))), len(s.latencies)-1)]
}

// client is one connection at a time.
type client struct {
	fd     int
	begin  time.Time
	sent   bool
	answer []byte
}

// generator is one thread with raw system calls and an epoll of its own: Go's network
// poller would cost as much as the servers that are measured.
type generator struct {
	load
	served
	epoll   int
	clients []client
	busy    int // clients that have a connection
	next    int // number of the next connection
	until   time.Time
}

// Some answer has to come within this time, and so many connections may fail.
const (
	silence    = 30 * time.Second
	mostFailed = 1000
)

// run generates the load. Its error says that it could not be generated; connections
// that fail are counted.
func (l load) run() (*served, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	g := &generator{load: l, epoll: epoll, clients: make([]client, l.clients)}
	g.latencies = make([]time.Duration, 0, 1<<16)
	defer g.close()
	before, err := threadCPU()
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	g.until = begin.Add(l.length)
	if err := g.generate(); err != nil {
		return nil, err
	}
	after, err := threadCPU()
	g.took, g.cpu = min(l.length, time.Since(begin)), after-before
	slices.Sort(g.latencies)
	return &g.served, err
}

func threadCPU() (time.Duration, error) {
	var usage unix.Rusage
	err := unix.Getrusage(unix.RUSAGE_THREAD, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()), os.NewSyscallError("getrusage", err)
}

func (g *generator) close() {
	for i := range g.clients {
		if g.clients[i].fd > 0 {
			_ = unix.Close(g.clients[i].fd)
		}
	}
	_ = unix.Close(g.epoll)
}

func (g *generator) generate() error {
	for i := range g.clients {
		g.begin(i)
	}
	events := make([]unix.EpollEvent, len(g.clients))
	for g.busy > 0 {
		n, err := unix.EpollWait(g.epoll, events, int(silence.Milliseconds()))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return os.NewSyscallError("epoll_wait", err)
		case n == 0:
			return fmt.Errorf("%d of %d clients have no answer, for %v", g.busy, len(g.clients), silence)
		}
		for _, e := range events[:max(n, 0)] {
			g.proceed(int(e.Fd))
		}
	}
	switch {
	case g.failed > mostFailed:
		return fmt.Errorf("more than %d connections failed, the last: %w", mostFailed, g.failure)
	case g.connections == 0:
		return fmt.Errorf("no connection was answered: %w", g.failure)
	}
	return nil
}

// begin begins a connection of client i, or those after it that fail at once.
func (g *generator) begin(i int) {
	c := &g.clients[i]
	for g.failed <= mostFailed && (g.total == 0 || g.next < g.total) {
		now := time.Now()
		if !now.Before(g.until) {
			return
		}
		*c = client{answer: c.answer[:0], begin: now}
		err := g.connect(c)
		if err == nil {
			// The connection is there most often: on loopback the other side has
			// answered before connect(2) returned.
			if err = g.send(c); err == nil {
				event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}
				if !c.sent {
					event.Events = unix.EPOLLOUT
				}
				err = os.NewSyscallError("epoll_ctl", unix.EpollCtl(g.epoll, unix.EPOLL_CTL_ADD, c.fd, &event))
			}
		}
		if err == nil {
			g.busy++
			return
		}
		g.fail(c, err)
	}
}

func (g *generator) connect(c *client) (err error) {
	g.next++
	if c.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		c.fd = 0
		return os.NewSyscallError("socket", err)
	}
	if g.sources > 0 {
		// The port is chosen by connect(2), when all four numbers are known, ip(7).
		if err := unix.SetsockoptInt(c.fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
		n := 2 + g.next%g.sources
		if err := unix.Bind(c.fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, byte(n >> 8), byte(n)}}); err != nil {
			return os.NewSyscallError("bind", err)
		}
	}
	to := unix.SockaddrInet4{Addr: g.address.Addr().As4(), Port: int(g.address.Port())}
	if err := unix.Connect(c.fd, &to); err != nil && err != unix.EINPROGRESS {
		return os.NewSyscallError("connect", err)
	}
	return nil
}

// send sends the question, if the connection is there.
func (g *generator) send(c *client) error {
	if len(g.question) > 0 {
		n, err := unix.Write(c.fd, g.question)
		switch {
		case err == unix.EAGAIN: // not connected yet
			return nil
		case err != nil:
			return os.NewSyscallError("write", err)
		case n < len(g.question):
			return errors.New("the question does not fit into the socket")
		}
	}
	c.sent = true
	return nil
}

// proceed does what client i waited for.
func (g *generator) proceed(i int) {
	c := &g.clients[i]
	ended, err := g.step(i, c)
	switch {
	case err != nil:
		g.fail(c, err)
	case ended:
		_ = unix.Close(c.fd)
		now := time.Now()
		c.fd = 0
		g.connections++
		if !now.After(g.until) {
			g.within++
		}
		g.latencies = append(g.latencies, now.Sub(c.begin))
	default:
		return
	}
	g.busy--
	g.begin(i)
}

func (g *generator) step(i int, c *client) (ended bool, err error) {
	if !c.sent {
		if err := g.send(c); err != nil || !c.sent {
			return false, err
		}
		event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}
		return false, os.NewSyscallError("epoll_ctl", unix.EpollCtl(g.epoll, unix.EPOLL_CTL_MOD, c.fd, &event))
	}
	c.answer = slices.Grow(c.answer, 512)
	n, err := unix.Read(c.fd, c.answer[len(c.answer):cap(c.answer)])
	switch {
	case err == unix.EAGAIN:
		return false, nil
	case err != nil:
		return false, os.NewSyscallError("read", err)
	case n > 0:
		c.answer = c.answer[:len(c.answer)+n]
		if g.half && len(c.answer) == len(g.answer) {
			err = os.NewSyscallError("shutdown", unix.Shutdown(c.fd, unix.SHUT_WR))
		}
		return false, err
	case g.answered != nil && !g.answered(c.answer), g.answered == nil && !bytes.Equal(c.answer, g.answer):
		return false, fmt.Errorf("the answer is %q", c.answer)
	}
	return true, nil
}

func (g *generator) fail(c *client, err error) {
	g.failed++
	g.failure = err
	if c.fd > 0 {
		_ = unix.Close(c.fd)
		c.fd = 0
	}
}
