//go:build linux

package cmd

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"fdkit/exec"
	"fdkit/fdrecv"
)

// killDelay is the time from TERM to KILL for programs that are to end.
const killDelay = 2 * time.Second

func poolCommand() *cli.Command {
	return &cli.Command{
		Name:        "pool",
		Usage:       "run a program for each connection, some at a time",
		UsageText:   "fdkit pool [OPTION...] PROGRAM [ARGUMENT...]",
		Description: "Each PROGRAM has its connection as stdin and stdout. See fdkit-pool(1).",
		Flags: slices.Concat(receiveFlags(), []cli.Flag{
			numberFlag("n", "run at most `SLOTS` programs at once", 1, 1<<20, 40),
			durationFlag("grace", "when told to stop, let running programs go on for at most `TIME`"),
		}, confineFlags(), verbosityFlags()),
		Action: runPool,
	}
}

func runPool(c *cli.Context) error {
	confine, err := confinementOf(c)
	if err != nil {
		return err
	}
	base, err := environOf(c, os.Environ())
	if err != nil {
		return err
	}
	r, err := receiverOf(c, &confine, base)
	if err != nil {
		return err
	}
	signals := endings()
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
	r.log.journal = newJournal(r.log.name)
	defer r.log.journal.end()
	pool := r.pool(q, numberOf(c, "n"))
	pool.Confine = confine
	r.notify = newNotifier(r.log)
	defer r.notify.end()
	ready := r.notify.follow(pool)
	ended := make(chan error, 1)
	go func() { ended <- pool.Run() }()
	for sig == nil {
		select {
		case <-ready:
			r.notify.ready()
		case <-r.notify.ticks():
			r.notify.tick()
		case err = <-ended:
			r.notify.stopping()
			r.close(q)
			return err
		case sig = <-signals:
		}
	}
	r.notify.stopping()
	r.close(q) // lets the sender know
	return r.finish(pool, ended, signals, durationOf(c, "grace"))
}

// finish waits for the running programs; when grace is over, or with a further
// signal, it ends them.
func (r *receiver) finish(pool *exec.Pool, ended <-chan error, signals <-chan os.Signal, grace time.Duration) error {
	var over, kill <-chan time.Time
	if grace >= 0 {
		over = time.After(grace)
	}
	patience := time.After(sameSignal)
	terminate := func() {
		r.ending.Store(true)
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
			r.log.notice("waiting for running programs (%d); a second signal ends them", pool.Running())
		case <-over:
			terminate()
			r.log.info("the grace is over: ending programs (%d)", pool.Running())
		case <-signals:
			if patience == nil {
				terminate()
			}
		case <-kill:
			pool.Signal(syscall.SIGKILL)
		}
	}
}

// pool returns the pool that receives from q.
func (r *receiver) pool(q *fdrecv.Queue, slots int) *exec.Pool {
	pool := &exec.Pool{
		Program: r.program,
		Environ: r.environ,
		Slots:   slots,
		Receivers: func() func(*exec.Connection) error {
			receiver := q.Receiver()
			var m fdrecv.Message
			return func(c *exec.Connection) error {
				err := receiver.Receive(&m)
				c.FDs, c.Payload = m.FDs, m.Payload
				return err
			}
		},
		Lost: func(err error) bool {
			_, lost := errors.AsType[*fdrecv.LostError](err)
			return lost
		},
		Trouble: r.log.error,
		Ended: func(run *exec.Run) {
			if sig := run.Status.Signal(); run.Status.Signaled() && sig != syscall.SIGPIPE && sig != syscall.SIGTERM && !r.ending.Load() {
				r.log.error(fmt.Errorf("%s, pid %d, died: %s", r.program.Args[0], run.PID, statusText(run.Status)))
			}
		},
	}
	if r.log.level >= levelAll {
		pool.Started = func(run *exec.Run) {
			peer, waited := origin(run.Env, run.Begin)
			run.Note = peer
			r.log.info("start pid %d for %s, waited %s, running %d/%d",
				run.PID, peer, waited, run.Running, slots)
		}
		pool.Ended = func(run *exec.Run) {
			r.log.info("end pid %d for %s, ran %s, %s, running %d/%d",
				run.PID, run.Note, run.Took.Round(time.Microsecond), statusText(run.Status), run.Running, slots)
		}
	}
	return pool
}

// origin tells from a program's environment who its client is and how long the
// connection waited before begin.
func origin(env []string, begin time.Time) (peer, waited string) {
	vars := map[string]string{}
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		vars[name] = value
	}
	peer, waited = "unknown", "unknown"
	if ip := vars["TCPREMOTEIP"]; ip != "" {
		peer = net.JoinHostPort(ip, vars["TCPREMOTEPORT"])
	} else if uid := vars["UNIXREMOTEEUID"]; uid != "" {
		peer = fmt.Sprintf("uid %s pid %s", uid, cmp.Or(vars["UNIXREMOTEPID"], "unknown"))
	}
	if accepted, err := strconv.ParseFloat(vars["FDKIT_ACCEPTED"], 64); err == nil {
		waited = max(begin.Sub(time.UnixMicro(int64(accepted*1e6))), 0).Round(time.Microsecond).String()
	}
	return peer, waited
}

func statusText(status syscall.WaitStatus) string {
	if !status.Signaled() {
		return "exit " + strconv.Itoa(status.ExitStatus())
	}
	return cmp.Or(unix.SignalName(status.Signal()), "signal "+strconv.Itoa(int(status.Signal())))
}
