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

// openStandard opens the queue behind stdout or stdin. It moves the descriptor
// to another number and puts /dev/null in its place, so that nothing else reads
// or writes there, and so that closing the queue lets go of it.
func openStandard(o Options, sending bool) (*Queue, error) {
	number := 0
	if sending {
		number = 1
	}
	q, err := openDescriptor(number, o, sending)
	if err != nil {
		return nil, err
	}
	q.Name = standard(sending)
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		err = unix.Dup3(null, number, 0)
		closeAll(null)
	}
	return q, err
}

// openNumber opens the queue behind an inherited descriptor.
func openNumber(text string, o Options, sending bool) (*Queue, error) {
	number, err := strconv.Atoi(text)
	if err != nil || number < 0 {
		return nil, fmt.Errorf("%q is no descriptor number", text)
	}
	q, err := openDescriptor(number, o, sending)
	if err != nil {
		return nil, err
	}
	q.Name = "fd:" + text
	if number > 2 {
		closeAll(number) // the queue has its own
	}
	return q, nil
}

// openDescriptor opens the queue that number leads to, through a copy of it.
func openDescriptor(number int, o Options, sending bool) (*Queue, error) {
	var st unix.Stat_t
	if err := unix.Fstat(number, &st); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFIFO, unix.S_IFSOCK:
	case unix.S_IFCHR:
		if _, err := unix.IoctlGetTermios(number, unix.TCGETS); err == nil {
			return nil, hint.Wrap(errors.New("it is a terminal"), joinHint(sending))
		}
		fallthrough
	default:
		return nil, hint.Wrap(fmt.Errorf("it is %s, neither a pipe nor a Unix socket", nameOf(number)), joinHint(sending))
	}
	fd, err := unix.FcntlInt(uintptr(number), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	var q *Queue
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFSOCK:
		q, err = overSocket(fd, sending)
	case sending:
		q, err = sendThroughPipe(fd)
	default:
		q, err = receiveThroughPipe(fd, o)
	}
	if err != nil {
		closeAll(fd)
		return nil, err
	}
	return q, nil
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

// overSocket makes a queue of the connected Unix socket fd, which it owns.
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
	q := &Queue{FD: fd}
	if sending {
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
