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
	control [(16+4*MaxFDs+7)/8 + (16+unix.SizeofUcred+7)/8]uint64
	to      unix.RawSockaddrUnix
	delay   atomic.Uint32 // the errno that Send tries again for, 0: none
}

// NewSender returns a Sender for the socket fd, which stays the caller's. Its
// methods end with interrupt.ErrStopped when calls are stopped, which may be nil.
func NewSender(fd int, calls *interrupt.Calls) *Sender {
	s := &Sender{fd: fd, calls: calls}
	s.header.Iov = &s.iov
	s.header.SetIovlen(1)
	s.header.Control = (*byte)(unsafe.Pointer(&s.control[0]))
	return s
}

// Send sends one message, waiting while the queue is full. The descriptors stay
// the caller's: the queue holds copies of its own. It returns ErrGone when no
// receiver is left.
func (s *Sender) Send(payload []byte, fds ...int) error {
	if err := check(payload, fds); err != nil {
		return err
	}
	return s.Transmit(payload, fds, nil)
}

// check checks what a queue of fdkit takes.
func check(payload []byte, fds []int) error {
	switch {
	case len(payload) == 0 || len(payload) > MaxPayload:
		// Zero bytes would read as the end of the stream.
		return fmt.Errorf("a payload has 1 to %d bytes, not %d", MaxPayload, len(payload))
	case len(fds) > MaxFDs:
		return fmt.Errorf("a message carries at most %d descriptors, not %d", MaxFDs, len(fds))
	}
	return nil
}

// Transmit is Send of any payload, also of no bytes, which a stream does not send, or of
// more than a queue of fdkit takes. The kernel checks the credentials, unix(7): who has
// not CAP_SYS_ADMIN may say its own PID only, and so on (EPERM). Nil are the process's
// own.
//
// What a stream takes of a payload at once depends on its buffer. The descriptors go
// with the first part.
func (s *Sender) Transmit(payload []byte, fds []int, from *Credentials) error {
	if len(fds) > MaxFDs {
		return fmt.Errorf("a message carries at most %d descriptors, not %d", MaxFDs, len(fds))
	}
	if err := s.calls.Enter(); err != nil {
		return err
	}
	defer s.calls.Exit()
	s.load(payload, fds, from)
	defer func() {
		s.iov.Base = nil
		if s.delay.Load() != 0 {
			s.delay.Store(0)
		}
	}()
	for pause := time.Millisecond; ; {
		n, errno := s.sendmsg(0)
		switch errno {
		case 0:
			if payload = payload[n:]; len(payload) == 0 {
				return nil
			}
			s.load(payload, nil, from)
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
		default:
			return explain(errno)
		}
	}
}

// Try makes one sendmsg(2) with these flags and never waits. The error is an errno:
// EAGAIN where the socket is full. It returns how many bytes the socket has taken, on a
// stream perhaps not all; the descriptors go with the first.
func (s *Sender) Try(payload []byte, fds []int, from *Credentials, flags int) (int, error) {
	if len(fds) > MaxFDs {
		return 0, unix.EINVAL // as the kernel has it, which is not to read past the buffer
	}
	s.load(payload, fds, from)
	defer func() { s.iov.Base = nil }()
	for {
		switch n, errno := s.sendmsg(uintptr(flags) | unix.MSG_DONTWAIT); errno {
		case 0:
			return n, nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

// TransmitNow is Transmit that never waits. It makes one call, and returns how many bytes
// of the payload were taken; the descriptors went with the first. Whatever may heal with
// time is an error too: EAGAIN, ETOOMANYREFS, ENOBUFS, ENOMEM.
func (s *Sender) TransmitNow(payload []byte, fds []int, from *Credentials) (n int, err error) {
	n, err = s.Try(payload, fds, from, 0)
	if err != nil {
		return 0, explain(err.(unix.Errno))
	}
	return n, nil
}

// SendNow is Send that never waits. Errors that may heal with time are those of
// TransmitNow.
func (s *Sender) SendNow(payload []byte, fds ...int) error {
	if err := check(payload, fds); err != nil {
		return err
	}
	n, err := s.TransmitNow(payload, fds, nil)
	if err == nil && n < len(payload) {
		// A stream with a buffer that is smaller than a message, SO_SNDBUF in
		// socket(7). The descriptors are with the first part; the rest has to follow.
		return s.Transmit(payload[n:], nil, nil)
	}
	return err
}

// To makes datagrams go to that address, as ExactReceiver.Source has it.
func (s *Sender) To(address string) {
	s.to.Family = unix.AF_UNIX
	n := copy(unsafe.Slice((*byte)(unsafe.Pointer(&s.to.Path)), len(s.to.Path)), address)
	s.header.Name = (*byte)(unsafe.Pointer(&s.to))
	s.header.Namelen = nameOffset + uint32(n)
}

// sendmsg sends what load has loaded. A packet that is too large for the socket's buffer
// makes that larger.
func (s *Sender) sendmsg(flags uintptr) (int, unix.Errno) {
	for {
		n, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(s.fd),
			uintptr(unsafe.Pointer(&s.header)), flags|unix.MSG_NOSIGNAL)
		if errno != unix.EMSGSIZE || !s.enlarge() {
			return int(n), errno
		}
	}
}

// enlarge tells whether it could make the buffer large enough, socket(7). The limit
// wmem_max does not hold with CAP_NET_ADMIN.
func (s *Sender) enlarge() bool {
	need := int(s.iov.Len) + 32 // as unix_dgram_sendmsg() in net/unix/af_unix.c has it
	large := func() bool {
		now, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
		return err == nil && now >= need
	}
	if large() {
		return false // that is not the reason
	}
	for _, option := range []int{unix.SO_SNDBUFFORCE, unix.SO_SNDBUF} {
		_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, option, need)
		if large() {
			return true
		}
	}
	return false
}

func explain(errno unix.Errno) error {
	switch errno {
	case unix.EPIPE, unix.ECONNRESET, unix.ECONNREFUSED, unix.ENOTCONN:
		return ErrGone
	}
	return os.NewSyscallError("sendmsg", errno)
}

func (s *Sender) load(payload []byte, fds []int, from *Credentials) {
	s.iov.Base = unsafe.SliceData(payload)
	s.iov.SetLen(len(payload))
	size := 0
	if len(fds) > 0 {
		data := s.attach(&size, unix.SCM_RIGHTS, 4*len(fds))
		for i, fd := range fds {
			*(*int32)(unsafe.Add(data, 4*i)) = int32(fd)
		}
	}
	if from != nil {
		data := s.attach(&size, unix.SCM_CREDENTIALS, unix.SizeofUcred)
		*(*unix.Ucred)(data) = unix.Ucred{Pid: int32(from.PID), Uid: uint32(from.UID), Gid: uint32(from.GID)}
	}
	s.header.SetControllen(size)
}

// attach makes room for a control message behind the first *size bytes, and returns
// where its data is to stand.
func (s *Sender) attach(size *int, typ int32, length int) unsafe.Pointer {
	h := (*unix.Cmsghdr)(unsafe.Add(unsafe.Pointer(&s.control[0]), *size))
	h.Level, h.Type = unix.SOL_SOCKET, typ
	h.SetLen(unix.CmsgLen(length))
	*size += unix.CmsgSpace(length)
	return unsafe.Add(unsafe.Pointer(h), unix.CmsgLen(0))
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
