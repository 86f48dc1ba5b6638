//go:build linux

// Package sockdiag asks the kernel for sockets by address or inode, sock_diag(7): what
// ss(8) does.
package sockdiag

import (
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrNoSocket is the error of an inode that is no socket's in the network namespace.
var ErrNoSocket = errors.New("there is no such socket")

// Conn is a connection to the kernel, which answers for one network namespace.
type Conn struct{ fd int }

// Open connects for the network namespace of this process.
func Open() (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	return &Conn{fd}, nil
}

// OpenOf connects for the network namespace of the socket fd. If that is another one
// than this process's, it takes CAP_NET_ADMIN there and CAP_SYS_ADMIN here.
func OpenOf(fd int) (*Conn, error) {
	namespace, err := unix.IoctlRetInt(fd, unix.SIOCGSKNS)
	if err != nil {
		return nil, os.NewSyscallError("ioctl", err)
	}
	defer unix.Close(namespace)
	if c, err := openHere(namespace); c != nil || err != nil {
		return c, err
	}
	var c *Conn
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The thread is not given back: it ends with the goroutine, and with it that
		// one of its threads is somewhere else.
		runtime.LockOSThread()
		if err = unix.Setns(namespace, unix.CLONE_NEWNET); err != nil {
			err = os.NewSyscallError("setns", err)
			return
		}
		c, err = Open()
	}()
	<-done
	return c, err
}

// openHere connects if the namespace is that of this thread. That of the process,
// /proc/self, is its first thread's, which may have gone somewhere else.
func openHere(namespace int) (*Conn, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if sameFile(namespace, "/proc/thread-self/ns/net") {
		return Open()
	}
	return nil, nil
}

func sameFile(fd int, path string) bool {
	var a, b unix.Stat_t
	return unix.Fstat(fd, &a) == nil && unix.Stat(path, &b) == nil && a.Dev == b.Dev && a.Ino == b.Ino
}

// Close closes the connection.
func (c *Conn) Close() { _ = unix.Close(c.fd) }

// ask sends a request of struct type T, and calls each with all messages that are the
// answer: of a dump many, otherwise one.
func ask[T any](c *Conn, request T, dump bool, each func(data []byte)) error {
	message := struct {
		header unix.NlMsghdr
		body   T
	}{body: request}
	b := unsafe.Slice((*byte)(unsafe.Pointer(&message)), unsafe.Sizeof(message))
	message.header = unix.NlMsghdr{Len: uint32(len(b)), Type: unix.SOCK_DIAG_BY_FAMILY, Flags: unix.NLM_F_REQUEST}
	if dump {
		message.header.Flags |= unix.NLM_F_DUMP
	}
	if err := unix.Sendto(c.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	buf := make([]byte, 1<<16) // the kernel fills 32 KiB at most, netlink_dump() in net/netlink/af_netlink.c
	for {
		n, _, err := unix.Recvfrom(c.fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return os.NewSyscallError("recvfrom", err)
		}
		messages, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return os.NewSyscallError("recvfrom", err)
		}
		for _, m := range messages {
			switch m.Header.Type {
			case unix.NLMSG_DONE:
				return nil
			case unix.NLMSG_ERROR:
				if errno := unix.Errno(-int32(binary.NativeEndian.Uint32(m.Data))); errno != 0 {
					return os.NewSyscallError("sock_diag", errno)
				}
				return nil
			case unix.SOCK_DIAG_BY_FAMILY:
				each(m.Data)
				if !dump {
					return nil
				}
			}
		}
	}
}

// attributes calls each with what follows a message's struct, rtnetlink(7).
func attributes(b []byte, each func(kind uint16, value []byte)) {
	for len(b) >= unix.SizeofRtAttr {
		size, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
		if size < unix.SizeofRtAttr || size > len(b) {
			return
		}
		each(kind, b[unix.SizeofRtAttr:size])
		b = b[min((size+3)&^3, len(b)):] // NLA_ALIGN
	}
}
