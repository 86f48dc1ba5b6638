//go:build linux

package exec

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/interrupt"
	"fdkit/internal/thread"
)

// Workers keeps resident programs running and hands connections to them, each as a
// message on a private AF_UNIX SOCK_SEQPACKET queue, fdkit-protocol(7). Fields must not
// be changed after Run was called.
//
// A worker that misbehaves harms only its own queue. What it has not received is
// handed to another worker when it ends, and also if it is stopped or busy for too
// long. Run reaps all children of the process, as Pool's does.
type Workers struct {
	Program *Program
	Confine Confinement
	Environ []string // what workers inherit, NAME=VALUE
	N       int      // workers; with Key, at most so many
	QueueFD int      // where a worker finds its queue
	Balance Balance
	// Key is the variable of the messages for each of whose values there is one
	// worker, started when the first connection comes; "": none. In the
	// environment of the worker it has the value.
	Key string
	// Idle is after how long without a connection the worker of a key is told to
	// end. 0: never.
	Idle time.Duration
	// MaxRequests and MaxAge replace a worker after so many connections, or so much
	// time: a new one is started first, and the old one told to end. 0: never.
	MaxRequests int
	MaxAge      time.Duration
	// ReadyTimeout, if not 0, says that workers send READY when they can receive:
	// one that does not in that time, or that leaves a connection in its queue for
	// so long while no other worker can have it, is killed.
	ReadyTimeout time.Duration
	// Receive receives the next connection if there is one. Its error is io.EOF at the
	// end; of others Lost tells whether the next can be received. Queue is readable,
	// poll(2), if there may be one.
	Receive func(c *Connection) (bool, error)
	Queue   int
	Lost    func(error) bool
	// Share gives the workers Queue itself, and receives nothing.
	Share bool

	// Started, Ready and Ended are told of each worker, Trouble of each connection
	// that is lost, of pauses and of workers that misbehave. They may be nil, and are
	// called by Run's goroutine.
	Started func(*Worker)
	Ended   func(*Worker, syscall.WaitStatus)
	Trouble func(error)

	mu      sync.Mutex // for what other goroutines ask or order
	orders  []func()
	running int
	done    chan struct{} // closed when Run has returned

	wake     int // an eventfd: there are orders
	poked    bool
	epoll    int // workers say something
	receipts int // workers have received something
	spawner  *spawner
	workers  map[int32]*Worker // by id, those whose process lives
	byPID    map[int]*Worker
	places   []*place // without Key
	keys     map[string]*place
	ready    []*place // that can have a connection, the one that has waited longest first
	back     []parcel // taken back from workers, to be handed out first
	next     int32
	lease    uint64
	due      time.Time // when something is to be looked at; zero: never
	short    time.Time // since when only slow workers can have a connection; zero: others can
	untried  bool      // there may be a connection in Queue
	reaping  interrupt.Calls
	spawned  chan struct{}
	searches bool       // somebody is searched for who holds a queue
	searchAt time.Time  // until then nobody is
	stopping bool       // nothing is received any more
	hasty    bool       // and no worker is started any more
	ended    bool       // the queue has ended
	payload  []byte     // of the message being sent
	came     Connection // that was received last
}

// wakeID stands for the eventfd among the ids of workers.
const wakeID = -1

// Balance is how the worker for a connection is chosen.
type Balance int

const (
	// Fifo chooses, of the workers with an empty queue, the one whose last connection
	// is the longest ago.
	Fifo Balance = iota
	// Least chooses of those the one with the fewest connections that it has not said
	// DONE to; if workers do not say it, with the fewest open descriptors.
	Least
	// HashSource and HashKey choose always the same worker for the same client
	// (address, or user of a Unix socket), or the same FDKIT_KEY.
	HashSource
	HashKey
)

// parcel is a connection on its way to a worker.
type parcel struct {
	fds     []int
	payload []byte
}

func (p parcel) close() {
	for _, fd := range p.fds {
		_ = unix.Close(fd)
	}
}

// Run runs the workers until the queue ends or Stop is called, and waits for them to
// end.
func (w *Workers) Run() (failure error) {
	defer close(w.finished())
	if err := CloseOnExec(3); err != nil {
		return err
	}
	if w.spawner, failure = newSpawner(w.Program, &w.Confine); failure != nil {
		return failure
	}
	if err := w.prepare(); err != nil {
		return err
	}
	defer unix.Close(w.epoll)
	defer unix.Close(w.receipts)
	w.spawned = make(chan struct{}, 1)
	defer func() {
		w.mu.Lock()
		_ = unix.Close(w.wake)
		w.wake = 0
		w.mu.Unlock()
	}()
	quit := make(chan struct{})
	var reaper sync.WaitGroup
	reaper.Go(func() { w.reap(quit) })
	defer func() {
		close(quit)
		w.reaping.Stop()
		reaper.Wait() // children that are made from here on are somebody else's
	}()
	for _, p := range w.places {
		w.start(p)
	}
	var turn thread.Turn
	for {
		now := time.Now()
		w.obey()
		w.look(now)
		if err := w.handOut(); err != nil {
			w.ended, failure = true, err
		}
		if w.over() { // behind handOut, which may have seen the end: nothing else tells of it
			return failure
		}
		turn.Yield(now)
		if err := w.wait(); err != nil {
			return err
		}
	}
}

