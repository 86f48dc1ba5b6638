//go:build linux

package listen

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxWaiting is how many connections wait at once outside of the backlog.
	maxWaiting = 1024
	// maxEarly is beyond how many of them no further one waits because it comes too
	// early: so early ones do not keep out those whose header has yet to come.
	maxEarly = maxWaiting / 2
	// lastHeaders is how long after Stop headers are waited for: those of connections
	// that a balancer has just made come at once.
	lastHeaders = time.Second
)

// waitingRoom has the connections of an Acceptor that were accepted and cannot be passed
// on yet: their header has yet to come, or they come too early. Each waits in a
// goroutine of its own, which takes no thread, so that none holds up others.
type waitingRoom struct {
	changed *sync.Cond // on the Acceptor's mu, which guards what follows
	number  int
	ready   []*Conn // those that have waited and are let in
	wake    int     // an eventfd, readable when a poll may have something to do; -1: none

	ctx     context.Context // done when headers are not waited for any more
	abandon context.CancelFunc
}

func newWaitingRoom(mu *sync.Mutex) waitingRoom {
	w := waitingRoom{changed: sync.NewCond(mu), wake: -1}
	w.ctx, w.abandon = context.WithCancel(context.Background())
	return w
}

// hold lets a connection wait. then does the waiting, and returns whether the
// connection is let in; if it is not, then has closed it. hold itself returns false.
func (a *Acceptor) hold(c *Conn, then func(*Conn) bool) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting.number++
	held := *c
	go func() {
		admitted := then(&held)
		a.mu.Lock()
		defer a.mu.Unlock()
		a.waiting.number--
		if admitted {
			a.waiting.ready = append(a.waiting.ready, &held)
		}
		a.waiting.changed.Broadcast()
		a.wake()
		a.closeWake()
	}()
	return false
}

// wake ends the poll that may be under way. The lock is held.
func (a *Acceptor) wake() {
	one := [8]byte{1} // any number but 0 and the highest will do, eventfd(2)
	_, _ = unix.Write(a.waiting.wake, one[:])
}

// closeWake closes the eventfd when nobody will use it any more. The lock is held.
func (a *Acceptor) closeWake() {
	if a.closed && a.waiting.number == 0 && a.waiting.wake >= 0 {
		_ = unix.Close(a.waiting.wake)
		a.waiting.wake = -1
	}
}

// take stores a connection that has waited in c, if there is one, and tells whether
// there is room for more that wait.
func (a *Acceptor) take(c *Conn) (taken, room bool) {
	var counter [8]byte
	_, _ = unix.Read(a.waiting.wake, counter[:])
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.pop(c), a.waiting.number < maxWaiting
}

// pop is take with the lock held.
func (a *Acceptor) pop(c *Conn) bool {
	w := &a.waiting
	if len(w.ready) == 0 {
		return false
	}
	*c = *w.ready[0]
	w.ready[0] = nil
	if w.ready = w.ready[1:]; len(w.ready) > 0 {
		a.wake() // for the next poll
	}
	return true
}

// crowded tells whether so many wait that none may because it comes too early.
func (a *Acceptor) crowded() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.waiting.number >= maxEarly
}

// stopped is called when nothing more is to be accepted, for now or for good. It waits
// for a connection that has waited, which it stores in c, until accepting goes on, or
// until nothing is left that waits, and returns ErrStopped then.
func (a *Acceptor) stopped(c *Conn) (waited bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for {
		switch {
		case a.pop(c):
			return true, nil
		case a.ended && a.waiting.number == 0:
			return false, ErrStopped
		case !a.ended && !a.paused:
			return false, nil
		}
		a.waiting.changed.Wait()
	}
}

// Abandon closes, after Stop, the connections that still wait, and those that have waited
// and were not returned yet. They are told to Events as refused.
func (a *Acceptor) Abandon() {
	a.waiting.abandon()
	a.mu.Lock()
	for a.waiting.number > 0 {
		a.waiting.changed.Wait()
	}
	ready := a.waiting.ready
	a.waiting.ready = nil
	a.mu.Unlock()
	for _, c := range ready {
		a.refused(c, Abandoned)
	}
}

// Waiting returns how many connections were accepted, wait, and were not returned by
// Accept yet.
func (a *Acceptor) Waiting() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.waiting.number + len(a.waiting.ready)
}

// Abandoned is the reason why connections are closed that still wait at the end.
var Abandoned = Refusal{RefusedAtEnd, "the service ends"}
