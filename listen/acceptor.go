//go:build linux

package listen

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"fdkit/internal/interrupt"
)

// Acceptor accepts connections from several Listeners, and lets in those that its
// Policy allows.
type Acceptor struct {
	listeners []*Listener
	policy    Policy
	on        Events
	rules     atomic.Pointer[Rules]
	overall   *rate.Limiter // nil: no limit
	sources   *sourceRates  // nil: no limit
	calls     interrupt.Calls
	poller    poller
	short     atomic.Bool  // accepting pauses for want of something
	lingering atomic.Int64 // connections that were answered and are not closed yet

	control               sync.Mutex // held by Pause, Resume and Stop
	mu                    sync.Mutex
	paused, ended, closed bool
	ending                chan struct{} // closed when ended
	resumed               chan struct{} // closed when not paused
	waiting               waitingRoom
}

// Policy says which connections are let in. The zero value lets all in at once.
type Policy struct {
	Proxy *Proxy // nil: connections come from clients themselves
	Rules *Rules // who may connect; nil: everybody
	Rates Rates
	Busy  *Busy // what clients are answered for whom there is no room; nil: they wait
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
func NewAcceptor(listeners []*Listener, policy Policy, on Events) (a *Acceptor, err error) {
	a = &Acceptor{
		listeners: listeners, policy: policy, on: on,
		overall: policy.Rates.Overall.limiter(), sources: newSourceRates(policy.Rates),
	}
	a.rules.Store(policy.Rules)
	a.ending, a.waiting = make(chan struct{}), newWaitingRoom(&a.mu)
	a.resumed = make(chan struct{})
	close(a.resumed)
	for _, l := range listeners {
		if err = errors.Join(err, l.renew()); err != nil {
			a.Close()
			return nil, err
		}
	}
	if policy.Proxy != nil || a.sources != nil && !policy.Rates.Refuse || policy.Busy != nil || len(listeners) > 1 {
		err = a.pollAll()
	}
	if err != nil {
		a.Close()
		return nil, err
	}
	return a, nil
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
		waited, err := a.accept(c, sink)
		if err == ErrStopped {
			waited, err = a.stopped(c)
			if err == nil && !waited {
				continue // after a pause
			}
		}
		switch {
		case err == nil:
			if !waited && a.short.CompareAndSwap(true, false) && a.on.Resumed != nil {
				a.on.Resumed()
			}
			if !waited && !a.admit(c) || !a.pace(c) {
				continue
			}
			if a.on.Accepted != nil {
				a.on.Accepted(c)
			}
			return nil
		case !isShortage(err):
			return err
		}
		pause = a.shortage(err, pause)
	}
}

// shortage waits until there may be enough again of what is short. It returns for how
// long: it is given that the next time.
func (a *Acceptor) shortage(err error, last time.Duration) time.Duration {
	if a.short.CompareAndSwap(false, true) && a.on.Pausing != nil {
		a.on.Pausing(err)
	}
	pause := min(max(2*last, time.Millisecond), 50*time.Millisecond)
	time.Sleep(pause) // the backlog stays readable: only time can be waited for
	return pause
}

// SetRules changes who may connect, from the next connection on.
func (a *Acceptor) SetRules(rules *Rules) { a.rules.Store(rules) }

// Pause makes accepting pause until Resume. The sockets go on listening, and clients
// wait in their backlogs.
func (a *Acceptor) Pause() {
	a.control.Lock()
	defer a.control.Unlock()
	a.mu.Lock()
	if !a.paused {
		a.paused, a.resumed = true, make(chan struct{})
	}
	a.mu.Unlock()
	a.calls.Stop()
}

// Resume ends what Pause began.
func (a *Acceptor) Resume() {
	a.control.Lock()
	defer a.control.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.paused && !a.ended {
		a.paused = false
		a.calls.Resume()
		close(a.resumed)
		a.waiting.changed.Broadcast()
	}
}

// Stop makes Accept return ErrStopped, once it has returned the connections that were
// accepted and had to wait: those that came too early at once, those whose header comes
// within a second. The sockets go on listening: what comes waits in their backlogs. When
// Stop returns, nothing more is accepted.
func (a *Acceptor) Stop() {
	a.control.Lock()
	defer a.control.Unlock()
	a.mu.Lock()
	if !a.ended {
		a.ended = true
		close(a.ending)
		time.AfterFunc(lastHeaders, a.waiting.abandon)
		a.waiting.changed.Broadcast()
	}
	a.mu.Unlock()
	a.calls.Stop()
}

// Leave is Close for one whose sockets others have too: it leaves them as they are, and
// their files.
func (a *Acceptor) Leave() {
	a.Stop()
	for _, l := range a.listeners {
		_ = unix.Close(l.Take())
	}
	a.Close()
}

// Close stops the Acceptor and closes its Listeners. Accept goes on to return what has
// to wait. Further calls do nothing.
func (a *Acceptor) Close() {
	a.Stop()
	for _, l := range a.listeners {
		l.Close()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	a.closeWake()
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
