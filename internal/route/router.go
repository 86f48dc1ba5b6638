//go:build linux

package route

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/interrupt"
	"fdkit/internal/scm"
)

// Router sends each connection that it receives to the queue of its key. One thread waits
// for all: for connections, for what clients send, and for queues that are full. Fields
// must not be changed after Run was called.
type Router struct {
	By      *By
	Consume bool // take the key from the stream
	// MaxWaiting is how many descriptors wait at once, for their key or for a queue.
	MaxWaiting int
	Timeout    time.Duration // how long a client has for its key
	// Silent is the queue for clients who have sent nothing when their time is up; "":
	// they are closed.
	Silent string

	// Receive receives the next message if there is one. Its error is io.EOF at the end.
	// Input is readable, poll(2), if there may be one.
	Receive func(*scm.Message) (bool, error)
	Input   int
	// Open opens a queue. If nobody is there the error wraps ErrAbsent, or with wait it
	// waits until stop is closed. It wraps scm.ErrGone if nobody ever will be.
	Open func(name string, wait bool, stop <-chan struct{}) (Queue, error)

	// Sent is told of each connection that is in its queue, Refused of each that is
	// closed, Lost of those that came without their descriptor or were in a queue whose
	// receivers have gone, and Trouble of all else that goes wrong. Run's goroutine calls
	// them; they must not keep the Connection.
	Sent    func(c *Connection, queue string)
	Refused func(c *Connection, reason string)
	Lost    func(connections int, why error)
	Trouble func(error)

	mu      sync.Mutex // for what other goroutines order
	orders  []func()
	wake    int           // an eventfd: there are orders; 0: Run is not there
	done    chan struct{} // closed when Run has returned
	retired retirement

	table     *Table
	targets   map[string]*target
	polled    map[int32]*target    // those that epoll tells of, by descriptor
	pausing   map[*target]struct{} // those that are to be tried again at a time
	epoll     int
	listening bool                  // epoll tells of Input
	clients   map[int32]*Connection // that wait for their key, by descriptor
	arrivals  list.List             // the same, the one that has waited longest first
	serial    int32                 // of the last client
	held      int                   // descriptors that wait
	keyless   int                   // of them, those of clients
	buffer    []byte                // what clients have sent is looked at here
	message   scm.Message
	told      map[string]time.Time // when something was said last that may come often
	ended     bool                 // nothing more will come
	limit     time.Time            // when no key is waited for any more; zero: never
	aborted   bool
}

// Queue is a queue that connections are sent to, as package fdsend has it.
type Queue interface {
	FD() int
	SendNow(payload []byte, fds ...int) error
	Gone() <-chan struct{}
	Drain(ctx context.Context) error
	Close() (lost int, err error)
}

// ErrAbsent is wrapped by the error of Open if a program is yet to come.
var ErrAbsent = errors.New("nobody is there")

// Why connections are closed.
const (
	RefusedTimeout = "timeout"    // its time was up
	RefusedCrowded = "crowded"    // too many waited, and it had waited longest
	RefusedGone    = "gone"       // the client has hung up before its key was there
	RefusedNoRoute = "no-route"   // no route has its key
	RefusedNoQueue = "queue-gone" // its queue has no receiver, and never will
	RefusedSending = "sending"    // its queue did not take it
	RefusedAtEnd   = "ended"      // it had to wait, and the end has come
)

// Reasons are all of them.
var Reasons = []string{RefusedTimeout, RefusedCrowded, RefusedGone, RefusedNoRoute, RefusedNoQueue, RefusedSending, RefusedAtEnd}

const (
	// batch is how many messages are received in a row, before clients have their turn.
	batch = 64
	// talkative is the time between two lines about what may come again and again.
	talkative = 10 * time.Second

	// What epoll tells of besides clients, which have a serial number.
	wakeID  = -1
	inputID = -2
)

// Run routes connections until the input has ended or Stop is called, and nothing waits
// any more, or until no queue is left. SetTable must have been called.
func (r *Router) Run() error {
	defer close(r.finished())
	if err := r.prepare(); err != nil {
		return err
	}
	defer unix.Close(r.epoll)
	defer r.release()
	for {
		now := time.Now()
		r.obey()
		r.expire(now)
		r.resume(now)
		if r.over() {
			return nil
		}
		if err := r.wait(); err != nil {
			return err
		}
	}
}

func (r *Router) prepare() (err error) {
	if r.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		err = unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, wake, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: wakeID})
	}
	if err != nil {
		_ = unix.Close(r.epoll)
		_ = unix.Close(wake) // or -1
		return os.NewSyscallError("eventfd", err)
	}
	r.clients, r.told = map[int32]*Connection{}, map[string]time.Time{}
	r.buffer = make([]byte, r.By.Limit)
	r.mu.Lock()
	r.wake = wake
	r.mu.Unlock()
	return nil
}

// release closes what still waits.
func (r *Router) release() {
	for r.arrivals.Len() > 0 {
		c := r.oldest()
		r.forget(c)
		r.refuse(c, RefusedAtEnd)
	}
	for _, t := range r.targets {
		r.refuseAll(t, RefusedAtEnd)
	}
	r.mu.Lock()
	_ = unix.Close(r.wake)
	r.wake = 0
	r.mu.Unlock()
}

