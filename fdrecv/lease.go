//go:build linux

package fdrecv

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"fdkit/internal/scm"
)

// words says READY and DONE of fdkit-protocol(7) to the pool. It has a copy of the queue's
// socket, which is open as long as the Listener or one of its connections is.
type words struct {
	fd int

	mu     sync.Mutex
	users  int
	sender *scm.Sender
}

// ready asks for the first connections, and makes the words last until release. Without
// leases they are nil.
func (l *listener) ready() (*words, error) {
	l.mu.Lock()
	w, closed := l.words, l.closed
	l.mu.Unlock()
	switch {
	case closed:
		return nil, net.ErrClosed
	case l.leases == 0:
		return nil, nil
	case !l.q.q.Foreign:
		return nil, errors.New("leases are for a worker's own queue, and this is none")
	case w != nil && w.retain():
		return w, nil
	case w != nil:
		return nil, net.ErrClosed
	}
	fd := -1
	err := l.patiently(func() (err error) {
		if err = l.q.q.Calls.Enter(); err == nil { // the queue is not closed meanwhile
			fd, err = unix.FcntlInt(uintptr(l.q.q.FD), unix.F_DUPFD_CLOEXEC, 3)
			l.q.q.Calls.Exit()
		}
		return err
	})
	if errors.Is(err, ErrStopped) {
		return nil, net.ErrClosed
	} else if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	w = &words{fd: fd, users: 2, sender: scm.NewSender(fd, nil)} // l and the caller
	l.mu.Lock()
	l.words, closed = w, l.closed
	l.mu.Unlock()
	if closed {
		w.release()
		w.release()
		return nil, net.ErrClosed
	}
	l.say(w, fmt.Sprintf("READY=%d", l.leases))
	return w, nil
}

// lend makes the connection's Close say that it is done with.
func (l *listener) lend(c *Conn, w *words) {
	if w != nil && w.retain() {
		c.end = func() {
			l.done(w, c.payload)
			w.release()
		}
	}
}

// done says that a connection is done with, and asks for another.
func (l *listener) done(w *words, payload []byte) {
	if w == nil {
		return
	}
	text := "DONE" // the one that this process has had longest
	if id, ok := scm.Var(payload, "FDKIT_LEASE"); ok {
		text += "=" + id
	}
	l.mu.Lock()
	closed := l.closed
	l.mu.Unlock()
	if !closed {
		text += "\nREADY"
	}
	l.say(w, text)
}

// say waits while the pool, stopped perhaps, does not listen. It is no trouble that it has
// gone: that is the end of the queue.
func (l *listener) say(w *words, text string) {
	w.mu.Lock()
	err := w.sender.Send([]byte(text))
	w.mu.Unlock()
	if err != nil && !errors.Is(err, scm.ErrGone) {
		l.trouble(fmt.Errorf("cannot tell the pool %q: %w", text, err))
	}
}

// retain returns false if the last user has gone.
func (w *words) retain() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.users == 0 {
		return false
	}
	w.users++
	return true
}

func (w *words) release() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.users--; w.users == 0 {
		_ = unix.Close(w.fd)
	}
}
