//go:build linux

package scm

import (
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"fdkit/internal/interrupt"
)

// Sender sends messages to a Unix socket. It is for one goroutine at a time;
// any number of Senders may share a socket.
type Sender struct {
	fd      int
	calls   *interrupt.Calls
	header  unix.Msghdr
	iov     unix.Iovec
	control [(16 + 4*MaxFDs + 7) / 8]uint64
	delay   atomic.Uint32 // the errno that Send tries again for, 0: none
}

// NewSender returns a Sender for the socket fd, which stays the caller's. Its
// methods end with interrupt.ErrStopped when calls are stopped.
func NewSender(fd int, calls *interrupt.Calls) *Sender {
	s := &Sender{fd: fd, calls: calls}
	s.header.Iov = &s.iov
	s.header.SetIovlen(1)
	s.header.Control = (*byte)(unsafe.Pointer(&s.control[0]))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&s.control[0]))
	h.Level, h.Type = unix.SOL_SOCKET, unix.SCM_RIGHTS
	return s
}

// Send sends one message, waiting while the queue is full. The descriptors stay
// the caller's: the queue holds copies of its own. It returns ErrGone when no
// receiver is left.
func (s *Sender) Send(payload []byte, fds ...int) error {
	if len(payload) == 0 || len(payload) > MaxPayload {
		// Zero bytes would read as the end of the stream.
		return fmt.Errorf("a payload has 1 to %d bytes, not %d", MaxPayload, len(payload))
	}
	if len(fds) > MaxFDs {
		return fmt.Errorf("a message carries at most %d descriptors, not %d", MaxFDs, len(fds))
	}
	if err := s.calls.Enter(); err != nil {
		return err
	}
	defer s.calls.Exit()
	s.load(payload, fds)
	defer func() {
		s.iov.Base = nil
		if s.delay.Load() != 0 {
			s.delay.Store(0)
		}
	}()
	for pause := time.Millisecond; ; {
		_, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(s.fd),
			uintptr(unsafe.Pointer(&s.header)), unix.MSG_NOSIGNAL)
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
			if s.calls.Stopped() {
				return interrupt.ErrStopped
			}
		case unix.EAGAIN:
			if err := s.calls.Poll(s.fd, unix.POLLOUT); err != nil {
				return err
			}
		case unix.ETOOMANYREFS, unix.ENOBUFS, unix.ENOMEM:
			// More descriptors of this user are in flight than its
			// RLIMIT_NOFILE, unix(7), or the kernel is short of memory: POLLOUT
			// stays true, so only time can be waited for.
			if s.calls.Stopped() {
				return interrupt.ErrStopped
			}
			s.delay.Store(uint32(errno))
			time.Sleep(pause)
			pause = min(2*pause, 50*time.Millisecond)
		case unix.EPIPE, unix.ECONNRESET, unix.ECONNREFUSED, unix.ENOTCONN:
			return ErrGone
		default:
			return os.NewSyscallError("sendmsg", errno)
		}
	}
}

func (s *Sender) load(payload []byte, fds []int) {
	s.iov.Base = &payload[0]
	s.iov.SetLen(len(payload))
	if len(fds) == 0 {
		s.header.SetControllen(0)
		return
	}
	(*unix.Cmsghdr)(unsafe.Pointer(&s.control[0])).SetLen(unix.CmsgLen(4 * len(fds)))
	s.header.SetControllen(unix.CmsgSpace(4 * len(fds)))
	s.header.Control = (*byte)(unsafe.Pointer(&s.control[0]))
	data := unsafe.Slice((*int32)(unsafe.Add(unsafe.Pointer(&s.control[0]), unix.CmsgLen(0))), len(fds))
	for i, fd := range fds {
		data[i] = int32(fd)
	}
}

// FD returns the socket.
func (s *Sender) FD() int { return s.fd }

// Delay returns the error for which a Send that is under way in another goroutine
// tries again and again, or nil if it waits for nothing but room in the queue.
func (s *Sender) Delay() error {
	if errno := unix.Errno(s.delay.Load()); errno != 0 {
		return os.NewSyscallError("sendmsg", errno)
	}
	return nil
}
