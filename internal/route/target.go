//go:build linux

package route

import (
	"context"
	"errors"
	"fmt"
	"sync"
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
	polled  bool          // epoll tells when there is room
	again   time.Time     // when to try again, if poll would not tell; zero: poll does
	pause   time.Duration
	sent    int
	dead    bool // nobody will ever be there
	dropped bool // the table does not name it any more
	over    chan struct{} // closed when it is given up
}

// retirement has the queues that no route has any more, until they are empty.
type retirement struct {
	group sync.WaitGroup
	ctx   context.Context
	end   context.CancelFunc
	mu    sync.Mutex
	lost  int
}

// SetTable makes that the table, and opens its queues. If one cannot be opened, that is
// the error, and the table stays as it was. Programs who are yet to come are waited for
// afterwards. It ends when stop is closed. One goroutine at a time may call it.
func (r *Router) SetTable(table *Table, stop <-chan struct{}) error {
	opened := map[string]*target{}
	names := table.Queues()
	if r.Silent != "" {
		names = append(names, r.Silent)
	}
	for _, name := range names {
		if r.has(name) || opened[name] != nil {
			continue
		}
		t := &target{name: name, over: make(chan struct{})}
		queue, err := r.Open(name, false, stop)
		if err != nil && !errors.Is(err, ErrAbsent) {
			for _, t := range opened {
				if t.queue != nil {
					_, _ = t.queue.Close()
				}
			}
			return err
		}
		if t.queue = queue; err != nil {
			t.queue = nil
		}
		opened[name] = t
	}
	if r.targets == nil { // before Run
		r.retired.ctx, r.retired.end = context.WithCancel(context.Background())
		r.targets = map[string]*target{}
		r.install(table, opened)
		return nil
	}
	if !r.ask(func() { r.install(table, opened) }) {
		for _, t := range opened {
			if t.queue != nil {
				_, _ = t.queue.Close()
			}
		}
	}
	return nil
}

// has tells whether the queue is one of those that are open.
func (r *Router) has(name string) (has bool) {
	if r.targets != nil {
		r.ask(func() { has = r.targets[name] != nil })
	}
	return has
}

// install goes by another table, whose further queues were opened.
func (r *Router) install(table *Table, opened map[string]*target) {
	r.table = table
	for name, t := range opened {
		r.targets[name] = t
		if t.queue == nil {
			r.reopen(t)
		} else {
			r.attach(t, t.queue)
		}
	}
	named := map[string]bool{r.Silent: true}
	for _, name := range table.Queues() {
		named[name] = true
	}
	for _, t := range r.targets {
		t.dropped = !named[t.name]
		r.retire(t)
	}
}

// attach makes queue that of the target.
func (r *Router) attach(t *target, queue Queue) {
	t.queue, t.closed, t.pause = queue, make(chan struct{}), 0
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
	if r.Routed != nil {
		r.Routed(c, name)
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
			t.pause = 0
			r.next(t).close()
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
			t.again = time.Now().Add(t.pause)
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
	if t.polled == on {
		return
	}
	t.polled = on
	if !on {
		_ = unix.EpollCtl(r.epoll, unix.EPOLL_CTL_DEL, t.queue.FD(), nil)
		return
	}
	err := unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, t.queue.FD(), &unix.EpollEvent{Events: unix.EPOLLOUT, Fd: int32(t.queue.FD())})
	if err != nil { // no memory
		t.polled = false
		t.again = time.Now().Add(50 * time.Millisecond)
	}
}

// writable sends what waits for the queue with that descriptor.
func (r *Router) writable(fd int32) {
	for _, t := range r.targets {
		if t.polled && t.queue.FD() == int(fd) {
			r.flush(t)
			return
		}
	}
}

// resume tries queues again whose pause is over.
func (r *Router) resume(now time.Time) {
	for _, t := range r.targets {
		if !t.again.IsZero() && !now.Before(t.again) {
			t.again = time.Time{}
			r.flush(t)
		}
	}
}

// forsake gives up a queue that has no receiver any more, and waits for the next one.
func (r *Router) forsake(t *target) {
	r.poll(t, false)
	close(t.closed)
	lost, _ := t.queue.Close()
	t.queue, t.again = nil, time.Time{}
	if lost > 0 {
		r.trouble(fmt.Errorf("queue %s has no receiver any more: closed %d messages in it", t.name, lost))
	}
	if t.dropped && len(t.waiting) == 0 {
		r.retire(t)
		return
	}
	r.reopen(t)
}

// reopen waits in the background for somebody to be at a queue.
func (r *Router) reopen(t *target) {
	go func() {
		queue, err := r.await(t)
		installed := r.ask(func() {
			switch {
			case err == nil && r.targets[t.name] == t:
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

// retire gives up a queue that no route has, and that nothing waits for. It is closed when
// what was sent to it is received.
func (r *Router) retire(t *target) {
	if !t.dropped || len(t.waiting) > 0 {
		return
	}
	delete(r.targets, t.name)
	close(t.over)
	queue := t.queue
	if queue == nil {
		return
	}
	r.poll(t, false)
	close(t.closed)
	t.queue = nil
	r.retired.group.Go(func() {
		_ = queue.Drain(r.retired.ctx)
		lost, _ := queue.Close()
		r.retired.mu.Lock()
		r.retired.lost += lost
		r.retired.mu.Unlock()
	})
}

// Drain waits, after Run, until what was sent is received, or safe with others, or until
// ctx ends.
func (r *Router) Drain(ctx context.Context) {
	for _, t := range r.targets {
		if t.queue != nil {
			_ = t.queue.Drain(ctx)
		}
	}
	retired := make(chan struct{})
	go func() {
		r.retired.group.Wait()
		close(retired)
	}()
	select {
	case <-retired:
	case <-ctx.Done():
	}
}

// Close gives up all queues, after Run. It returns how many messages in them were lost.
func (r *Router) Close() (lost int, err error) {
	for _, t := range r.targets {
		close(t.over)
		if t.queue != nil {
			close(t.closed)
			n, closeErr := t.queue.Close()
			lost += n
			err = errors.Join(err, closeErr)
		}
	}
	r.targets = nil
	r.retired.end()
	r.retired.group.Wait()
	return lost + r.retired.lost, err
}

// Status is what a Router does.
type Status struct {
	Keyless int // clients that wait for their key
	Queues  []QueueStatus
}

// QueueStatus is that of one queue.
type QueueStatus struct {
	Name    string
	Sent    int // connections
	Waiting int // connections
	Absent  bool
}

// Status returns what the Router does, in the order of the queues' names, while it runs.
func (r *Router) Status() (s Status) {
	r.ask(func() {
		s.Keyless = r.arrivals.Len()
		for _, t := range r.targets {
			s.Queues = append(s.Queues, QueueStatus{t.name, t.sent, len(t.waiting), t.queue == nil})
		}
	})
	return s
}
