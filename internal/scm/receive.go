//go:build linux

package scm

import (
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"fdkit/internal/interrupt"
)

const (
	scmPIDFD = 4 // SCM_PIDFD, linux/socket.h since 6.5; x/sys has no name for it

	// Room for MaxFDs descriptors, and for what a foreign process may have
	// asked for on a shared socket: credentials, a pidfd, a security label.
	controlSize = (16 + 4*MaxFDs + 7) + (16 + unix.SizeofUcred) + (16 + 8) + (16 + 256)
)

// Receiver receives messages from a Unix socket. It is for one goroutine at a
// time; any number of Receivers may share a socket.
type Receiver struct {
	fd      int
	calls   *interrupt.Calls
	header  unix.Msghdr
	iov     unix.Iovec
	payload []byte
	control [(controlSize + 7) / 8]uint64 // aligned as struct cmsghdr wants it
	room    int                           // bytes of control that are used
	fds     [MaxFDs]int
	sender  Credentials
}

// NewReceiver returns a Receiver for the socket fd, which stays the caller's.
// Receive ends with interrupt.ErrStopped when calls are stopped, which may be nil.
func NewReceiver(fd int, calls *interrupt.Calls) *Receiver {
	return NewReceiverSize(fd, calls, MaxPayload)
}

// NewReceiverSize is NewReceiver with room for payloads of size bytes.
func NewReceiverSize(fd int, calls *interrupt.Calls, size int) *Receiver {
	r := &Receiver{fd: fd, calls: calls, payload: make([]byte, size)}
	r.iov.Base = &r.payload[0]
	r.iov.SetLen(len(r.payload))
	r.header.Iov = &r.iov
	r.header.SetIovlen(1)
	r.header.Control = (*byte)(unsafe.Pointer(&r.control[0]))
	r.room = len(r.control) * 8
	return r
}

// Narrow leaves room for n descriptors only, and nothing else. With more of them a
// message comes as a *LostError.
func (r *Receiver) Narrow(n int) { r.room = unix.CmsgLen(4 * min(n, MaxFDs)) }

// Receive waits for the next message and stores it in m.
//
// It sleeps in recvmsg(2) itself: of several processes that sleep there on one
// SOCK_SEQPACKET queue each message wakes exactly one, the one that has waited
// longest, where poll(2) would wake them all. It returns io.EOF when no sender
// is left and the queue is empty, and a *LostError if descriptors were lost.
func (r *Receiver) Receive(m *Message) error {
	if err := r.calls.Enter(); err != nil {
		return err
	}
	defer r.calls.Exit()
	for {
		n, errno := r.recvmsg(0)
		switch errno {
		case 0:
			done, err := r.take(m, n)
			if done {
				return err
			}
		case unix.EINTR:
			if r.calls.Stopped() {
				return interrupt.ErrStopped
			}
		case unix.EAGAIN:
			// Someone who shares this open file description has set O_NONBLOCK.
			if err := r.calls.Poll(r.fd, unix.POLLIN); err != nil {
				return err
			}
		case unix.ECONNRESET:
			// A sender closed its end with something from us unread, unix(7). It
			// is said once; what it had sent before is still in the queue.
		default:
			return os.NewSyscallError("recvmsg", errno)
		}
	}
}

// ReceiveNow is Receive for a queue that may be empty: it never waits, and
// returns false if there is no message.
func (r *Receiver) ReceiveNow(m *Message) (bool, error) {
	for {
		n, errno := r.recvmsg(unix.MSG_DONTWAIT)
		switch errno {
		case 0:
			if done, err := r.take(m, n); done {
				return err == nil, err
			}
		case unix.EINTR:
		case unix.EAGAIN:
			return false, nil
		default:
			return false, os.NewSyscallError("recvmsg", errno)
		}
	}
}

// Peek is ReceiveNow that leaves the message in the queue. The descriptors in m are
// further copies, and the caller's. With SO_PEEK_OFF set, socket(7), each Peek sees
// what follows.
//
// A message of no bytes is one, too; where no sender is left it cannot be told from the
// end, and the error is io.EOF. A *LostError says that not all descriptors could be
// copied: those that could are in m.
func (r *Receiver) Peek(m *Message) (bool, error) {
	for {
		n, errno := r.recvmsg(unix.MSG_DONTWAIT | unix.MSG_PEEK)
		switch errno {
		case 0:
			lost := r.load(m, n)
			if !lost && n == 0 && len(m.FDs) == 0 && r.ended() {
				return false, io.EOF
			}
			if lost {
				return true, &LostError{Came: len(m.FDs), Full: r.full()}
			}
			return true, nil
		case unix.EINTR:
		case unix.EAGAIN:
			return false, nil
		default:
			return false, os.NewSyscallError("recvmsg", errno)
		}
	}
}