// over tells whether all is done.
func (r *Router) over() bool {
	if r.aborted || r.deserted() {
		return true
	}
	return r.ended && r.held == 0
}

// order makes Run's goroutine call f. After Run nobody does.
func (r *Router) order(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.orders = append(r.orders, f)
	if r.wake > 0 {
		one := [8]byte{1} // any number but 0 and the highest will do, eventfd(2)
		_, _ = unix.Write(r.wake, one[:])
	}
}

// obey does what was ordered.
func (r *Router) obey() {
	var counter [8]byte
	_, _ = unix.Read(r.wake, counter[:])
	r.mu.Lock()
	orders := r.orders
	r.orders = nil
	r.mu.Unlock()
	for _, order := range orders {
		order()
	}
}

// finished returns a channel that is closed when Run has returned.
func (r *Router) finished() chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done == nil {
		r.done = make(chan struct{})
	}
	return r.done
}

// ask is order that waits. It returns false if Run has returned before.
func (r *Router) ask(f func()) bool {
	answered := make(chan struct{})
	r.order(func() {
		f()
		close(answered)
	})
	select {
	case <-answered:
		return true
	case <-r.finished():
		return false
	}
}

// Stop lets Run receive nothing more, and wait at most for patience for keys. What waits
// for a queue is still sent.
func (r *Router) Stop(patience time.Duration) {
	r.order(func() {
		r.ended = true
		r.limit = time.Now().Add(patience)
	})
}

// Abort ends Run at once. What waits is closed.
func (r *Router) Abort() { r.order(func() { r.aborted = true }) }

// wait sleeps until there is something to do, and does it.
func (r *Router) wait() error {
	if err := r.listen(!r.ended && r.room()); err != nil {
		return err
	}
	timeout := -1
	if due := r.due(); !due.IsZero() {
		timeout = int(max(0, time.Until(due).Milliseconds()+1))
	}
	var events [256]unix.EpollEvent
	n, err := unix.EpollWait(r.epoll, events[:], timeout)
	if err != nil && err != unix.EINTR {
		return os.NewSyscallError("epoll_wait", err)
	}
	input := false
	for _, e := range events[:max(n, 0)] {
		switch {
		case e.Pad != 0:
			if c := r.clients[e.Fd]; c != nil && c.serial == e.Pad {
				r.attend(c, e.Events)
			}
		case e.Fd == inputID:
			input = true
		case e.Fd != wakeID:
			if t := r.polled[e.Fd]; t != nil {
				r.flush(t)
			}
		}
	}
	if input {
		return r.receive()
	}
	return nil
}

// listen makes epoll tell of the input, or not. Not to ask for events is not enough, as
// the end of a queue is always told.
func (r *Router) listen(on bool) error {
	if on == r.listening {
		return nil
	}
	r.listening = on
	if !on {
		return os.NewSyscallError("epoll_ctl", unix.EpollCtl(r.epoll, unix.EPOLL_CTL_DEL, r.Input, nil))
	}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, r.Input,
		&unix.EpollEvent{Events: unix.EPOLLIN, Fd: inputID}))
}

// room tells whether a further connection can be received. If there are many clients
// without a key, the one that has waited longest makes room. They do not for connections
// that wait for full queues: those would let no client have its time.
func (r *Router) room() bool { return r.held < r.MaxWaiting || r.keyless > r.MaxWaiting/2 }

// receive receives connections, some at a time.
func (r *Router) receive() error {
	for range batch {
		if r.ended || !r.room() {
			break
		}
		came, err := r.Receive(&r.message)
		_, lost := errors.AsType[*scm.LostError](err)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, interrupt.ErrStopped):
			r.ended = true
		case lost:
			r.lose(1, fmt.Errorf("a connection is lost: %w", err))
		case err != nil:
			return fmt.Errorf("cannot receive: %w", err)
		case !came:
			return nil
		case len(r.message.FDs) == 0:
			r.trouble(errors.New("a message came without a descriptor"))
		default:
			r.admit(&r.message)
			// Also for one with a key, if its queue is full: else there is no bound.
			for r.held > r.MaxWaiting && r.keyless > r.MaxWaiting/2 {
				r.giveUp(r.oldest(), RefusedCrowded)
			}
		}
	}
	if !r.room() {
		r.often("full", func() error {
			return fmt.Errorf("receiving pauses: %d descriptors wait, most of them for queues that are full", r.held)
		})
	}
	return nil
}

func (r *Router) lose(n int, why error) {
	if r.Lost != nil {
		r.Lost(n, why)
	}
}

func (r *Router) trouble(err error) {
	if r.Trouble != nil {
		r.Trouble(err)
	}
}

// often is trouble about what may come again and again: it is said at most every ten
// seconds.
func (r *Router) often(what string, err func() error) {
	if last, said := r.told[what]; said && time.Since(last) < talkative {
		return
	}
	r.told[what] = time.Now()
	r.trouble(err())
}

// due returns when something is to be done even if nothing happens; zero: never.
func (r *Router) due() (at time.Time) {
	sooner := func(t time.Time) {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	if c := r.oldest(); c != nil {
		sooner(r.deadline(c))
	}
	for t := range r.pausing {
		sooner(t.again)
	}
	return at
}
