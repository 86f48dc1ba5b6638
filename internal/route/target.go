//go:build linux

package route

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/scm"
)

// target is a queue that the table names.
type target struct {
	name    string
	queue   Queue         // nil: nobody is there
	closed  chan struct{} // with the queue
	waiting []*Connection // for room, or for somebody to be there
	again   time.Time     // when to try again, if poll would not tell; zero: poll does
	pause   time.Duration // before that
	absence time.Duration // the pause before it is opened again
	sent    int
	dead    bool          // nobody will ever be there
	dropped bool          // the table does not name it any more
	over    chan struct{} // closed when it is given up
}

// attach makes queue that of the target.
func (r *Router) attach(t *target, queue Queue) {
	t.queue, t.closed = queue, make(chan struct{})
	if gone := queue.Gone(); gone != nil {
		closed := t.closed
		go func() {
			select {
			case <-gone:
				r.order(func() {
					if t.queue == queue {
						r.forsake(t)
					}
				})
			case <-closed:
			}
		}()
	}
	r.flush(t)
}

// deliver sends a connection to a queue, behind those that wait for it.
func (r *Router) deliver(c *Connection, name string) {
	t := r.targets[name]
	payload, fits := c.withKey()
	if c.Payload = payload; !fits {
		r.often("large", func() error {
			return fmt.Errorf("%s is left out of a message: with it, its variables have more than %d bytes", keyName, scm.MaxPayload)
		})
	}
	if t.dead {
		r.refuse(c, RefusedNoQueue)
		return
	}
	if len(c.Payload) == 0 {
		c.Payload = []byte{0} // a foreign sender may leave it out
	}
	t.waiting = append(t.waiting, c)
	r.held += len(c.FDs)
	if len(t.waiting) == 1 {
		r.flush(t)
	}
}

// flush sends what waits for a queue, as long as there is room.
func (r *Router) flush(t *target) {
	for t.queue != nil && len(t.waiting) > 0 && t.again.IsZero() {
		c := t.waiting[0]
		err := t.queue.SendNow(c.Payload, c.FDs...)
		switch {
		case err == nil:
			t.sent++
			t.pause, t.absence = 0, 0
			r.next(t)
			if r.Sent != nil {
				r.Sent(c, t.name)
			}
			c.close()
		case errors.Is(err, scm.ErrGone):
			r.forsake(t)
			return
		case errors.Is(err, unix.EAGAIN):
			r.poll(t, true)
			return
		case errors.Is(err, unix.ETOOMANYREFS), errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ENOMEM):
			// POLLOUT stays true, so only time can be waited for.
			r.poll(t, false)
			t.pause = min(max(2*t.pause, time.Millisecond), 50*time.Millisecond)
			r.rest(t)
			return
		default:
			r.fail(r.next(t), RefusedSending, "cannot send a connection to queue "+t.name, err)
		}
	}
	if len(t.waiting) == 0 {
		r.poll(t, false)
		r.retire(t)
	}
}

// next takes out the connection that has waited longest for a queue.
func (r *Router) next(t *target) *Connection {
	c := t.waiting[0]
	t.waiting[0] = nil
	if t.waiting = t.waiting[1:]; len(t.waiting) == 0 {
		t.waiting = nil
	}
	r.held -= len(c.FDs)
	return c
}

// fail closes a connection that something has failed for.
func (r *Router) fail(c *Connection, reason, what string, err error) {
	r.often(what, func() error { return fmt.Errorf("%s: %w", what, err) })
	r.refuse(c, reason)
}

// poll makes epoll tell when the queue has room, or not.
func (r *Router) poll(t *target, on bool) {
	if t.queue == nil || on == (r.polled[int32(t.queue.FD())] == t) {
		return
	}
	fd := int32(t.queue.FD())
	if !on {
		delete(r.polled, fd)
		_ = unix.EpollCtl(r.epoll, unix.EPOLL_CTL_DEL, int(fd), nil)
		return
	}
	if unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, int(fd), &unix.EpollEvent{Events: unix.EPOLLOUT, Fd: fd}) != nil {
		t.pause = 50 * time.Millisecond // no memory
		r.rest(t)
		return
	}
	r.polled[fd] = t
}

// rest lets a queue be tried again after its pause.
func (r *Router) rest(t *target) {
	t.again = time.Now().Add(t.pause)
	r.pausing[t] = struct{}{}
}

// resume tries queues again whose pause is over.
func (r *Router) resume(now time.Time) {
	for t := range r.pausing {
		if !now.Before(t.again) {
			r.rested(t)
			r.flush(t)
		}
	}
}

func (r *Router) rested(t *target) {
	t.again = time.Time{}
	delete(r.pausing, t)
}

// forsake gives up a queue that has no receiver any more, and waits for the next one.
func (r *Router) forsake(t *target) {
	r.poll(t, false)
	r.rested(t)
	close(t.closed)
	lost, _ := t.queue.Close()
	t.queue = nil
	if lost > 0 {
		r.lose(lost, fmt.Errorf("queue %s has no receiver any more: closed %d messages in it", t.name, lost))
	} else {
		r.often("gone "+t.name, func() error { return fmt.Errorf("queue %s has no receiver any more", t.name) })
	}
	r.reopen(t)
	r.retire(t)
}

// reopen waits in the background for somebody to be at a queue.
func (r *Router) reopen(t *target) {
	pause := t.absence
	t.absence = min(max(2*t.absence, 10*time.Millisecond), time.Second)
	go func() {
		select {
		case <-time.After(pause):
		case <-t.over:
		}
		queue, err := r.await(t)
		installed := r.ask(func() {
			switch {
			case r.targets[t.name] != t: // it was retired meanwhile
			case err == nil:
				r.attach(t, queue)
				queue = nil
			case errors.Is(err, scm.ErrGone):
				t.dead = true
				if !t.dropped {
					r.trouble(fmt.Errorf("queue %s has no receiver any more, and cannot be opened again", t.name))
				}
				r.refuseAll(t, RefusedNoQueue)
				r.retire(t)
			}
		})
		if err == nil && (!installed || queue != nil) {
			_, _ = queue.Close()
		}
	}()
}

// await opens the queue when somebody is there.
func (r *Router) await(t *target) (Queue, error) {
	for said := ""; ; {
		queue, err := r.Open(t.name, true, t.over)
		if err == nil || errors.Is(err, scm.ErrGone) {
			return queue, err
		}
		select {
		case <-t.over:
			return nil, err
		case <-r.finished():
			return nil, err
		case <-time.After(time.Second):
		}
		if text := err.Error(); text != said {
			said = text
			r.order(func() { r.trouble(fmt.Errorf("%w; trying again", err)) })
		}
	}
}

func (r *Router) refuseAll(t *target, reason string) {
	for len(t.waiting) > 0 {
		r.refuse(r.next(t), reason)
	}
}

// deserted tells whether no queue is left that could have a receiver.
func (r *Router) deserted() bool {
	for _, t := range r.targets {
		if !t.dead {
			return false
		}
	}
	return true
}
