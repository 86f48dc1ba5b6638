//go:build linux

package torture

import (
	"os"

	"golang.org/x/sys/unix"

	"fdkit/internal/scm"
)

// open passes a file.
func (t *trial) open(path string, flags int) {
	if t.err != nil {
		return
	}
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		t.lacks = path + ": " + err.Error()
		return
	}
	t.give(t.pass(fd, -1, nil).near, nil)
}

// credentials sends a byte with this process's own credentials.
func (t *trial) credentials(c *conn) {
	if t.err != nil || c.shut {
		return
	}
	t.messages, t.bytes = 1, 1
	own := scm.Credentials{PID: os.Getpid(), UID: os.Geteuid(), GID: os.Getegid()}
	if _, err := c.send.Try([]byte{0}, nil, &own, 0); err == unix.EPIPE || err == unix.ECONNRESET {
		c.gone = true
	} else if err != nil {
		t.refused = "sendmsg: " + err.Error()
	}
}

// listening passes a listening socket that one client has connected to. It has a name
// that the kernel chooses: autobind, unix(7).
func (t *trial) listening() {
	if t.err != nil {
		return
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	p := t.pass(fd, -1, os.NewSyscallError("socket", err))
	if t.err != nil {
		return
	}
	if err = unix.Bind(fd, &unix.SockaddrUnix{}); err == nil {
		err = unix.Listen(fd, 1)
	}
	var name unix.Sockaddr
	if err == nil {
		name, err = unix.Getsockname(fd)
	}
	if err == nil {
		p.far, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		p.socket = true
	}
	if err == nil {
		err = unix.Connect(p.far, name)
	}
	t.err = err
	t.send(t.connect(), []byte{0}, p.near)
	// Else who accepts one client after the other would wait for the next without end.
	t.taken()
	_ = unix.Shutdown(p.near, unix.SHUT_RDWR)
}

// reset passes one end of a TCP connection, and resets it at the other.
func (t *trial) reset() {
	if t.err != nil {
		return
	}
	near, far, err := tcpPair()
	if err != nil {
		t.lacks = "there is no TCP here: " + err.Error()
		return
	}
	p := t.pass(near, far, nil)
	t.send(t.connect(), []byte{0}, p.near)
	_ = unix.SetsockoptLinger(p.far, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}) // socket(7): RST
	p.closeFar()
}

func tcpPair() (near, far int, err error) {
	listener, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, -1, err
	}
	defer unix.Close(listener)
	if err := unix.Bind(listener, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return -1, -1, err
	}
	if err := unix.Listen(listener, 1); err != nil {
		return -1, -1, err
	}
	address, err := unix.Getsockname(listener)
	if err != nil {
		return -1, -1, err
	}
	if far, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, -1, err
	}
	if err = unix.Connect(far, address); err == nil {
		near, _, err = unix.Accept4(listener, unix.SOCK_CLOEXEC)
	}
	if err != nil {
		_ = unix.Close(far)
		return -1, -1, err
	}
	return near, far, nil
}

// cycle passes a socket in whose queue it is itself.
func (t *trial) cycle() {
	if t.err != nil {
		return
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	p := t.pass(pair[0], pair[1], os.NewSyscallError("socketpair", err))
	if t.err != nil {
		return
	}
	p.socket = true
	_ = unix.SetNonblock(p.far, true)
	inner := conn{fd: p.far}
	if _, err := scm.NewSender(p.far, &inner.calls).Try([]byte{0}, []int{p.near}, nil, 0); err != nil {
		t.err = os.NewSyscallError("sendmsg", err)
	}
	t.give(p.near, nil)
}
