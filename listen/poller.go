//go:build linux

package listen

import (
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// poller waits for connections at several Listeners, and for those that had to wait.
//
// Without it, at one Listener, every goroutine sleeps in accept4 itself, and each
// connection wakes one. With it, one goroutine at a time polls.
type poller struct {
	turn  sync.Mutex
	fds   []unix.PollFd // an eventfd, and the Listeners in their order; nil: nobody polls
	first atomic.Int32  // the Listener to look at first, so that none is starved
}

// pollAll prepares for polling. After poll(2) another process that has the same
// socket may be faster, and then accept4(2) must not wait there.
func (a *Acceptor) pollAll() error {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return os.NewSyscallError("eventfd2", err)
	}
	a.waiting.wake = wake
	a.poller.fds = append(a.poller.fds, unix.PollFd{Fd: int32(wake), Events: unix.POLLIN})
	for _, l := range a.listeners {
		flags, err := unix.FcntlInt(uintptr(l.fd), unix.F_GETFL, 0)
		if err == nil && flags&unix.O_NONBLOCK == 0 {
			l.blocking = true
			_, err = unix.FcntlInt(uintptr(l.fd), unix.F_SETFL, flags|unix.O_NONBLOCK)
		}
		if err != nil {
			return os.NewSyscallError("fcntl", err)
		}
		a.poller.fds = append(a.poller.fds, unix.PollFd{Fd: int32(l.fd), Events: unix.POLLIN})
	}
	return nil
}

// accept accepts a connection, or takes one that has waited and was let in.
func (a *Acceptor) accept(c *Conn, sink int) (waited bool, err error) {
	polls := a.poller.fds != nil
	if polls {
		a.poller.turn.Lock()
		defer a.poller.turn.Unlock()
	}
	if err := a.calls.Enter(); err != nil {
		return false, err
	}
	defer a.calls.Exit()
	if sink != noSink {
		if err := a.waitForRoom(sink); err != nil {
			return false, err
		}
	}
	if !polls {
		return false, a.listeners[0].accept(c, &a.calls)
	}
	for {
		taken, room := a.take(c)
		if taken {
			return true, nil
		}
		if !room {
			if _, err := a.calls.PollAny(a.poller.fds[:1], -1); err != nil {
				return false, err
			}
			continue
		}
		if _, err := a.calls.PollAny(a.poller.fds, -1); err != nil {
			return false, err
		}
		if err := a.acceptReady(c, a.poller.fds[1:]); err != unix.EAGAIN {
			return false, err
		}
	}
}

// acceptReady accepts from a Listener that poll has found ready. It returns EAGAIN if
// there is none.
func (a *Acceptor) acceptReady(c *Conn, polled []unix.PollFd) error {
	first := int(a.poller.first.Load()) // RefuseUntil accepts beside the one whose turn it is
	for i := range a.listeners {
		n := (first + i) % len(a.listeners)
		if polled[n].Revents == 0 {
			continue
		}
		if err := a.listeners[n].acceptOne(c, &a.calls); err != unix.EAGAIN {
			a.poller.first.Store(int32(n + 1))
			return err
		}
	}
	return unix.EAGAIN
}
