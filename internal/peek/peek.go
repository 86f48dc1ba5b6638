//go:build linux

// Package peek looks at what is in flight in the receive queue of a Unix socket, and
// leaves it there.
package peek

import (
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdinfo"
	"fdkit/internal/scm"
)

// Message is one message in flight. Of a stream it is what one recvmsg(2) would return:
// bytes up to the end of the write that has descriptors.
type Message struct {
	Offset  int    // of a stream, bytes in the queue before it
	Size    int    // bytes
	Payload []byte // the first of them, at most Kept
	// FDs are copies of the descriptors. They are closed when the function that Look
	// calls returns.
	FDs []int
	// Short tells that not all descriptors could be copied: this process has too many
	// files open, or a security module refuses the next one.
	Short  bool
	Sender *scm.Credentials // if the socket has SO_PASSCRED, else nil
}

func (m *Message) close() {
	(&scm.Message{FDs: m.FDs}).Close()
	m.FDs = nil
}

// Kept is how many bytes of a payload are kept: all that fdkit itself sends.
const Kept = 4096

// Why a queue cannot be looked at without harm to the program that has the socket.
var (
	ErrPeeked = errors.New("its program, or another one, peeks itself (SO_PEEK_OFF), and a look would move where")
	ErrError  = errors.New("an error waits for its program, and a look would take that away")
)

// Look calls see for each message in the receive queue of the Unix socket fd, in order.
// The socket may be shared with other processes, and these may receive meanwhile: what
// they have taken by the end of the look is not shown. Unseen is how many descriptors
// are in the queue besides those in the messages; it is -1 if that cannot be known, as
// the queue has changed.
//
// With SO_PEEK_OFF, socket(7), recvmsg(2) sees one message after the other. The offset
// belongs to the socket, and is there for as short a time as can be: see is called when
// it has been taken away again.
func Look(fd int, see func(*Message)) (unseen int, err error) {
	l, err := newLook(fd)
	if err != nil {
		return 0, err
	}
	before := l.inFlight()
	for more := true; more; {
		var some []Message
		some, more, err = l.some()
		for i := range some {
			unseen -= len(some[i].FDs)
			if err == nil {
				see(&some[i])
			}
			some[i].close()
		}
		if err != nil {
			return 0, err
		}
		if more && l.inFlight() != before {
			l.changed = true // between two looks nobody adjusts the offset
		}
	}
	if after := l.inFlight(); l.changed || after != before {
		return -1, nil
	}
	return max(unseen+before, 0), nil
}

// look is a look at one socket.
type look struct {
	fd       int
	stream   bool
	receiver *scm.Receiver
	bytes    int  // that were unread when it began
	seen     int  // bytes, and so the offset of what follows
	changed  bool // others have received meanwhile
}

// most is how many messages are looked at in one turn, for when they come as fast.
const most = 10_000

// roomy is a buffer for nearly every datagram.
const roomy = 64 << 10

func newLook(fd int) (*look, error) {
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return nil, os.NewSyscallError("getsockopt", err)
	}
	unread, err := unix.IoctlGetInt(fd, unix.SIOCINQ)
	if err != nil {
		return nil, os.NewSyscallError("ioctl", err)
	}
	l := &look{fd: fd, stream: typ == unix.SOCK_STREAM, bytes: unread}
	// recvmsg clears the error that it returns, and of datagrams it returns it first:
	// __skb_try_recv_datagram() in net/core/datagram.c.
	fds := []unix.PollFd{{Fd: int32(fd)}}
	if _, err := unix.Poll(fds, 0); err == nil && fds[0].Revents&unix.POLLERR != 0 && !l.stream {
		return nil, ErrError
	}
	// A stream's descriptors come again with each part of the write that has them: so
	// there are no parts.
	l.receiver = scm.NewReceiverSize(fd, nil, max(unread, roomy))
	return l, nil
}

// inFlight returns how many descriptors are in the queue.
func (l *look) inFlight() int {
	d, err := fdinfo.Describe(l.fd)
	if err != nil || d.Socket == nil || d.Socket.Descriptors == nil {
		return 0
	}
	return int(*d.Socket.Descriptors)
}

// spare is how many descriptors are kept free for describing others.
const spare = 8

