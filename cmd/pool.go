//go:build linux

package cmd

import (
	"errors"
	"log/slog"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"fdkit/exec"
	"fdkit/fdrecv"
	"fdkit/internal/queue"
)

// killDelay is the time from TERM to KILL for programs that are to end.
const killDelay = 2 * time.Second

// maxSlots is the highest number of slots, that of processes in the kernel being 2^22.
const maxSlots = 1 << 20

func poolCommand() *cli.Command {
	return &cli.Command{
		Name:        "pool",
		Usage:       "run a program for each connection, some at a time",
		UsageText:   "fdkit pool [OPTION...] PROGRAM [ARGUMENT...]",
		Description: "Each PROGRAM has its connection as stdin and stdout. See fdkit-pool(1).",
		Flags:       slices.Concat(receiveFlags(), poolFlags(), residentFlags(), identityFlags(), []cli.Flag{metricsFlag(), takeoverFlag("the pools at the queue")}, clientLogFlags()),
		Action:      runPool,
	}
}

// poolFlags are the options of the commands that run programs, some at a time.
func poolFlags() []cli.Flag {
	return append([]cli.Flag{
		numberFlag("n", "run at most `SLOTS` programs at once", 1, maxSlots, 40),
		durationFlag("grace", "when told to stop, let running programs go on for at most `TIME`"),
	}, slices.Concat(limitFlags(), confineFlags())...)
}

// poolOptions are what the options of poolFlags ask for.
type poolOptions struct {
	slots   int
	grace   time.Duration
	limits  poolLimits
	confine exec.Confinement
	environ []string // that programs inherit
}

func poolOptionsOf(c *cli.Context) (o poolOptions, err error) {
	o.slots, o.grace = numberOf(c, "n"), durationOf(c, "grace")
	if o.limits, err = limitsOf(c, o.slots); err != nil {
		return o, err
	}
	if o.confine, err = confinementOf(c); err != nil {
		return o, err
	}
	o.environ, err = environOf(c, os.Environ())
	return o, err
}

func runPool(c *cli.Context) error {
	keepProcessors(poolBlockers)
	o, err := poolOptionsOf(c)
	if err != nil {
		return err
	}
	r, err := receiverOf(c, &o.confine, o.environ)
	if err != nil {
		return err
	}
	if err := checkResident(c); err != nil {
		return err
	}
	succession, err := successionOf(c, "from", r.log)
	if err != nil {
		return err
	}
	var but []os.Signal
	var orders <-chan os.Signal
	if c.Bool("resident") {
		but = []os.Signal{syscall.SIGHUP} // replaces the workers
		orders = commands(syscall.SIGHUP, syscall.SIGUSR1)
	}
	signals := endings(but...)
	metrics, err := metricsOf(c, r.log, false, true)
	if err != nil {
		return err
	}
	defer metrics.Close()
	q, sig, err := r.open(signals)
	switch {
	case sig != nil && err != nil:
		return nil // told to end before it began
	case errors.Is(err, fdrecv.ErrEnded):
		r.log.info("the sender has ended")
		return nil
	case err != nil:
		return err
	}
	r.log.journal = newJournal(r.log)
	defer r.log.journal.end()
	succession.log = r.log
	defer succession.leave()
	if queue.IsNamed(r.from) {
		if err = succession.open(q); err == nil {
			err = succession.enter(nil)
		}
		if err != nil {
			r.close(q)
			return err
		}
	}
	metrics.watchQueue(q.Waiting)
	if c.Bool("resident") {
		r.notify = newNotifier(r.log)
		defer r.notify.end()
		return r.runResident(c, q, o, signals, orders, succession, metrics)
	}
	pool, done := r.pool(r.receivers(q), o, metrics)
	defer done()
	pool.Lost = r.lost
	r.notify = newNotifier(r.log)
	defer r.notify.end()
	ready := r.notify.follow(pool)
	ended := make(chan error, 1)
	begun := whenReady(pool)
	go func() { ended <- pool.Run() }()
	if sig != nil {
		r.log.toldToEnd(sig)
	}
	for end := sig != nil; !end; {
		select {
		case <-begun:
			succession.relieve(q, metrics)
			begun = nil
		case <-ready:
			r.notify.ready()
		case <-r.notify.ticks():
			r.notify.tick()
		case err = <-ended:
			r.notify.stopping()
			r.close(q)
			return err
		case <-succession.seat.Replaced():
			succession.replaced()
			end = true
		case sig = <-signals:
			r.log.toldToEnd(sig)
			end = true
		}
	}
	r.notify.stopping()
	r.retire(q, succession, metrics)
	return r.finish(pool, ended, signals, o.grace)
}

