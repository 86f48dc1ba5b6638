//go:build linux

package torture

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/hint"
	"fdkit/internal/queue"
	"fdkit/internal/unixpath"
)

// trait is something that an endpoint has and a case may need.
type trait uint

const (
	stream    trait = 1 << iota // bytes without boundaries
	packets                     // messages with boundaries
	ends                        // a connection, which is the case's own and has an end
	server                      // several connections, or senders, at a time
	started                     // a program that is started for each case
	boundless                   // the size of a message has no limit that is not ours
)

// lacking says why a case is skipped for want of a trait.
var lacking = []struct {
	trait
	text string
}{
	{stream, "it is for stream sockets"},
	{packets, "it is for sockets with message boundaries"},
	{ends, "there is no connection that could end"},
	{server, "it takes an endpoint that several can connect to"},
	{started, "it is for a program that is started, with --run"},
	{boundless, "the queue takes only short messages"},
}

// peer is who is tortured.
type peer interface {
	traits() trait
	// connect returns a new connection. It never waits: the error errNobody, wrapped,
	// says that it may succeed later.
	connect() (*conn, error)
	close()
}

// Endpoint is where the peer is.
type Endpoint struct {
	peer
}

// dialled is a Unix socket that the peer serves.
type dialled struct {
	path string
	typ  int
}

// ErrSpec is wrapped by the error of a text that names no endpoint at all.
var ErrSpec = queue.ErrSpec

// specError is the error of such a text.
type specError struct{ error }

func (e specError) Is(target error) bool { return target == ErrSpec }

func (e specError) Unwrap() error { return e.error }

// Open opens the endpoint that spec names: unix:PATH, unix-seqpacket:PATH or
// unix-dgram:PATH, which the peer serves, unix-listen:PATH, to which it connects, or a
// named queue that exists. Options are those of the queue, and of the socket file.
func Open(spec string, o queue.Options) (*Endpoint, error) {
	kind, path, _ := strings.Cut(spec, ":")
	types := map[string]int{
		"unix": unix.SOCK_STREAM, "unix-listen": unix.SOCK_STREAM,
		"unix-seqpacket": unix.SOCK_SEQPACKET, "unix-dgram": unix.SOCK_DGRAM,
	}
	typ, foreign := types[kind]
	if !foreign {
		q, err := queue.OpenSend(spec, o)
		if err != nil {
			return nil, err
		}
		return &Endpoint{&queued{q}}, nil
	}
	if err := unixpath.Check(path); err != nil {
		return nil, specError{fmt.Errorf("endpoint %s: %w", spec, err)}
	}
	if kind != "unix-listen" {
		return &Endpoint{&dialled{path, typ}}, nil
	}
	if unixpath.Abstract(path) {
		return nil, specError{hint.Wrap(fmt.Errorf("endpoint %s: anybody could connect to an abstract name", spec), "a path has permissions: unix-listen:/PATH")}
	}
	l, err := listen(path, o.Access())
	if err != nil {
		return nil, fmt.Errorf("cannot bind %s: %w", spec, err)
	}
	return &Endpoint{l}, nil
}

func (d *dialled) traits() trait {
	switch d.typ {
	case unix.SOCK_STREAM:
		return stream | ends | server | boundless
	case unix.SOCK_SEQPACKET:
		return packets | ends | server | boundless
	}
	return packets | server | boundless
}

func (d *dialled) connect() (*conn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, d.typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	// EAGAIN is a full backlog, and what else there is to be waited for is no peer.
	switch err := unix.Connect(fd, &unix.SockaddrUnix{Name: d.path}); err {
	case nil:
		c := newConn(fd, d.traits()&ends != 0)
		c.process = peerOf(fd)
		return c, nil
	case unix.EAGAIN, unix.ECONNREFUSED, unix.ENOENT:
		_ = unix.Close(fd)
		return nil, fmt.Errorf("%w: %s: %w", errNobody, d.path, err)
	case unix.EPROTOTYPE:
		_ = unix.Close(fd)
		return nil, hint.Wrap(fmt.Errorf("cannot connect to %s: %w", d.path, err), "it is a socket of another type: unix:, unix-seqpacket: or unix-dgram:")
	default:
		_ = unix.Close(fd)
		return nil, fmt.Errorf("cannot connect to %s: %w", d.path, err)
	}
}

func (d *dialled) close() {}

// listening is a Unix socket that the peer connects to.
type listening struct {
	path string
	fd   int
	id   unixpath.Identity // of the socket file
}

func listen(path string, access unixpath.Access) (*listening, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	l := &listening{path: path, fd: fd}
	if err = unixpath.Bind(fd, path, access, 16); err == nil {
		l.id, err = unixpath.Identify(path)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return l, nil
}

func (l *listening) traits() trait { return stream | ends | boundless }

func (l *listening) connect() (*conn, error) {
	fd, _, err := unix.Accept4(l.fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	switch err {
	case nil:
		c := newConn(fd, true)
		c.process = peerOf(fd)
		return c, nil
	case unix.EAGAIN, unix.EINTR, unix.ECONNABORTED:
		return nil, fmt.Errorf("%w: nobody connects to %s", errNobody, l.path)
	}
	return nil, os.NewSyscallError("accept4", err)
}

func (l *listening) close() {
	unixpath.Remove(l.path, l.id)
	_ = unix.Close(l.fd)
}

// queued is a named queue.
type queued struct{ q *queue.Queue }

func (q *queued) traits() trait { return packets | server }

func (q *queued) connect() (*conn, error) {
	// Every copy leads to the one queue, so it has no end.
	fd, err := unix.FcntlInt(uintptr(q.q.FD), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return newConn(fd, false), nil
}

func (q *queued) close() { _, _ = q.q.Close() }

// join waits for a connection.
func (b *bench) join(limit time.Duration) (c *conn, err error) {
	begin := time.Now()
	var why error
	_, err = b.await(limit, func() (bool, error) {
		c, why = b.connect()
		if why != nil && !errors.Is(why, errNobody) {
			return false, why
		}
		if why != nil && !b.noticed && b.options.Notice != nil && time.Since(begin) > time.Second {
			b.noticed = true
			b.options.Notice(fmt.Sprintf("still waiting: %v", why))
		}
		return why == nil, nil
	})
	if err == nil && c == nil {
		err = why
	}
	return c, err
}