// some looks at the messages from where the look has come to, all of them unless this
// process runs out of descriptors: then there are more.
func (l *look) some() (found []Message, more bool, err error) {
	var kept scm.Message
	defer kept.Close()
	for range spare {
		fd, err := unix.FcntlInt(uintptr(l.fd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return nil, false, os.NewSyscallError("fcntl", err)
		}
		kept.FDs = append(kept.FDs, fd)
	}
	defer alone()()
	if err := l.begin(); err != nil {
		return nil, false, err
	}
	found, more, err = l.peek()
	offset, offsetErr := l.offset()
	if restoreErr := l.setOffset(-1); err == nil {
		err = errors.Join(offsetErr, restoreErr)
	}
	if err != nil || offset == l.seen {
		return found, more, err
	}
	l.changed = true
	if offset < l.seen {
		found = without(found, l.seen-offset)
	}
	l.seen = offset
	return found, more, nil
}

// without returns the messages without the first bytes in the queue, which others have
// received since begin. The kernel has subtracted so many from the offset,
// sk_peek_offset_bwd() in include/net/sock.h.
func without(found []Message, taken int) []Message {
	for len(found) > 0 && found[0].Offset+found[0].Size <= taken {
		found[0].close()
		found = found[1:]
	}
	for i := range found {
		m := &found[i]
		gone := max(taken-m.Offset, 0) // of a stream, whose reader has stopped in the middle
		m.Offset -= taken - gone
		m.Size -= gone
		m.Payload = m.Payload[min(gone, len(m.Payload)):]
	}
	return found
}

// alone waits until no other process looks, and keeps others from it until the function
// is called that it returns. Two looks at one socket would move each other's offset. The
// lock is on /proc, which all have in common that see the same processes; whoever holds it
// for no good does not keep us from going on.
func alone() (release func()) {
	fd, err := unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return func() {}
	}
	for range 100 {
		if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != unix.EWOULDBLOCK {
			break
		}
		time.Sleep(time.Millisecond)
	}
	return func() { _ = unix.Close(fd) }
}

// begin sets the offset, unless there is one: that is another's. If it is another look's,
// that is over in no time.
func (l *look) begin() error {
	for turn := 0; ; turn++ {
		switch offset, err := l.offset(); {
		case err != nil:
			return err
		case offset < 0:
			return l.setOffset(l.seen)
		case turn == 20:
			return ErrPeeked
		}
		time.Sleep(time.Millisecond)
	}
}

func (l *look) offset() (int, error) {
	n, err := unix.GetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF)
	return n, os.NewSyscallError("getsockopt", err)
}

func (l *look) setOffset(offset int) error {
	for {
		// Before Linux 6.10 it waited, and a signal ended that: unix_set_peek_off() in
		// net/unix/af_unix.c.
		err := unix.SetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF, offset)
		if err != unix.EINTR {
			return os.NewSyscallError("setsockopt", err)
		}
	}
}

// peek looks at one message after the other, and has them all at the end.
func (l *look) peek() (found []Message, more bool, err error) {
	held := 0
	inside := false // of a datagram that the buffer was too small for
	for {
		offset, err := l.offset()
		unread, unreadErr := unix.IoctlGetInt(l.fd, unix.SIOCINQ)
		if err = errors.Join(err, os.NewSyscallError("ioctl", unreadErr)); err != nil {
			return found, false, err
		}
		if l.stream && (offset >= unread || l.seen >= l.bytes) || len(found) == most {
			return found, false, nil // of a stream not to the end, where recvmsg looks for errors
		}
		var m scm.Message
		came, err := l.receiver.Peek(&m)
		_, short := errors.AsType[*scm.LostError](err)
		switch {
		case short && held > 0 && !inside:
			m.Close()
			return found, true, l.setOffset(offset) // again when those that are held are closed
		case short:
		case err == io.EOF && !l.stream && offset < unread:
			// A message of no bytes before others. The next look passes over it, as it
			// has been peeked at: __skb_try_recv_from_queue() in net/core/datagram.c.
		case err == io.EOF:
			return found, false, nil
		case err != nil || !came:
			return found, false, err
		}
		if inside {
			m.Close() // copies of the same
			found[len(found)-1].Size += len(m.Payload)
		} else {
			found = append(found, message(&m, l.seen, short))
		}
		held += len(m.FDs)
		l.seen += len(m.Payload)
		inside = m.Cut && !l.stream
	}
}

// message returns a Message with the descriptors of m.
func message(m *scm.Message, offset int, short bool) Message {
	seen := Message{Offset: offset, Size: len(m.Payload), Short: short}
	seen.Payload = append(seen.Payload, m.Payload[:min(len(m.Payload), Kept)]...)
	seen.FDs = append(seen.FDs, m.FDs...)
	if m.Sender != nil {
		sender := *m.Sender
		seen.Sender = &sender
	}
	return seen
}
