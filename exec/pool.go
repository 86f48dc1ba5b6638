//go:build linux

package exec

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/hint"
	"fdkit/internal/interrupt"
	"fdkit/internal/thread"
)

// Connection is what a pool receives.
type Connection struct {
	FDs     []int  // the connection first; the pool owns and closes them
	Payload []byte // the variables that came with it, fdkit-protocol(7)
}

// Pool runs a program for each connection, at most Slots at a time. Fields must
// not be changed after Run was called.
//
// Run reaps all children of the process (wait4(2) with -1), including those that
// something else has started: a process that has a Pool has no other children. Until it
// returns SIGCHLD has its default disposition, and does not come to os/signal.
type Pool struct {
	Program *Program
	Confine Confinement
	Environ *Environ
	Slots   int
	// PerSource and Times limit what clients take up; their zero values do not.
	PerSource SourceLimit
	Times     TimeLimits
	// Receivers returns a function that waits for the next connection and sets all
	// of c. Run calls it once for each goroutine that receives. Its error is io.EOF
	// at the end and fdrecv.ErrStopped when the pool is to stop; errors that wrap
	// neither are told to Trouble if Lost says so, and end the pool otherwise.
	Receivers func() func(c *Connection) error
	// Lost tells whether an error of a receiver means that one connection was
	// lost and the next can be received. It may be nil.
	Lost func(error) bool
	// Full is called when there is no slot for a further connection, and returns
	// when free is closed, which is when there is one. With it a single goroutine
	// receives, so that nothing is received meanwhile. It may be nil.
	Full func(free <-chan struct{})
	// Ready is told when programs can be started and receiving begins. It may be nil.
	Ready func()
	// Started and Ended are told of each program, Limited in between of each that a
	// limit is about to end, and Refused of each connection that gets no program
	// because of a limit, with the reason, such as RefusedPerSource, before it is
	// closed: all of them one at a time. Trouble is told of each connection for
	// which no program could be run, and of pauses. They may be nil, and must not
	// call methods of the Pool.
	Started func(*Run)
	Limited func(*Run)
	Ended   func(*Run)
	Refused func(reason string, c *Connection)
	Trouble func(error)

	mu       sync.Mutex
	endOnce  sync.Once
	stopOnce sync.Once
	told     time.Time      // when a shortage was told
	running  map[int]*Run   // by pid
	early    map[int]ending // programs that ended before they were entered in running
	starting int            // programs being started
	sources  map[source]int // programs by source
	failing  failing
	toldKind bool           // that Times do not apply to all connections
	held     int            // connections held
	spare    int            // of which so many may be held
	ending   chan struct{}  // closed by the first Signal
	signals  int            // how often Signal was called
	signal   syscall.Signal // the last one
	stopping chan struct{}  // closed by Stop
	reaping  interrupt.Calls
	spawned  chan struct{} // tells the reaper that there is a child
	wanted   chan struct{} // tells the reaper that the end of a program is waited for
	begun    time.Time     // when a program was started last
	previous time.Time     // and when the one before: linger goes by it
	slots    chan struct{} // holds a token for each slot in use
}

// LostError tells Trouble of a connection that was received, or should have been, and
// for which no program is run.
type LostError struct{ Err error }

func (e *LostError) Error() string { return "a connection is lost: " + e.Err.Error() }

func (e *LostError) Unwrap() error { return e.Err }

// Run is the run of one program.
type Run struct {
	PID     int
	Env     []string // the program's environment; only in Started
	Begin   time.Time
	Running int    // programs now running
	Limit   string // that ends it, such as LimitIdle; "": none
	// For Ended:
	Status syscall.WaitStatus
	Took   time.Duration // until its end was seen, under load some 10 ms after it
	// Note is for Started to set and for Limited and Ended to read.
	Note any

	watch *watch // nil: no limit asks for one
}

type ending struct {
	status syscall.WaitStatus
	at     time.Time
}

