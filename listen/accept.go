//go:build linux

package listen

import (
	"fmt"
	"os"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdinfo"
	"fdkit/internal/interrupt"
	"fdkit/internal/scm"
)

// ErrStopped is returned by Accept and Serve after Stop.
var ErrStopped = interrupt.ErrStopped

// Conn is an accepted connection.
type Conn struct {
	// FD is the connection's descriptor, close-on-exec and blocking. Whoever
	// called Accept owns it.
	FD int
	// Accepted is when it was accepted.
	Accepted time.Time

	info fdinfo.Conn
	peer fdinfo.Sockaddr
}

// Local returns the address that the client connected to, Remote the client's,
// as ParseAddress takes them.
func (c *Conn) Local() string { return c.info.Local.String() }

// Remote returns the client's address.
func (c *Conn) Remote() string { return c.info.Remote.String() }

// AppendPayload appends the payload for passing the connection on: its UCSPI
// variables and FDKIT_ACCEPTED, the time in seconds since 1970 with six decimals
// (fdkit-environ(7)).
func (c *Conn) AppendPayload(b []byte) []byte {
	b = append(b, scm.Begin...)
	b = c.info.AppendVars(b)
	b = append(b, "FDKIT_ACCEPTED="...)
	micros := c.Accepted.UnixMicro()
	b = strconv.AppendInt(b, micros/1e6, 10)
	b = append(b, '.')
	fraction := micros % 1e6
	for digit := int64(100000); digit > 0; digit /= 10 {
		b = append(b, byte('0'+fraction/digit%10))
	}
	return append(b, 0)
}

// Accept waits for the next connection and stores it in c.
//
// It returns ErrStopped after Stop. Errors that concern one connection only are
// passed over; EMFILE and the like are returned and may heal with time.
func (l *Listener) Accept(c *Conn) error {
	if err := l.calls.Enter(); err != nil {
		return err
	}
	defer l.calls.Exit()
	return l.accept(c)
}

func (l *Listener) accept(c *Conn) error {
	for {
		// Blocking accept4, not net.Listener: Go's net package would make the
		// connection non-blocking, on which cat, sed and perl fail.
		c.peer.Reset()
		fd, _, errno := unix.Syscall6(unix.SYS_ACCEPT4, uintptr(l.fd),
			uintptr(unsafe.Pointer(&c.peer.Any)), uintptr(unsafe.Pointer(&c.peer.Len)), unix.SOCK_CLOEXEC, 0, 0)
		switch errno {
		case 0:
			l.describe(c, int(fd))
			return nil
		case unix.EINTR:
			if l.calls.Stopped() {
				return ErrStopped
			}
		case unix.EAGAIN:
			// Who gave us this socket has set O_NONBLOCK on it.
			if err := l.calls.Poll(l.fd, unix.POLLIN); err != nil {
				return err
			}
		case unix.ECONNABORTED, unix.EPROTO, unix.EPERM, unix.ENOPROTOOPT, unix.ENETDOWN, unix.ENETUNREACH,
			unix.EHOSTDOWN, unix.EHOSTUNREACH, unix.ENONET, unix.EOPNOTSUPP, unix.ETIMEDOUT:
			// Linux passes on what befell the new connection, accept(2); EPERM is
			// a firewall's word.
		default:
			return os.NewSyscallError("accept4", errno)
		}
	}
}

func (l *Listener) describe(c *Conn, fd int) {
	c.FD, c.Accepted = fd, time.Now()
	c.info = fdinfo.Conn{Local: l.local, Remote: c.peer.Address()}
	switch {
	case l.local.Unix:
		c.info.Peer = fdinfo.PeerCredentials(fd)
	case l.wildcard:
		if local, ok := fdinfo.LocalAddress(fd); ok {
			c.info.Local = local
		}
	}
}

// Sink is where Serve sends connections; *fdsend.Sender is one.
type Sink interface {
	// FD is a descriptor on which poll(2) reports POLLOUT while there is room.
	FD() int
	// Send sends copies of the descriptors and waits for room if it must.
	Send(payload []byte, fds ...int) error
}

// Events are told what happens in Serve. Each may be nil.
type Events struct {
	Accepted func(c *Conn)     // a connection was accepted and will be sent
	Pausing  func(cause error) // accepting pauses until the cause has gone; told once each time
	Resumed  func()            // it goes on
}

// SendError says that an accepted connection could not be sent and was closed.
type SendError struct {
	Remote string // the client's address
	Err    error
}

func (e *SendError) Error() string {
	return fmt.Sprintf("cannot send the connection of %s: %v", e.Remote, e.Err)
}

func (e *SendError) Unwrap() error { return e.Err }

// Serve accepts connections and sends each to the sink, until Stop, which makes
// it return ErrStopped, or until the sink fails, which it returns as a *SendError.
//
// A connection is accepted only when the sink has room for it: the others wait in
// the kernel's backlog.
func (l *Listener) Serve(sink Sink, on Events) error {
	var c Conn
	payload := make([]byte, 0, scm.MaxPayload)
	var pause time.Duration
	for {
		switch err := l.next(sink.FD(), &c); {
		case err == nil:
		case errIsTemporary(err):
			if pause == 0 && on.Pausing != nil {
				on.Pausing(err)
			}
			pause = min(max(2*pause, time.Millisecond), 50*time.Millisecond)
			time.Sleep(pause) // the backlog stays readable: only time can be waited for
			continue
		default:
			return err
		}
		if pause > 0 {
			pause = 0
			if on.Resumed != nil {
				on.Resumed()
			}
		}
		if on.Accepted != nil {
			on.Accepted(&c)
		}
		payload = c.AppendPayload(payload[:0])
		err := sink.Send(payload, c.FD)
		_ = unix.Close(c.FD)
		if err != nil {
			return &SendError{c.Remote(), err}
		}
	}
}

// next waits for room at the sink and then for a connection.
func (l *Listener) next(sink int, c *Conn) error {
	if err := l.calls.Enter(); err != nil {
		return err
	}
	defer l.calls.Exit()
	if err := l.calls.Poll(sink, unix.POLLOUT); err != nil {
		return err
	}
	return l.accept(c)
}

func errIsTemporary(err error) bool {
	e, ok := err.(*os.SyscallError)
	if !ok {
		return false
	}
	switch e.Err {
	case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM:
		return true
	}
	return false
}
