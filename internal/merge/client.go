//go:build linux

package merge

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"fdkit/internal/scm"
)

// Client is a connection, pipe or file that is read.
type Client struct {
	Name          string
	Frames, Bytes int64 // whole frames that have come

	fd     int // -1: closed
	read   func(fd int, b []byte) (int, error)
	always bool // epoll(7) knows nothing of it: it can always be read
	stream stream
	ready  bool // in Merger.ready
	// stalled tells that it waits for others to have room: it is in crowd.stalled.
	stalled bool
}

// admit makes a client of the first descriptor.
func (m *Merger) admit(message *scm.Message) {
	fds := message.FDs
	if len(fds) == 0 {
		m.tell(Loss{Reason: "no-descriptor", Err: errors.New("a message came without a descriptor")})
		return
	}
	for _, fd := range fds[1:] {
		_ = unix.Close(fd)
	}
	c := &Client{Name: m.Came(fds[0], message.Payload), fd: fds[0]}
	if extra := len(fds) - 1; extra > 0 {
		m.tell(Loss{Client: c.Name, Reason: "extra", Err: fmt.Errorf("a message came with more descriptors than one client: closed %d", extra)})
	}
	err := c.open()
	if err == nil && !c.always {
		// With edges a client that has to wait costs nothing meanwhile.
		err = os.NewSyscallError("epoll_ctl", unix.EpollCtl(m.epoll, unix.EPOLL_CTL_ADD, c.fd,
			&unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(c.fd)}))
	}
	if err != nil {
		_ = unix.Close(c.fd)
		m.tell(Loss{Client: c.Name, Reason: "unreadable", Err: err})
		return
	}
	for len(m.clients) <= c.fd {
		m.clients = append(m.clients, nil)
	}
	m.clients[c.fd] = c
	m.Total.Clients++
	if m.n++; m.n == m.limit && !m.full {
		m.full = true
		m.Full(m.n)
	}
	if c.always {
		m.enqueue(c)
	}
}

// open finds out how the client can be read without waiting. O_NONBLOCK is of no use:
// others have the same open file description, and would find it set.
func (c *Client) open() error {
	flags, err := unix.FcntlInt(uintptr(c.fd), unix.F_GETFL, 0)
	if err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(c.fd, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	kind := st.Mode & unix.S_IFMT
	switch {
	case flags&unix.O_ACCMODE == unix.O_WRONLY || flags&unix.O_PATH != 0:
		return errors.New("it is not open for reading")
	case kind == unix.S_IFSOCK:
		typ, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_TYPE)
		if err != nil {
			return os.NewSyscallError("getsockopt", err)
		}
		listening, _ := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		if typ != unix.SOCK_STREAM || listening != 0 {
			return errors.New("it is a socket, but no stream")
		}
		c.read = receiveNow
	case kind == unix.S_IFREG:
		c.read, c.always = unix.Read, true
	case kind == unix.S_IFIFO:
		return c.openPipe()
	default:
		return errors.New("it is neither a stream socket nor a pipe nor a file")
	}
	return nil
}

// openPipe opens the pipe anew, which gives it an open file description of its own. What
// belongs to another user, as pipe(2) makes it, cannot be opened; it is read with
// RWF_NOWAIT then, which pipes have since Linux 6.4.
func (c *Client) openPipe() error {
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(c.fd), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		c.read = readNow
		return nil
	}
	_ = unix.Close(c.fd) // it may be open for writing too, and then the pipe would not end
	c.fd, c.read = fd, unix.Read
	return nil
}

// receiveNow is recv(2). It makes no garbage, as unix.Recvfrom does for the address.
func receiveNow(fd int, b []byte) (int, error) {
	n, _, errno := unix.Syscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}

func readNow(fd int, b []byte) (int, error) {
	return unix.Preadv2(fd, [][]byte{b}, -1, unix.RWF_NOWAIT)
}

// turn reads once from a client, and lets it have a further turn unless it has nothing.
func (m *Merger) turn(c *Client) error {
	size := m.room(c)
	if size == 0 {
		return nil
	}
	n, err := m.take(c, size)
	if n > 0 && c.fd >= 0 {
		m.enqueue(c)
	}
	return err
}

// take reads once from a client, and returns what read(2) does, or with errEnd that it
// was the frame of that. The client is closed at its end, and with an error.
func (m *Merger) take(c *Client, size int) (n int, err error) {
	for {
		if n, err = c.read(c.fd, m.in[:size]); err != unix.EINTR {
			break
		}
	}
	if err == unix.EAGAIN {
		return n, nil
	}
	if err != nil {
		m.drop(c, err)
		return n, nil
	}
	held, before := cap(c.stream.rest), len(m.out)
	var frames, lost int
	if n > 0 {
		m.out, frames, lost, err = c.stream.add(&m.Framing, m.out, m.in[:n])
	} else {
		m.out, frames, lost, err = c.stream.finish(&m.Framing, m.out)
	}
	c.Frames += int64(frames)
	c.Bytes += int64(len(m.out) - before)
	m.Total.Frames += int64(frames)
	m.Total.Bytes += int64(len(m.out) - before)
	m.account(c, cap(c.stream.rest)-held, frames > 0)
	if lost > 0 {
		m.lose(c, lost, err)
	}
	if err != nil || n == 0 {
		m.close(c)
	}
	if err != errEnd {
		err = nil
	}
	return n, err
}

// drop closes a client whose unfinished frame is lost.
func (m *Merger) drop(c *Client, reason error) {
	held := cap(c.stream.rest)
	if lost := c.stream.discard(); lost > 0 {
		m.lose(c, lost, reason)
	}
	m.account(c, -held, false)
	m.close(c)
}

func (m *Merger) close(c *Client) {
	// Others may have the open file description, and then epoll(7) would go on with it.
	if !c.always {
		_ = unix.EpollCtl(m.epoll, unix.EPOLL_CTL_DEL, c.fd, nil)
	}
	_ = unix.Close(c.fd)
	m.clients[c.fd] = nil
	c.fd = -1
	if m.n--; m.n == 0 {
		m.alone = time.Now()
	}
	m.account(c, 0, true)
	m.Left(c)
}