// Run runs programs until the receivers end, and then waits for the programs that
// still run. It is called once.
func (p *Pool) Run() error {
	p.mu.Lock() // Signal, Stop and Running may be called already
	p.running, p.early, p.sources = map[int]*Run{}, map[int]ending{}, map[source]int{}
	p.prepare()
	p.mu.Unlock()
	p.spawned, p.wanted = make(chan struct{}, 1), make(chan struct{}, 1)
	p.slots = make(chan struct{}, p.Slots)
	if err := CloseOnExec(3); err != nil {
		return err
	}
	workers, err := p.workers()
	if err != nil {
		return err
	}
	spawners, err := p.spawners(workers)
	if err != nil {
		return err
	}
	defer quietChildren()()
	done := make(chan struct{})
	var reaper sync.WaitGroup
	reaper.Go(func() { p.reap(done) })
	if p.Ready != nil {
		p.Ready()
	}
	var work sync.WaitGroup
	var failure error
	var once sync.Once
	for i := range workers {
		work.Go(func() {
			if err := p.work(spawners[i], p.Receivers()); err != nil {
				once.Do(func() { failure = err })
			}
		})
	}
	work.Wait()
	for range p.Slots { // every slot is free again
		if !p.slot() {
			p.slots <- struct{}{}
		}
	}
	close(done)
	p.reaping.Stop()
	reaper.Wait() // children that are made from here on are somebody else's
	return failure
}

// spawners returns n spawners, with which a program can be started.
func (p *Pool) spawners(n int) ([]*spawner, error) {
	if err := p.Confine.check(); err != nil {
		return nil, err
	}
	spawners := make([]*spawner, n)
	for i := range spawners {
		var err error
		if spawners[i], err = newSpawner(p.Program, &p.Confine); err != nil {
			return nil, err
		}
	}
	err := spawners[0].try()
	if err == nil {
		return spawners, nil
	}
	if call, ok := errors.AsType[*os.SyscallError](err); ok && (call.Err == unix.EPERM || call.Err == unix.EACCES) {
		err = hint.Wrap(err, "only root may do that")
	} else if !ok && err != errConfine {
		return nil, notRunnable(p.Program.Args[0], err) // the program, as its user sees it
	}
	return nil, fmt.Errorf("cannot confine programs: %w", err)
}

// prepare makes what tells of Signal and Stop. The lock is held.
func (p *Pool) prepare() {
	if p.ending == nil {
		p.ending, p.stopping = make(chan struct{}), make(chan struct{})
	}
}

// closed tells whether the channel, on which nothing is sent, is closed.
func closed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Stop keeps Run from receiving further connections, also after a pause; it does not
// wake receivers, which are to be stopped by their own means.
func (p *Pool) Stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.prepare()
	p.stopOnce.Do(func() { close(p.stopping) })
}

// Signal sends a signal to the process groups of all running programs, and after Stop also
// to those that are started later, on connections that were received before. A connection
// whose program could not be started so far, for want of memory or the like, is closed.
func (p *Pool) Signal(sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.prepare()
	p.endOnce.Do(func() { close(p.ending) })
	p.signals++
	p.signal = sig
	for pid := range p.running {
		_ = unix.Kill(-pid, sig)
	}
}

// Running returns how many programs run.
func (p *Pool) Running() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.running) > 0 {
		p.collect() // the reaper may linger
	}
	return len(p.running)
}

// work receives connections and starts programs, one after the other.
func (p *Pool) work(spawner *spawner, receive func(*Connection) error) error {
	var c Connection
	var env envBlock
	var turn thread.Turn
	for {
		turn.Yield(time.Now())
		p.takeSlot() // nothing is received without a free slot
		if !p.ready() {
			<-p.slots
			return nil
		}
		err := receive(&c)
		started := false
		switch {
		case err == nil:
			started = p.start(&c, spawner, &env)
			for _, fd := range c.FDs {
				_ = unix.Close(fd)
			}
		case errors.Is(err, io.EOF), errors.Is(err, interrupt.ErrStopped):
			<-p.slots
			return nil
		case p.Lost != nil && p.Lost(err):
			p.trouble(&LostError{err})
		default:
			<-p.slots
			return err
		}
		if !started {
			<-p.slots
		}
	}
}

