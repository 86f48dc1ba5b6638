//go:build linux

package scm

import (
	"io"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ExactReceiver receives messages as they were sent, for one who passes them on: a
// packet whole, however large, also one of no bytes; from a stream the descriptors never
// together with bytes that were sent before them, whose reader may want no descriptors.
// It peeks, and so must be the only one who receives from the socket.
type ExactReceiver struct {
	*Receiver
	typ    int
	source unix.RawSockaddrUnix
}

// exactSize is more than a stream sends at once: unix_stream_sendmsg() makes pieces of at
// most 32 KiB and four pages.
const exactSize = 64 << 10

// NewExactReceiver returns an ExactReceiver for the socket fd, which stays the caller's.
// It sets SO_PASSCRED.
func NewExactReceiver(fd int) (*ExactReceiver, error) {
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return nil, os.NewSyscallError("getsockopt", err)
	}
	if err := PassCredentials(fd); err != nil {
		return nil, err
	}
	return &ExactReceiver{Receiver: NewReceiverSize(fd, nil, exactSize), typ: typ}, nil
}

// Receive stores the next message in m. It never waits, and returns false if there is
// none. The error is io.EOF at the end, and a *LostError if descriptors were lost.
func (r *ExactReceiver) Receive(m *Message) (bool, error) {
	for {
		came, err := r.receive(m)
		if err != unix.EINTR {
			return came, err
		}
	}
}

func (r *ExactReceiver) receive(m *Message) (bool, error) {
	size, errno := r.measure()
	var n int
	if errno == 0 {
		r.iov.SetLen(size)
		if r.typ == unix.SOCK_DGRAM {
			r.header.Name, r.header.Namelen = (*byte)(unsafe.Pointer(&r.source)), unix.SizeofSockaddrUnix
		}
		n, errno = r.recvmsg(unix.MSG_DONTWAIT)
	}
	switch errno {
	case 0:
	case unix.EAGAIN:
		return false, nil
	case unix.EINTR:
		return false, errno
	case unix.ECONNRESET:
		// The peer closed its end with something unread, unix(7). It is said once; what
		// the peer had sent before is still there.
		return false, unix.EINTR
	default:
		return false, os.NewSyscallError("recvmsg", errno)
	}
	err := r.store(m, n)
	// With SO_PASSCRED an empty packet has a sender, and the end has none.
	if err == nil && n == 0 && len(m.FDs) == 0 && (r.typ == unix.SOCK_STREAM || m.Sender == nil) {
		return false, io.EOF
	}
	return err == nil, err
}

// Source returns the address that the last datagram was sent from, as it stands in
// sun_path, unix(7): an abstract name begins with a NUL byte. It is "" if there is none.
func (r *ExactReceiver) Source() string {
	if r.header.Namelen <= nameOffset {
		return ""
	}
	name := unsafe.Slice((*byte)(unsafe.Pointer(&r.source)), r.header.Namelen)
	return string(name[nameOffset:])
}

const nameOffset = uint32(unsafe.Offsetof(unix.RawSockaddrUnix{}.Path))

// measure returns how many bytes are to be received next, for which it makes room.
func (r *ExactReceiver) measure() (int, unix.Errno) {
	if r.typ != unix.SOCK_STREAM {
		n, _, errno := r.peek(0, 0, unix.MSG_TRUNC)
		r.grow(n)
		return len(r.payload), errno
	}
	// unix_stream_read_generic() puts together what was sent one by one, up to the end of
	// the first piece with descriptors. Where that begins it tells by stopping, when
	// copying fails, before the piece that does not fit: so behind the room there is
	// memory that cannot be written.
	n, fds, errno := r.peek(len(r.payload), pageSize, 0)
	if errno == unix.EFAULT {
		return len(r.payload), 0 // one piece fills all
	}
	if errno != 0 || !fds || n < 2 {
		return max(n, 1), errno
	}
	switch before, _, errno := r.peek(n-1, pageSize, 0); errno {
	case 0:
		return before, 0
	case unix.EFAULT: // it is the first piece
		return n, 0
	default:
		return 0, errno
	}
}

// peek looks at what is next, with room for so many bytes and, behind it, that many that
// cannot be written. It tells whether descriptors are with it, without taking any.
func (r *ExactReceiver) peek(room, beyond int, flags int) (n int, fds bool, errno unix.Errno) {
	iov := [2]unix.Iovec{{Base: &r.payload[0]}, {Base: unwritable()}}
	iov[0].SetLen(room)
	iov[1].SetLen(beyond)
	// Room for the credentials, and none for descriptors: MSG_CTRUNC tells of them.
	var control [unix.SizeofCmsghdr + unix.SizeofUcred]byte
	h := unix.Msghdr{Iov: &iov[0], Control: &control[0]}
	h.SetIovlen(len(iov))
	h.SetControllen(len(control))
	got, _, errno := unix.Syscall(unix.SYS_RECVMSG, uintptr(r.fd), uintptr(unsafe.Pointer(&h)),
		uintptr(flags|unix.MSG_PEEK|unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC))
	return int(got), h.Flags&unix.MSG_CTRUNC != 0, errno
}

// grow makes room for n bytes.
func (r *ExactReceiver) grow(n int) {
	if n > len(r.payload) {
		r.payload = make([]byte, n)
		r.iov.Base = &r.payload[0]
	}
}

const pageSize = 4096 // or more, but this is enough

// unwritable returns memory that cannot be written.
var unwritable = sync.OnceValue(func() *byte {
	page, err := unix.Mmap(-1, 0, pageSize, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil // the first page, which never can be either
	}
	return unsafe.SliceData(page)
})
