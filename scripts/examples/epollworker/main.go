//go:build linux

// Command epollworker is a worker for fdkit pool --resident that holds tens of thousands
// of connections in one epoll(7), and answers each question of 64 bytes with the same
// 64. A connection that waits costs it no memory but the kernel's.
//
//	fdkit listen :9000 | fdkit pool --resident -n 8 epollworker
//
// It also accepts by itself if its queue is a socket that listens, as inetd's services
// that wait do.
package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"fdkit/fdrecv"
)

type worker struct {
	epoll      int
	next       func() (fd int, err error) // the next connection, or EAGAIN
	queue      int                        // readable if there is one
	events     uint32                     // of the queue
	open, most int                        // connections
	ended      bool                       // no further one comes
	room       [64]byte
	parts      map[int][]byte // of questions, which few have
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "epollworker: %v\n", err)
		os.Exit(111)
	}
}

func run() error {
	w := &worker{parts: map[int][]byte{}}
	if err := w.openQueue(cmp.Or(os.Getenv("FDKIT_QUEUE_FD"), "0")); err != nil {
		return err
	}
	var limit unix.Rlimit // package os has raised it to the hard one
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return os.NewSyscallError("getrlimit", err)
	}
	w.most = max(int(min(limit.Cur, 1<<30))-16, 1)     // which the pool leaves as well, if the kernel tells it
	w.epoll, _ = unix.EpollCreate1(unix.EPOLL_CLOEXEC) // if it fails, so does what follows
	err := w.watch(unix.EPOLL_CTL_ADD, w.queue, w.events)
	var events [256]unix.EpollEvent
	for err == nil && (!w.ended || w.open > 0) {
		var n int
		if n, err = unix.EpollWait(w.epoll, events[:], -1); err == unix.EINTR {
			n, err = 0, nil
		}
		for _, e := range events[:max(n, 0)] {
			w.serve(int(e.Fd))
		}
	}
	return err
}

// openQueue finds out what the queue is.
func (w *worker) openQueue(fd string) error {
	number, _ := strconv.Atoi(fd) // Open says what is wrong with it
	if listens, err := unix.GetsockoptInt(number, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil && listens == 1 {
		w.queue, w.events = number, unix.EPOLLIN|unix.EPOLLEXCLUSIVE
		w.next = func() (int, error) {
			conn, _, err := unix.Accept4(number, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
			return conn, err
		}
		return unix.SetNonblock(number, true) // another worker may be faster
	}
	q, err := fdrecv.Open("fd:"+fd, fdrecv.Options{})
	if err != nil {
		return err
	}
	var m fdrecv.Message
	receiver := q.Receiver()
	w.queue, w.events = q.FD(), unix.EPOLLIN
	w.next = func() (int, error) {
		if came, err := receiver.ReceiveNow(&m); err != nil {
			return -1, err
		} else if !came || len(m.FDs) == 0 {
			return -1, unix.EAGAIN
		}
		fd := m.FDs[0]
		m.FDs = m.FDs[1:]
		m.Close()
		return fd, unix.SetNonblock(fd, true)
	}
	return nil
}

func (w *worker) watch(op, fd int, events uint32) error {
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(w.epoll, op, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)}))
}

// receive takes one connection, so that those that are there have their turn.
func (w *worker) receive() {
	fd, err := w.next()
	if err == nil {
		err = w.watch(unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN)
	}
	switch {
	case err == nil:
		w.open++
	case errors.Is(err, io.EOF):
		w.ended = true
	case fd >= 0:
		_ = unix.Close(fd)
	case err != unix.EAGAIN:
		fmt.Fprintf(os.Stderr, "epollworker: a connection is lost: %v\n", err)
	}
	if w.ended || w.open == w.most { // others are for others
		_ = w.watch(unix.EPOLL_CTL_DEL, w.queue, 0)
	}
}

// serve receives a connection, or reads what has come of a question and answers it when it is whole.
func (w *worker) serve(fd int) {
	if fd == w.queue {
		w.receive()
		return
	}
	n := copy(w.room[:], w.parts[fd])
	more, err := unix.Read(fd, w.room[n:])
	switch n += max(more, 0); {
	case err == unix.EAGAIN:
	case more > 0 && n < len(w.room):
		w.parts[fd] = append([]byte(nil), w.room[:n]...)
	default:
		delete(w.parts, fd)
		if n == len(w.room) {
			if sent, _ := unix.Write(fd, w.room[:]); sent == n {
				return
			}
		}
		_ = unix.Close(fd) // its client has gone, or does not read
		if w.open--; w.open == w.most-1 && !w.ended {
			_ = w.watch(unix.EPOLL_CTL_ADD, w.queue, w.events)
		}
	}
}
