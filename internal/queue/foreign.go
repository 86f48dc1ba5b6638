//go:build linux

package queue

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"fdkit/internal/hint"
	"fdkit/internal/scm"
	"fdkit/internal/unixpath"
)

// openForeign opens a queue to a program that is no fdkit command, at a Unix
// socket.
func openForeign(kind, path string, o opening, sending bool) (*Queue, error) {
	types := map[string]int{
		"unix": unix.SOCK_STREAM, "unix-listen": unix.SOCK_STREAM,
		"unix-seqpacket": unix.SOCK_SEQPACKET, "unix-seqpacket-listen": unix.SOCK_SEQPACKET,
		"unix-dgram": unix.SOCK_DGRAM,
	}
	typ, known := types[kind]
	if !known {
		return nil, specError{hint.Wrap(fmt.Errorf("there is no kind of queue %q", kind),
			"a queue is /PATH, ./PATH, @NAME, unix:PATH, unix-listen:PATH, unix-seqpacket:PATH, unix-seqpacket-listen:PATH, unix-dgram:PATH or fd:N")}
	}
	if err := unixpath.Check(path); err != nil {
		return nil, specError{err}
	}
	var fd int
	var err error
	switch {
	case kind == "unix-listen", kind == "unix-seqpacket-listen":
		fd, err = acceptOne(path, typ, o)
	case kind == "unix-dgram" && !sending:
		return receiveDatagrams(path, o)
	default:
		patience := o.patience()
		for {
			fd, err = connect(path, typ)
			if info, statErr := os.Lstat(path); errors.Is(err, unix.ECONNREFUSED) && statErr == nil && info.Mode().Type() != fs.ModeSocket {
				return nil, unixpath.ErrNotSocket
			}
			absent := errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.EAGAIN)
			if absent && o.Wait == 0 {
				err = hint.Wrap(err, "start the program that serves it first")
			}
			if !absent || o.Wait == 0 || !patience.again(err) {
				break
			}
		}
	}
	if err != nil {
		return nil, err
	}
	q, err := overSocket(fd, sending)
	if err != nil {
		closeAll(fd)
	}
	return q, err
}

func connect(path string, typ int) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	// A full backlog makes connect(2) wait, at most as long as SO_SNDTIMEO says,
	// socket(7).
	timeout := unix.NsecToTimeval(answerTime.Nanoseconds())
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &timeout)
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	if err == nil {
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{})
	}
	if err != nil {
		closeAll(fd)
		return -1, os.NewSyscallError("connect", err)
	}
	return fd, nil
}

// acceptOne binds path to a socket of that type and waits for one program to connect.
func acceptOne(path string, typ int, o opening) (int, error) {
	listener, err := unix.Socket(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	defer closeAll(listener)
	// As in receiveDatagrams. What is accepted has inherited it.
	if err := scm.PassCredentials(listener); err != nil {
		return -1, err
	}
	if err := unixpath.Bind(listener, path, o.Access(), 1); err != nil {
		return -1, err
	}
	if !unixpath.Abstract(path) {
		if id, err := unixpath.Identify(path); err == nil {
			defer unixpath.Remove(path, id)
		}
	}
	patience := o.patience()
	if ready, err := patience.calls.Wait(listener, unix.POLLIN, patience.left(-1)); err != nil {
		return -1, err
	} else if !ready {
		return -1, errors.New("nobody has connected in time")
	}
	for {
		conn, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return -1, os.NewSyscallError("accept4", err)
		case unixpath.Abstract(path) && !allowed(conn, o.Access()):
			closeAll(conn) // no file's permissions have kept it away
		default:
			return conn, nil
		}
	}
}

// allowed tells whether the process at conn may connect to a file of that access.
func allowed(conn int, access unixpath.Access) bool {
	who, err := unix.GetsockoptUcred(conn, unix.SOL_SOCKET, unix.SO_PEERCRED)
	p := policyOf(access)
	return err == nil && p.admits(conn, who)
}

// receiveDatagrams binds path for datagrams from any program.
func receiveDatagrams(path string, o opening) (*Queue, error) {
	if unixpath.Abstract(path) {
		return nil, specError{hint.Wrap(errors.New("anybody could send to an abstract name"), "a path has permissions: unix-dgram:/PATH")}
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	// Before anybody can send: of a datagram that is queued already nobody will know who
	// has sent it, nor that it was one if it is empty.
	if err := scm.PassCredentials(fd); err != nil {
		closeAll(fd)
		return nil, err
	}
	if err := unixpath.Bind(fd, path, o.Access(), 0); err != nil {
		closeAll(fd)
		return nil, err
	}
	id, err := unixpath.Identify(path)
	if err != nil {
		closeAll(fd)
		return nil, err
	}
	return &Queue{FD: fd, in: fd, Foreign: true, leave: func() (int, error) {
		unixpath.Remove(path, id)
		return 0, nil
	}}, nil
}
