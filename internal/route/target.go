//go:build linux

package route

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
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
	again   time.Time     // when to try again, if poll would not tell; zero: poll does
	pause   time.Duration // before that
	absence time.Duration // the pause before it is opened again
	sent    int
	dead    bool          // nobody will ever be there
	dropped bool          // the table does not name it any more
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
	names := table.Queues()
	if r.Silent != "" {
		names = append(names, r.Silent)
	}
	opened := map[string]*target{}
	giveUp := func() {
		for _, t := range opened {
			if t.queue != nil {
				_, _ = t.queue.Close()
			}
		}
	}
	do := r.ask
	if r.targets == nil { // before Run
		r.targets, r.polled, r.pausing = map[string]*target{}, map[int32]*target{}, map[*target]struct{}{}
		r.retired.ctx, r.retired.end = context.WithCancel(context.Background())
		do = func(f func()) bool {
			f()
			return true
		}
	}
	for {
		var missing []string
		running := do(func() {
			for _, name := range names {
				if r.targets[name] == nil && opened[name] == nil && !slices.Contains(missing, name) {
					missing = append(missing, name)
				}
			}
			if missing == nil {
				r.install(table, opened)
			}
		})
		if !running {
			giveUp()
		}
		if !running || missing == nil {
			return nil
		}
		for _, name := range missing {
			queue, err := r.Open(name, false, stop)
			switch {
			case err == nil:
				opened[name] = newTarget(name, queue)
			case errors.Is(err, ErrAbsent):
				opened[name] = newTarget(name, nil)
			default:
				giveUp()
				return err
			}
		}
	}
}

func newTarget(name string, queue Queue) *target {
	return &target{name: name, queue: queue, over: make(chan struct{})}
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
		r.trouble(fmt.Errorf("queue %s has no receiver any more: closed %d messages in it", t.name, lost))
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

// retire gives up a queue that no route has, and that nothing waits for. It is closed when
// what was sent to it is received.
func (r *Router) retire(t *target) {
	if !t.dropped || len(t.waiting) > 0 || r.targets[t.name] != t {
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

// Status returns what the Router does, while it runs.
func (r *Router) Status() (s Status) {
	r.ask(func() {
		s.Keyless = r.arrivals.Len()
		for _, t := range r.targets {
			s.Queues = append(s.Queues, QueueStatus{t.name, t.sent, len(t.waiting), t.queue == nil})
		}
	})
	slices.SortFunc(s.Queues, func(a, b QueueStatus) int { return strings.Compare(a.Name, b.Name) })
	return s
}