func (p *Pool) takeSlot() {
	switch {
	case p.slot():
	case p.Full == nil:
		p.slots <- struct{}{}
	default:
		free := make(chan struct{})
		go func() {
			p.slots <- struct{}{}
			close(free)
		}()
		p.Full(free)
		<-free
	}
}

func (p *Pool) trouble(err error) {
	if p.Trouble != nil {
		p.Trouble(err)
	}
}

// start starts the program on a connection. It keeps trying while the system is
// short of processes, memory or descriptors. If the run holds the connection, it
// is taken out of c.
func (p *Pool) start(c *Connection, spawner *spawner, env *envBlock) (started bool) {
	if len(c.FDs) == 0 {
		p.trouble(errors.New("a message came without a descriptor"))
		return false
	}
	if extra := len(c.FDs) - 1; extra > 0 {
		p.trouble(fmt.Errorf("a message came with more descriptors than one connection: closed %d", extra))
	}
	fd := c.FDs[0]
	if err := setBlocking(fd); err != nil {
		p.trouble(&LostError{err})
		return false
	}
	source, ok := p.admit(c)
	if !ok {
		return false
	}
	run := &Run{watch: p.watchFor(fd, source)}
	held := run.watch != nil && run.watch.fd >= 0
	defer func() {
		if !started {
			p.abandon(run.watch)
		} else if held {
			c.FDs = c.FDs[1:]
		}
	}()
	p.Environ.fill(env, fd, c.Payload)
	for pause := time.Duration(0); ; {
		err := p.spawn(run, spawner, fd, env)
		switch {
		case err == nil:
			return true
		case !temporary(err):
			p.cannotStart(err)
			if _, ok := errors.AsType[*os.SyscallError](err); !ok { // execve
				err = notRunnable(p.Program.Args[0], err)
			}
			p.trouble(&LostError{err})
			return false
		case pause == 0:
			p.shortage(err)
		}
		pause = min(max(2*pause, 10*time.Millisecond), time.Second)
		select {
		case <-time.After(pause):
		case <-p.ending:
			p.trouble(&LostError{errors.New("the pool was told to end before its program could be started")})
			return false
		}
	}
}

// spawn starts the program, and enters its run in running.
func (p *Pool) spawn(run *Run, spawner *spawner, fd int, env *envBlock) error {
	p.mu.Lock()
	p.starting++
	signals := p.signals
	p.mu.Unlock()
	begin := time.Now()
	pid, err := spawner.spawn(fd, env)
	p.mu.Lock()
	p.collect() // first what has ended before
	p.starting--
	defer func() {
		if p.starting == 0 {
			clear(p.early) // what is left were never ours
		}
		p.mu.Unlock()
	}()
	if err != nil {
		return err
	}
	select {
	case p.spawned <- struct{}{}:
	default:
	}
	run.PID, run.Begin, run.Running = pid, begin, len(p.running)+1
	if p.Started != nil {
		// Under the lock, so that its line comes before that of Ended.
		run.Env = env.strings()
		p.Started(run)
	}
	run.Env = nil
	p.previous, p.begun = p.begun, begin
	p.running[pid] = run
	p.observe(run)
	switch e, ended := p.early[pid]; {
	case ended: // and its number may be another one's
		delete(p.early, pid)
		p.finish(pid, e)
	case p.signals != signals, closed(p.ending) && closed(p.stopping):
		// It has come while the program was started, or between the connection and that.
		_ = unix.Kill(-pid, p.signal)
	}
	return nil
}
