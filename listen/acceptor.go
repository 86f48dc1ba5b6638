//go:build linux

package listen

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/interrupt"
)

// Acceptor accepts connections from several Listeners.
type Acceptor struct {
	listeners []*Listener
	policy    Policy
	rules     atomic.Pointer[Rules]
	on        Events
	calls     interrupt.Calls
	short     atomic.Bool // accepting pauses for want of something
	lingering atomic.Int64

	mu              sync.Mutex
	changed         *sync.Cond // tells those who wait while calls are stopped
	paused, stopped bool

	// With one Listener and nothing else to wait for, every goroutine sleeps in
	// accept4 itself, and each connection wakes one. Otherwise one goroutine at a
	// time polls.
	turn  sync.Mutex
	polls []unix.PollFd // of the Listeners, in their order; nil: nobody polls
	first int           // the Listener to look at first, so that none is starved
}

// Policy says which connections are let in. The zero value lets all in.
type Policy struct {
	// Rules say who may connect; nil: everybody.
	Rules *Rules
	// Busy, if not nil, is what clients are answered for whom there is no room.
	Busy *Busy
}

// Events are told what an Acceptor does. Each may be nil. They may be called by
// several goroutines at once.
type Events struct {
	Accepted func(c *Conn)              // a connection was accepted and let in
	Refused  func(c *Conn, why Refusal) // one was accepted and closed
	Pausing  func(cause error)          // accepting pauses until the cause has gone; told once each time
	Resumed  func()                     // it goes on
}

// NewAcceptor returns an Acceptor for the Listeners, which it owns from now on. It may
// make their sockets non-blocking until Close.
func NewAcceptor(listeners []*Listener, policy Policy, on Events) (*Acceptor, error) {
	a := &Acceptor{listeners: listeners, policy: policy, on: on}
	a.changed = sync.NewCond(&a.mu)
	a.rules.Store(policy.Rules)
	if len(listeners) > 1 || policy.Busy != nil {
		if err := a.pollAll(); err != nil {
			a.Close()
			return nil, err
		}
	}
	return a, nil
}

// pollAll prepares for polling. After poll(2) another process that has the same
// socket may be faster, and then accept4(2) must not wait there.
func (a *Acceptor) pollAll() error {
	for _, l := range a.listeners {
		flags, err := unix.FcntlInt(uintptr(l.fd), unix.F_GETFL, 0)
		if err == nil && flags&unix.O_NONBLOCK == 0 {
			l.blocking = true
			_, err = unix.FcntlInt(uintptr(l.fd), unix.F_SETFL, flags|unix.O_NONBLOCK)
		}
		if err != nil {
			return os.NewSyscallError("fcntl", err)
		}
		a.polls = append(a.polls, unix.PollFd{Fd: int32(l.fd), Events: unix.POLLIN})
	}
	return nil
}

// Accept waits for the next connection and stores it in c. Several goroutines may
// call it.
//
// It returns ErrStopped after Stop, and waits during a Pause. While the system is
// short of descriptors or memory it waits as well, and tells Events.
func (a *Acceptor) Accept(c *Conn) error { return a.next(c, noSink) }

// noSink stands for no descriptor to wait for.
const noSink = -1

// next is Accept, which first waits until sink has room.
func (a *Acceptor) next(c *Conn, sink int) error {
	for pause := time.Duration(0); ; {
		err := a.accept(c, sink)
		switch {
		case err == nil:
			if a.short.CompareAndSwap(true, false) && a.on.Resumed != nil {
				a.on.Resumed()
			}
			if !a.admit(c) {
				continue
			}
			if a.on.Accepted != nil {
				a.on.Accepted(c)
			}
			return nil
		case err == ErrStopped:
			if !a.resumed() {
				return ErrStopped
			}
			continue
		case !isShortage(err):
			return err
		}
		if a.short.CompareAndSwap(false, true) && a.on.Pausing != nil {
			a.on.Pausing(err)
		}
		pause = min(max(2*pause, time.Millisecond), 50*time.Millisecond)
		time.Sleep(pause) // the backlog stays readable: only time can be waited for
	}
}

func (a *Acceptor) accept(c *Conn, sink int) error {
	if a.polls != nil {
		a.turn.Lock()
		defer a.turn.Unlock()
	}
	if err := a.calls.Enter(); err != nil {
		return err
	}
	defer a.calls.Exit()
	if sink != noSink {
		if err := a.waitForRoom(sink); err != nil {
			return err
		}
	}
	if a.polls == nil {
		return a.listeners[0].accept(c, &a.calls)
	}
	for {
		if _, err := a.calls.PollAny(a.polls, -1); err != nil {
			return err
		}
		if err := a.acceptReady(c); err != unix.EAGAIN {
			return err
		}
	}
}

// acceptReady accepts from a Listener that poll has found ready. It returns EAGAIN if
// there is none.
func (a *Acceptor) acceptReady(c *Conn) error {
	for i := range a.polls {
		n := (a.first + i) % len(a.polls)
		if a.polls[n].Revents == 0 {
			continue
		}
		if err := a.listeners[n].acceptOne(c, &a.calls); err != unix.EAGAIN {
			a.first = n + 1
			return err
		}
	}
	return unix.EAGAIN
}

// SetRules changes who may connect, from the next connection on.
func (a *Acceptor) SetRules(rules *Rules) { a.rules.Store(rules) }

// resumed waits for the end of a pause, and returns whether it was one.
func (a *Acceptor) resumed() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.paused && !a.stopped {
		a.changed.Wait()
	}
	return !a.stopped
}

// Pause makes accepting pause until Resume. The sockets go on listening, and clients
// wait in their backlogs.
func (a *Acceptor) Pause() {
	a.mu.Lock()
	a.paused = true
	a.mu.Unlock()
	a.calls.Stop()
}

// Resume ends what Pause began.
func (a *Acceptor) Resume() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.paused && !a.stopped {
		a.paused = false
		a.calls.Resume()
		a.changed.Broadcast()
	}
}

// Stop ends Accepts that are under way with ErrStopped and lets no further one begin.
// When it returns, every connection that was accepted has been returned by an Accept.
// The sockets go on listening: what comes waits in their backlogs.
func (a *Acceptor) Stop() {
	a.mu.Lock()
	a.stopped = true
	a.changed.Broadcast()
	a.mu.Unlock()
	a.calls.Stop()
}

// Close stops the Acceptor and closes its Listeners. Further calls do nothing.
func (a *Acceptor) Close() {
	a.Stop()
	for _, l := range a.listeners {
		l.Close()
	}
}

// isShortage tells whether accept4 failed for want of something that may be there
// again soon, accept(2).
func isShortage(err error) bool {
	e, ok := errors.AsType[*os.SyscallError](err)
	if !ok {
		return false
	}
	switch e.Err {
	case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM:
		return true
	}
	return false
}