func (r *Receiver) recvmsg(flags uintptr) (int, unix.Errno) {
	r.header.SetControllen(r.room)
	r.header.Flags = 0
	n, _, errno := unix.Syscall(unix.SYS_RECVMSG, uintptr(r.fd),
		uintptr(unsafe.Pointer(&r.header)), flags|unix.MSG_CMSG_CLOEXEC)
	return int(n), errno
}

// take turns what recvmsg has stored into m. It returns false for an empty
// message without credentials, which is to be passed over.
func (r *Receiver) take(m *Message, n int) (bool, error) {
	if err := r.store(m, n); err != nil {
		return true, err
	}
	// A message of zero bytes has its sender's credentials, if they are asked for. The
	// end has none, or of a stream those of process 0.
	if n > 0 || len(m.FDs) > 0 || m.Sender != nil && m.Sender.PID != 0 {
		return true, nil
	}
	// Nothing came: the end, or a message of zero bytes, which only the state
	// of the socket tells apart. With no sender left it can still be such a
	// message, before others.
	if !r.ended() {
		return false, nil
	}
	// A stream has no such messages; what may be unread there is a byte out of band,
	// MSG_OOB in unix(7), that this does not receive.
	typ, err := unix.GetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if unread, inqErr := unix.IoctlGetInt(r.fd, unix.SIOCINQ); err == nil && typ != unix.SOCK_STREAM && inqErr == nil && unread > 0 {
		return false, nil
	}
	return true, io.EOF
}

// store is load that closes what came if descriptors were lost.
func (r *Receiver) store(m *Message, n int) error {
	if !r.load(m, n) {
		return nil
	}
	// Before what came is closed, which makes room.
	lost := &LostError{Came: len(m.FDs), Full: r.full()}
	m.Close()
	return lost
}

// full tells whether this process can open no further descriptor.
func (r *Receiver) full() bool {
	fd, err := unix.FcntlInt(uintptr(r.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return true
	}
	_ = unix.Close(fd)
	return false
}

// load stores in m what recvmsg has brought, and tells whether descriptors were lost.
func (r *Receiver) load(m *Message, n int) (lost bool) {
	m.Payload, m.FDs, m.Names, m.Sender = r.payload[:n], r.fds[:0], nil, nil
	m.Cut = r.header.Flags&unix.MSG_TRUNC != 0
	r.ancillary(m)
	return r.header.Flags&unix.MSG_CTRUNC != 0
}

// ended tells whether nothing more will be sent.
func (r *Receiver) ended() bool {
	fds := []unix.PollFd{{Fd: int32(r.fd), Events: unix.POLLRDHUP}}
	_, err := unix.Poll(fds, 0)
	return err != nil || fds[0].Revents != 0
}

// ancillary stores in m what the control messages have.
func (r *Receiver) ancillary(m *Message) {
	rest := unsafe.Slice((*byte)(unsafe.Pointer(&r.control[0])), r.header.Controllen)
	for len(rest) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&rest[0]))
		size := int(h.Len)
		if size < unix.SizeofCmsghdr || size > len(rest) {
			return
		}
		data := rest[unix.CmsgLen(0):size]
		switch {
		case h.Level != unix.SOL_SOCKET:
		case h.Type == unix.SCM_RIGHTS:
			for ; len(data) >= 4; data = data[4:] {
				m.FDs = append(m.FDs, int(*(*int32)(unsafe.Pointer(&data[0]))))
			}
		case h.Type == unix.SCM_CREDENTIALS && len(data) >= unix.SizeofUcred:
			cred := (*unix.Ucred)(unsafe.Pointer(&data[0]))
			r.sender = Credentials{PID: int(cred.Pid), UID: int(cred.Uid), GID: int(cred.Gid)}
			m.Sender = &r.sender
		case h.Type == scmPIDFD && len(data) >= 4:
			_ = unix.Close(int(*(*int32)(unsafe.Pointer(&data[0])))) // asked for by someone else
		}
		rest = rest[min(unix.CmsgSpace(size-unix.CmsgLen(0)), len(rest)):]
	}
}
