//go:build linux

package fdrecv

import (
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdinfo"
	"fdkit/internal/scm"
)

// ListenerOption changes what Listener does.
type ListenerOption func(*listener)

// Trouble makes the Listener tell f of each connection that is lost, with the reason, and
// at most every ten seconds that it waits for a free descriptor; by default the standard
// logger is told. f may be called by several goroutines.
func Trouble(f func(error)) ListenerOption { return func(l *listener) { l.trouble = f } }

// Leases makes the Listener ask for its connections, READY in fdkit-protocol(7): n at
// first, and a further one whenever a Conn is closed, which it says with DONE. So this
// process never has more than n of them, and the pool knows how many. It is for the
// private queue of a worker of fdkit pool --resident only, where the pool hears it:
// with --share nothing is to be sent, and of a pipe or a named queue Accept returns an
// error.
//
// The pool goes on holding the connection until it has heard DONE. So Close shuts down
// the writing side first, for the client to see the end.
func Leases(n int) ListenerOption { return func(l *listener) { l.leases = max(n, 1) } }

// Listener returns a net.Listener whose connections are those that the queue brings. Every
// server that takes a net.Listener can receive from it: net/http, crypto/tls, gRPC.
// The connections are of type *Conn.
//
// The Listener takes the queue over: its Close closes the queue as well, and from then on,
// or after Stop of the queue, Accept returns net.ErrClosed. At the end of the queue Accept
// returns io.EOF. A server ends then, and its clients are served on: http.Server.Shutdown,
// say, waits for them.
//
// No single message ends Accept. One that is no connection, as it has no descriptor, a file,
// a datagram socket or one that listens, or that has lost its descriptors on the way, is
// closed, told to Trouble, and passed over. While this process is at its RLIMIT_NOFILE,
// Accept receives nothing, and connections wait in the queue.
//
// Like all connections of package net they are made non-blocking. O_NONBLOCK belongs to the
// open file description, open(2), so everybody who holds the same connection sees that.
func Listener(q *Queue, options ...ListenerOption) net.Listener {
	l := &listener{q: q, receiver: q.Receiver()}
	l.trouble = func(err error) { log.Printf("fdrecv: %v", err) }
	for _, option := range options {
		option(l)
	}
	return l
}

type listener struct {
	q       *Queue
	trouble func(error)
	leases  int // connections at a time, 0: any number

	accepting sync.Mutex // the Receiver is for one goroutine at a time
	receiver  *Receiver
	told      time.Time // when a shortage was
	mu        sync.Mutex
	words     *words // what is said of leases, nil: nothing yet
	closed    bool
}

// Addr is the name of the queue, of network fdkit.
func (l *listener) Addr() net.Addr { return queueAddr(l.q.name) }

type queueAddr string

func (queueAddr) Network() string  { return "fdkit" }
func (a queueAddr) String() string { return string(a) }

// Accept returns the next connection.
func (l *listener) Accept() (net.Conn, error) {
	l.accepting.Lock()
	defer l.accepting.Unlock()
	w, err := l.ready()
	if err != nil {
		return nil, err
	}
	defer w.release()
	for {
		var m Message
		err := l.next(&m)
		var lost *LostError
		switch {
		case errors.Is(err, ErrStopped):
			return nil, net.ErrClosed
		case errors.As(err, &lost):
		case err != nil:
			return nil, err
		default:
			var conn *Conn
			if conn, err = l.connection(&m); err == nil {
				l.lend(conn, w)
				return conn, nil
			}
			m.Close()
		}
		l.trouble(fmt.Errorf("a connection is lost: %w", err))
		l.done(w, m.Payload)
	}
}

// next receives when there is room for a descriptor, or the connection would be lost.
func (l *listener) next(m *Message) error {
	err := l.patiently(func() error {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
		if err == nil {
			_ = unix.Close(fd)
		}
		return err
	})
	if errors.Is(err, ErrStopped) {
		return err
	}
	return l.receiver.Receive(m)
}

// patiently tries again as long as this process, or the system, is out of descriptors.
func (l *listener) patiently(try func() error) error {
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		err := try()
		if !errors.Is(err, unix.EMFILE) && !errors.Is(err, unix.ENFILE) {
			return err
		}
		if l.q.q.Calls.Stopped() {
			return ErrStopped
		}
		if now := time.Now(); now.Sub(l.told) > 10*time.Second {
			l.told = now
			l.trouble(fmt.Errorf("nothing is received until a descriptor is free: %w", err))
		}
		time.Sleep(pause)
	}
}

// connection makes a Conn of the message, which it owns unless it fails.
func (l *listener) connection(m *Message) (*Conn, error) {
	if len(m.FDs) == 0 {
		return nil, errors.New("a message came without a descriptor")
	}
	fd := m.FDs[0]
	known, ok := fdinfo.Connection(fd)
	if listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); !ok || err != nil || listens != 0 {
		what := "something else"
		if d, err := fdinfo.Describe(fd); err == nil {
			what = d.What()
		}
		return nil, fmt.Errorf("what came is no connection: %s", what)
	}
	payload := append([]byte(nil), m.Payload...)
	if !strings.HasPrefix(string(payload), scm.Begin) {
		payload = known.AppendVars([]byte(scm.Begin))
	}
	file := os.NewFile(uintptr(fd), "connection")
	m.FDs = m.FDs[1:]
	defer file.Close() // net.FileConn has a copy
	var inner net.Conn
	err := l.patiently(func() (err error) {
		inner, err = net.FileConn(file)
		return err
	})
	if err != nil {
		return nil, err
	}
	c := &Conn{Conn: inner, payload: payload}
	c.address()
	c.attach(m)
	return c, nil
}

// Close ends Accept and closes the queue.
func (l *listener) Close() error {
	l.mu.Lock()
	closed := l.closed
	l.closed = true
	w := l.words
	l.mu.Unlock()
	if closed {
		return net.ErrClosed
	}
	w.release()
	lost, err := l.q.Close()
	for range lost {
		l.trouble(errors.New("a connection is lost: it was in the queue, and nobody else receives from that"))
	}
	return err
}