// whenReady returns a channel that is closed when the pool begins to receive.
func whenReady(pool *exec.Pool) <-chan struct{} {
	begun, ready := make(chan struct{}), pool.Ready
	pool.Ready = func() {
		close(begun)
		if ready != nil {
			ready()
		}
	}
	return begun
}

// retire receives no more, and lets the sender know. Whoever has taken this process's
// place has its address for metrics, too.
func (r *receiver) retire(q *fdrecv.Queue, s *succession, metrics *metrics) {
	r.close(q)
	s.leave()
	if s.isReplaced() {
		metrics.Close()
	}
}

// programs are those that an exec.Pool or exec.Workers runs.
type programs interface {
	Stop()
	Signal(sig syscall.Signal)
	Running() int
}

// finish waits for the running programs; when grace is over, or with a further
// signal, it ends them.
func (r *runner) finish(pool programs, ended <-chan error, signals <-chan os.Signal, grace time.Duration) error {
	// What was accepted and had to wait comes first.
	if r.waiting == nil || r.waiting() == 0 {
		pool.Stop()
	}
	var over, kill <-chan time.Time
	if grace >= 0 {
		over = time.After(grace)
	}
	patience := time.After(sameSignal)
	terminate := func() {
		r.ending.Store(true)
		pool.Stop()
		if r.abandon != nil {
			r.abandon()
		}
		pool.Signal(syscall.SIGTERM)
		over, patience = nil, nil
		if kill == nil {
			kill = time.After(killDelay)
		}
	}
	for {
		select {
		case err := <-ended:
			return err
		case <-r.notify.ticks():
			r.notify.tick()
		case <-patience:
			patience = nil
			r.log.event(isNotice, "waiting", "waiting for running programs ({running}); a second signal ends them",
				slog.Int("running", pool.Running()))
		case <-over:
			terminate()
			r.log.event(isInfo, "ending", "the grace is over: ending programs ({running})", slog.Int("running", pool.Running()))
		case <-signals:
			if patience == nil {
				terminate()
			}
		case <-kill:
			pool.Signal(syscall.SIGKILL)
			kill = time.After(killDelay) // one may just have been started
		}
	}
}

// receivers returns what receives from q.
func (r *receiver) receivers(q *fdrecv.Queue) func() func(*exec.Connection) error {
	return func() func(*exec.Connection) error {
		receiver := r.messages(q)
		var m fdrecv.Message
		return func(c *exec.Connection) error {
			err := receiver.Receive(&m)
			c.FDs, c.Payload = m.FDs, m.Payload
			return err
		}
	}
}

// pool returns the pool that runs the program on what comes from receivers. When it has
// ended, done must be called.
func (r *runner) pool(receivers func() func(*exec.Connection) error, o poolOptions, metrics *metrics) (pool *exec.Pool, done func()) {
	pool = &exec.Pool{
		Program:   r.program,
		Confine:   o.confine,
		Environ:   r.environ,
		Slots:     o.slots,
		Receivers: receivers,
		Trouble:   r.log.error,
		Ended:     r.died,
	}
	if r.log.enabled(isInfo) {
		pool.Started = func(run *exec.Run) { r.started(run, o.slots) }
		pool.Ended = func(run *exec.Run) { r.ended(run, o.slots) }
	}
	done = o.limits.apply(pool, r.log)
	metrics.watchPool(pool)
	return pool, done
}
