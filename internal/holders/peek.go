//go:build linux

package holders

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"fdkit/internal/interrupt"
	"fdkit/internal/scm"
)

// eachInFlight calls each with a copy of every descriptor in the receive queue of the
// Unix socket, which it closes afterwards. The queue stays as it is.
func eachInFlight(socket int, each func(fd int)) error {
	// From the offset on, each peek sees what follows the one before, socket(7). It
	// belongs to the socket, and so to all who have it.
	typ, err := unix.GetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	before, err := unix.GetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_PEEK_OFF)
	if err == nil {
		err = unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_PEEK_OFF, 0)
	}
	if err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	defer func() { _ = unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_PEEK_OFF, before) }()
	const room = 1 << 18 // more than net.core.wmem_default, so that no message takes two looks
	var calls interrupt.Calls
	receiver := scm.NewReceiverSize(socket, &calls, room)
	var m scm.Message
	for {
		// Where no sender is left, a peek beyond the end is not told from a message of no
		// bytes. Of datagrams the number of bytes is that of the first.
		at, _ := unix.GetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_PEEK_OFF)
		unread, _ := unix.IoctlGetInt(socket, unix.SIOCINQ)
		if typ != unix.SOCK_DGRAM && at >= unread {
			return nil
		}
		more, err := receiver.Peek(&m)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil || !more {
			return err
		}
		for _, fd := range m.FDs {
			each(fd)
		}
		m.Close()
	}
}