func (w *Workers) prepare() (err error) {
	if w.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	if w.receipts, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		_ = unix.Close(w.epoll)
		return os.NewSyscallError("epoll_create1", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		err = unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, wake, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: wakeID})
	}
	if err != nil {
		_ = unix.Close(w.epoll)
		_ = unix.Close(w.receipts)
		_ = unix.Close(wake) // or -1
		return os.NewSyscallError("eventfd", err)
	}
	w.mu.Lock()
	w.wake, w.poked = wake, true // what was ordered before counts
	w.mu.Unlock()
	w.workers, w.byPID, w.keys = map[int32]*Worker{}, map[int]*Worker{}, map[string]*place{}
	if w.Key == "" {
		for i := range w.N {
			w.places = append(w.places, &place{index: i})
		}
	}
	return nil
}

// over tells whether all is done. When nothing is received any more, the workers are
// told to end as soon as every connection is in one of their queues.
func (w *Workers) over() bool {
	if !w.stopping && !w.ended {
		return false
	}
	// Workers that share the queue see its end themselves, behind what is in it.
	if w.held() == 0 && (w.stopping || !w.Share) {
		for _, worker := range w.workers {
			w.retire(worker)
		}
	}
	if len(w.workers) > 0 || w.held() > 0 && !w.hasty {
		return false
	}
	lost := w.back
	for _, p := range w.keys {
		lost = append(lost, p.waiting...)
	}
	for _, p := range w.places {
		lost = append(lost, p.waiting...)
	}
	for _, p := range lost {
		p.close()
		w.trouble(&LostError{errors.New("it was to end before a worker could have it")})
	}
	return true
}

// handOut gives connections to workers as long as there are both.
func (w *Workers) handOut() error {
	for !w.Share && !w.hasty {
		for len(w.back) > 0 {
			if !w.deliver(w.back[0]) {
				return nil
			}
			w.back = w.back[1:]
		}
		if w.stopping || w.ended {
			return nil
		}
		switch {
		case !w.room():
			w.untried = true // Queue is not polled meanwhile
			return nil
		case !w.untried:
			return nil
		}
		// Most come alone, and then recvmsg(2) would find no further one: poll(2) that
		// waits for it tells as well.
		w.untried = false
		c := &w.came // Receive lets it escape
		*c = Connection{}
		came, err := w.Receive(c)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, interrupt.ErrStopped):
			w.ended = true
			return nil
		case err != nil && w.Lost != nil && w.Lost(err):
			w.trouble(&LostError{err})
			continue
		case err != nil:
			return err
		case !came:
			return nil
		case len(c.FDs) == 0:
			w.trouble(errors.New("a message came without a descriptor"))
			continue
		}
		p := parcel{fds: c.FDs, payload: withoutLease(c.Payload)}
		if !w.deliver(p) {
			w.back = append(w.back, p.keep())
		}
	}
	return nil
}

// keep returns a copy that does not change when the next connection is received.
func (p parcel) keep() parcel {
	return parcel{append([]int(nil), p.fds...), append([]byte(nil), p.payload...)}
}

// wait sleeps until there is something to do. That a worker has received something is
// no such thing as long as another one is free: it would cost two wake-ups for each
// connection instead of one.
func (w *Workers) wait() error {
	// While a connection waits for a worker, receipts are what is waited for. Else they are
	// looked at before, as the next connection would have to wait for that.
	waits := w.held() > 0
	if !w.Share && !waits {
		if err := w.events(w.receipts, w.settle); err != nil {
			return err
		}
	}
	var fds [3]unix.PollFd
	watched := append(fds[:0], unix.PollFd{Fd: int32(w.epoll), Events: unix.POLLIN})
	held := w.held() > 0
	room := w.room()
	if held || !room {
		watched = append(watched, unix.PollFd{Fd: int32(w.receipts), Events: unix.POLLIN})
	}
	switch {
	case w.stopping || w.ended:
	case w.Share: // its end, POLLHUP, is waited for
		watched = append(watched, unix.PollFd{Fd: int32(w.Queue)})
	case len(w.back) == 0 && room:
		watched = append(watched, unix.PollFd{Fd: int32(w.Queue), Events: unix.POLLIN})
	}
	timeout := -1
	if !w.due.IsZero() {
		timeout = int(max(0, time.Until(w.due).Milliseconds()+1))
	}
	if _, err := unix.Poll(watched, timeout); err != nil && err != unix.EINTR {
		return os.NewSyscallError("poll", err)
	}
	if last := watched[len(watched)-1]; int(last.Fd) == w.Queue && last.Revents != 0 {
		if w.untried = true; w.Share && last.Revents&unix.POLLHUP != 0 {
			w.ended = true // the workers see it themselves
		}
	}
	if waits {
		if err := w.events(w.receipts, w.settle); err != nil {
			return err
		}
	}
	if watched[0].Revents == 0 {
		return nil
	}
	return w.events(w.epoll, w.attend)
}

// events calls do for each worker of which there is something in the epoll.
func (w *Workers) events(epoll int, do func(*Worker)) error {
	var events [64]unix.EpollEvent
	n, err := unix.EpollWait(epoll, events[:], 0)
	if err != nil && err != unix.EINTR {
		return os.NewSyscallError("epoll_wait", err)
	}
	for _, e := range events[:max(n, 0)] {
		if worker := w.workers[e.Fd]; worker != nil {
			do(worker)
		} else if e.Fd == wakeID {
			w.poked = true
		}
	}
	return nil
}

func (w *Workers) trouble(err error) {
	if w.Trouble != nil {
		w.Trouble(err)
	}
}

// remind makes Run's goroutine look at the workers at that time.
func (w *Workers) remind(at time.Time) {
	if w.due.IsZero() || at.Before(w.due) {
		w.due = at
	}
}
