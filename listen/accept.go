//go:build linux

package listen

import (
	"os"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdinfo"
	"fdkit/internal/interrupt"
	"fdkit/internal/scm"
)

// ErrStopped is returned after Stop.
var ErrStopped = interrupt.ErrStopped

// Conn is an accepted connection.
type Conn struct {
	// FD is the connection's descriptor, close-on-exec and blocking. Whoever
	// called Accept owns it.
	FD int
	// Accepted is when it was accepted.
	Accepted time.Time

	info     fdinfo.Conn
	peer     fdinfo.Sockaddr
	header   *proxyHeader // that came with it, nil: none; info is that of the client then
	own      fdinfo.Conn  // the connection itself, if it has a header
	settings []byte       // variables that a rule sets, each NAME=VALUE and NUL
}

// Local returns the address that the client connected to, Remote the client's,
// as ParseAddress takes them.
func (c *Conn) Local() string { return c.info.Local.String() }

// Remote returns the client's address.
func (c *Conn) Remote() string { return c.info.Remote.String() }

// Peer returns the user and the process that have connected a Unix socket; ok is false
// if they are not known.
func (c *Conn) Peer() (who unix.Ucred, ok bool) {
	if c.info.Peer == nil {
		return who, false
	}
	return *c.info.Peer, true
}

// AppendPayload appends the payload for passing the connection on: its UCSPI
// variables, FDKIT_ACCEPTED, the time in seconds since 1970 with six decimals
// (fdkit-environ(7)), and what an Acceptor's rules set.
func (c *Conn) AppendPayload(b []byte) []byte {
	b = append(b, scm.Begin...)
	b = c.info.AppendVars(b)
	if c.header != nil {
		b = c.header.appendVars(b, c.own)
	}
	b = append(b, "FDKIT_ACCEPTED="...)
	micros := c.Accepted.UnixMicro()
	b = strconv.AppendInt(b, micros/1e6, 10)
	b = append(b, '.')
	fraction := micros % 1e6
	for digit := int64(100000); digit > 0; digit /= 10 {
		b = append(b, byte('0'+fraction/digit%10))
	}
	return append(append(b, 0), c.settings...)
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
	return l.accept(c, &l.calls)
}

// accept accepts the next connection, between Enter and Exit of calls.
func (l *Listener) accept(c *Conn, calls *interrupt.Calls) error {
	for {
		err := l.acceptOne(c, calls)
		if err != unix.EAGAIN {
			return err
		}
		// Who gave us this socket has set O_NONBLOCK on it.
		if err := calls.Poll(l.fd, unix.POLLIN); err != nil {
			return err
		}
	}
}

// acceptOne is accept, which may return EAGAIN if the socket does not block.
func (l *Listener) acceptOne(c *Conn, calls *interrupt.Calls) error {
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
			if calls.Stopped() {
				return ErrStopped
			}
		case unix.EAGAIN:
			return errno
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
