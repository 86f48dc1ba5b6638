//go:build linux

package listen

import (
	"io"
	"os"
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
	return a.refuse(room)
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
	r, w, err := os.Pipe()
	if err != nil {
		return // for want of descriptors: clients wait
	}
	defer r.Close()
	returned := make(chan struct{})
	defer close(returned)
	go func() {
		select {
		case <-room:
		case <-returned:
		}
		_ = w.Close() // ends poll
	}()
	for {
		err := a.calls.Enter()
		if err == nil {
			err = a.refuse(unix.PollFd{Fd: int32(r.Fd()), Events: unix.POLLIN})
			a.calls.Exit()
		}
		if err != ErrStopped || !a.resumed() {
			return
		}
	}
}

// refuse accepts connections and answers them until room is ready.
func (a *Acceptor) refuse(room unix.PollFd) error {
	var c Conn
	fds := append(a.polls[:len(a.polls):len(a.polls)], room)
	for {
		if _, err := a.calls.PollAny(fds, -1); err != nil {
			return err
		}
		if fds[len(fds)-1].Revents != 0 {
			return nil
		}
		copy(a.polls, fds)
		switch err := a.acceptReady(&c); {
		case err == unix.EAGAIN:
		case err != nil:
			return err
		case a.admit(&c):
			a.told(&c, Refusal{"busy", "there is no room"})
			a.answer(c.FD, a.policy.Busy.Message)
		}
	}
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
