//go:build linux

package listen

import (
	"io"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Busy is what clients are answered for whom there is no room, instead of their
// waiting in the backlog.
type Busy struct {
	Message string        // is sent as it is
	After   time.Duration // how long there must have been no room
}

const (
	// lingering is how long a client that was answered has to read it. If the
	// connection were closed at once, with something unread that the client has
	// sent, TCP would reset it, and the answer could be lost, RFC 1122 4.2.2.13.
	lingering = 2 * time.Second
	// maxLingering bounds how many do so at once; others are closed at once.
	maxLingering = 128
)

// waitForRoom waits, between Enter and Exit, until the descriptor sink has room.
func (a *Acceptor) waitForRoom(sink int) error {
	if a.policy.Busy == nil {
		return a.calls.Poll(sink, unix.POLLOUT)
	}
	room := unix.PollFd{Fd: int32(sink), Events: unix.POLLOUT}
	ready, err := a.calls.PollAny([]unix.PollFd{room}, a.policy.Busy.After)
	if ready || err != nil {
		return err
	}
	return a.refuse(&room, func() bool { return false })
}

// RefuseUntil answers all clients with the message of Policy.Busy, from its time After
// on, until room is closed. Nobody may call Accept meanwhile. After Stop it returns
// early, and does nothing without Policy.Busy.
func (a *Acceptor) RefuseUntil(room <-chan struct{}) {
	if a.policy.Busy == nil {
		return
	}
	select {
	case <-room:
		return
	case <-time.After(a.policy.Busy.After):
	}
	returned := make(chan struct{})
	defer close(returned)
	go func() {
		select {
		case <-room:
			a.mu.Lock()
			a.wake() // ends the poll
			a.mu.Unlock()
		case <-returned:
		}
	}()
	done := func() bool {
		select {
		case <-room:
			return true
		default:
			return false
		}
	}
	for pause := time.Duration(0); !done(); {
		err := a.calls.Enter()
		if err == nil {
			err = a.refuse(nil, done)
			a.calls.Exit()
		}
		switch {
		case err == nil:
			return
		case isShortage(err):
			pause = a.shortage(err, pause)
		case err != ErrStopped || !a.awaitResume(room):
			return
		}
	}
}

// awaitResume waits for the end of a pause, and returns false if room or the end comes
// first.
func (a *Acceptor) awaitResume(room <-chan struct{}) bool {
	a.mu.Lock()
	resumed := a.resumed
	a.mu.Unlock()
	select {
	case <-room:
		return false
	case <-a.ending:
		return false
	case <-resumed:
		return true
	}
}

// refuse answers connections, those that have waited as well, until there is room: when
// room is ready, if it is not nil, or done says so after a wake.
func (a *Acceptor) refuse(room *unix.PollFd, done func() bool) error {
	var c Conn
	fds := slices.Clone(a.poller.fds)
	if room != nil {
		fds = append(fds, *room)
	}
	for {
		waited, _ := a.take(&c)
		switch {
		case waited:
			a.busy(&c)
			continue
		case done():
			return nil
		}
		if _, err := a.calls.PollAny(fds, -1); err != nil {
			return err
		}
		if room != nil && fds[len(fds)-1].Revents != 0 {
			return nil
		}
		switch err := a.acceptReady(&c, fds[1:]); {
		case err == unix.EAGAIN:
		case err != nil:
			return err
		case a.invited(&c):
			a.busy(&c)
		}
	}
}

// busy tells a client that there is no room.
func (a *Acceptor) busy(c *Conn) {
	a.tell(c, Refusal{RefusedAsBusy, "there is no room"})
	a.answer(c.FD, a.policy.Busy.Message)
}

// invited tells whether a client is one that would be let in if there were room, as far
// as that can be seen at once. If not, its connection is closed.
func (a *Acceptor) invited(c *Conn) bool {
	if proxy := a.policy.Proxy; proxy != nil {
		return proxy.Trust.Has(c.info.Remote) || a.refused(c, Refusal{RefusedForHeader, ErrProxyUntrusted.Error()})
	}
	return a.allowed(c)
}

// answer sends text and closes the connection fd when the client has read it.
func (a *Acceptor) answer(fd int, text string) {
	// It fits into the send buffer, which is empty.
	_ = unix.Sendto(fd, []byte(text), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
	_ = unix.Shutdown(fd, unix.SHUT_WR)
	if a.lingering.Add(1) > maxLingering || unix.SetNonblock(fd, true) != nil {
		a.lingering.Add(-1)
		_ = unix.Close(fd)
		return
	}
	connection := os.NewFile(uintptr(fd), "connection") // non-blocking: it takes no thread
	go func() {
		defer a.lingering.Add(-1)
		defer connection.Close()
		if connection.SetReadDeadline(time.Now().Add(lingering)) == nil {
			_, _ = io.Copy(io.Discard, connection)
		}
	}()
}
