//go:build linux

package listen

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// What a PROXY header looks like from outside; section numbers are those of
// https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt.
const (
	proxyV1 = "PROXY "                 // section 2.1
	proxyV2 = "\r\n\r\n\x00\r\nQUIT\n" // section 2.2
	maxV1   = 107                      // bytes, with CR LF; section 2.1
	fixedV2 = len(proxyV2) + 4         // bytes that each header has, the last two of them its further length
	maxV2   = 4096                     // further bytes; the parser takes no more
	usual   = 512                      // bytes that there is room for at first
)

// frameProxyHeader finds the end of the header with which b begins: size bytes of b
// belong to it, and whole tells whether they are all of it.
func frameProxyHeader(b []byte) (size int, whole bool, err error) {
	begins := func(signature string) bool {
		n := min(len(b), len(signature))
		return string(b[:n]) == signature[:n]
	}
	switch {
	case begins(proxyV1):
		line := b[:min(len(b), maxV1)]
		end := bytes.IndexByte(line, '\n') + 1
		switch {
		case end == 0 && len(line) == maxV1:
			return 0, false, fmt.Errorf("%w: no line of at most %d bytes", ErrProxyMalformed, maxV1)
		case end == 0:
			return len(line), false, nil
		case !bytes.HasSuffix(line[:end], []byte("\r\n")):
			return 0, false, fmt.Errorf("%w: the line does not end with CR LF", ErrProxyMalformed)
		}
		return end, true, nil
	case begins(proxyV2):
		if len(b) < fixedV2 {
			return len(b), false, nil
		}
		length := int(binary.BigEndian.Uint16(b[fixedV2-2:]))
		if length > maxV2 {
			return 0, false, fmt.Errorf("%w: it has %d bytes, and at most %d are taken", ErrProxyMalformed, length, maxV2)
		}
		size = min(len(b), fixedV2+length)
		return size, size == fixedV2+length, nil
	}
	return 0, false, fmt.Errorf("%w: it begins with %q", ErrProxyMalformed, b[:min(len(b), len(proxyV2))])
}

// receiveProxyHeader reads just the header from fd.
//
// Go's poller does the waiting, so that a thousand headers that do not come hold no
// thread each. It is given a copy of the descriptor, as an os.File cannot be made to
// let go of one without closing it.
func receiveProxyHeader(ctx context.Context, fd int, limit time.Duration) ([]byte, error) {
	file, err := pollable(fd)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if err := file.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return nil, err // ErrNoDeadline: epoll(7) has no room for it
	}
	defer context.AfterFunc(ctx, func() { _ = file.SetReadDeadline(time.Unix(1, 0)) })()
	conn, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	r := headerReader{buf: make([]byte, 0, usual)}
	err = conn.Read(func(fd uintptr) bool { return r.read(int(fd)) })
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil:
		return nil, ErrStopped
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, fmt.Errorf("%w within %v", ErrProxyTimeout, limit)
	case err != nil:
		return nil, err
	}
	return r.buf, r.err
}

// pollable returns a copy of fd that Go's poller watches.
//
// os.NewFile wants O_NONBLOCK for that, which is set on what both descriptors share,
// open(2). It is needed for this moment only, as the calls are made with
// MSG_DONTWAIT: so whatever happens later, fd is blocking.
func pollable(fd int) (*os.File, error) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	err = unix.SetNonblock(dup, true)
	file := os.NewFile(uintptr(dup), "connection")
	if err == nil {
		err = unix.SetNonblock(dup, false)
	}
	if err != nil {
		file.Close()
		return nil, os.NewSyscallError("fcntl", err)
	}
	return file, nil
}

// headerReader reads a header as it comes.
type headerReader struct {
	buf []byte // what was read
	err error
}

// read takes what there is of the header, and returns whether that is all, or the
// end for another reason.
//
// It looks first (MSG_PEEK), and then takes what belongs to the header: data that
// comes behind it is the program's. It never leaves anything of the header in the
// socket, or waiting for more would not wait.
func (r *headerReader) read(fd int) bool {
	for {
		have := len(r.buf)
		seen, _, err := unix.Recvfrom(fd, r.buf[have:cap(r.buf)], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		switch {
		case err == unix.EAGAIN:
			return false
		case err == unix.EINTR:
			continue
		case err == nil && seen == 0:
			err = io.EOF
		}
		if err != nil {
			r.err = ended(err)
			return true
		}
		size, whole, err := frameProxyHeader(r.buf[:have+seen])
		if err != nil {
			r.err = err
			return true
		}
		for len(r.buf) < size {
			n, _, err := unix.Recvfrom(fd, r.buf[len(r.buf):size], unix.MSG_DONTWAIT)
			if err == nil && n == 0 {
				err = io.EOF
			}
			if err != nil && err != unix.EINTR {
				r.err = ended(err)
				return true
			}
			r.buf = r.buf[:len(r.buf)+max(n, 0)]
		}
		if whole {
			return true
		}
		if size == cap(r.buf) {
			r.buf = append(make([]byte, 0, fixedV2+maxV2), r.buf...)
		}
	}
}

func ended(err error) error {
	if err == io.EOF {
		return ErrProxyEnded
	}
	return fmt.Errorf("%w: %w", ErrProxyEnded, os.NewSyscallError("recvfrom", err))
}
