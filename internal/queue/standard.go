//go:build linux

package queue

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"fdkit/internal/hint"
)

// openStandard opens the queue behind stdout or stdin. The descriptor is moved to
// another number, with /dev/null in its place, so that nothing else reads or
// writes there, and so that closing the queue lets go of it.
func openStandard(o opening, sending bool) (*Queue, error) {
	number := 0
	if sending {
		number = 1
	}
	return openDescriptor(number, o, sending)
}

// giveUp closes the descriptor number, which is known to another one. At 0, 1 and
// 2 it leaves /dev/null: the next descriptor to be opened would become stdin or
// stdout.
func giveUp(number int) error {
	if number > 2 {
		closeAll(number)
		return nil
	}
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("open", err)
	}
	defer closeAll(null)
	return os.NewSyscallError("dup3", unix.Dup3(null, number, 0))
}

// openNumber opens the queue behind an inherited descriptor.
func openNumber(text string, o opening, sending bool) (*Queue, error) {
	number, err := strconv.Atoi(text)
	if err != nil || number < 0 {
		return nil, specError{fmt.Errorf("%q is no descriptor number", text)}
	}
	return openDescriptor(number, o, sending)
}

// openDescriptor opens the queue that number leads to, and takes number over, also
// if that fails.
func openDescriptor(number int, o opening, sending bool) (*Queue, error) {
	fd, err := unix.FcntlInt(uintptr(number), unix.F_DUPFD_CLOEXEC, 3)
	if err == unix.EBADF {
		return nil, errors.New("it is not open")
	} else if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	if err := giveUp(number); err != nil {
		closeAll(fd)
		return nil, err
	}
	q, err := overDescriptor(fd, o, sending)
	if err != nil {
		closeAll(fd)
	}
	return q, err
}

// overDescriptor makes a queue of fd, which it owns unless it fails.
func overDescriptor(fd int, o opening, sending bool) (*Queue, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFSOCK:
		return overSocket(fd, sending)
	case unix.S_IFIFO:
		if sending {
			return sendThroughPipe(fd)
		}
		return receiveThroughPipe(fd, o)
	case unix.S_IFCHR:
		if _, err := unix.IoctlGetTermios(fd, unix.TCGETS); err == nil {
			return nil, hint.Wrap(errors.New("it is a terminal"), joinHint(sending))
		}
	}
	name, cure := nameOf(fd), joinHint(sending)
	if name == os.DevNull && !sending {
		cure += "; a shell's & puts " + name + " there, unless the command begins with exec 3<&0 and the receiver has <&3"
	}
	return nil, hint.Wrap(fmt.Errorf("it is %s, neither a pipe nor a Unix socket", name), cure)
}

func joinHint(sending bool) string {
	if sending {
		return "join it to a receiver with |, such as fdkit pool, or name a queue with --to"
	}
	return "join it to a sender with |, such as fdkit listen, or name a queue with --from"
}

func nameOf(fd int) string {
	name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return "something"
	}
	return name
}

// overSocket makes a queue of the connected Unix socket fd, which it owns unless it
// fails.
func overSocket(fd int, sending bool) (*Queue, error) {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return nil, os.NewSyscallError("getsockopt", err)
	}
	listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return nil, os.NewSyscallError("getsockopt", err)
	}
	switch {
	case domain != unix.AF_UNIX:
		return nil, hint.Wrap(errors.New("it is a network socket, through which no descriptor passes"), joinHint(sending))
	case listening != 0:
		return nil, hint.Wrap(errors.New("it is a listening socket"), "a queue wants a connected one")
	}
	q := &Queue{FD: fd, in: fd, Foreign: true}
	if sending {
		q.in = -1
		if err := shorten(fd); err != nil {
			return nil, err
		}
		lifeline := newLifeline(fd)
		q.gone = lifeline.gone
		q.leave = func() (int, error) {
			lifeline.stop()
			return 0, nil
		}
		lifeline.watch()
	}
	return q, nil
}
