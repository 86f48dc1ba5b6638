//go:build linux

package cmd

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"fdkit/exec"
	"fdkit/fdrecv"
	"fdkit/internal/scm"
)

// residentFlags are the options of workers, to which connections are handed over.
func residentFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "resident", Usage: "let PROGRAM run on as a worker, which receives its connections as messages on descriptor 0", DisableDefaultText: true},
		&cli.BoolFlag{Name: "share", Usage: "give the workers the queue itself", DisableDefaultText: true},
		&cli.GenericFlag{Name: "balance", Usage: "choose workers by `RULE`: fifo, least, hash=source or hash=key", Value: new(balance), DefaultText: "fifo"},
		numberFlag("queue-fd", "let workers find their queue at descriptor `N` instead of 0", 0, 1<<20, 0),
		onceFlag("key", "run a worker for each value of the variable `NAME` that comes with connections"),
		numberFlag("max-keys", "run workers for at most `N` values of --key", 1, maxSlots, 1000),
		durationFlag("idle", "end the worker of a value of --key after `TIME` without a connection"),
		numberFlag("max-requests", "replace a worker after `N` connections", 1, 1<<30, 0),
		durationFlag("max-age", "replace a worker after `TIME`"),
		durationFlag("ready-timeout", "kill workers that do not say READY within `TIME`, or do not receive for so long"),
	}
}

// balance is the value of option --balance.
type balance struct{ exec.Balance }

func (b *balance) Set(text string) error {
	rules := map[string]exec.Balance{"fifo": exec.Fifo, "least": exec.Least, "hash=source": exec.HashSource, "hash=key": exec.HashKey}
	rule, known := rules[text]
	if !known {
		return fmt.Errorf("%q is none of fifo, least, hash=source and hash=key", text)
	}
	b.Balance = rule
	return nil
}

func (b *balance) String() string { return "" }

// checkResident checks which options are given with which.
func checkResident(c *cli.Context) error {
	for _, f := range residentFlags() {
		name := f.Names()[0]
		switch {
		case !c.IsSet(name):
		case !c.Bool("resident"):
			return usageHint("--resident has workers", "option --%s: it is for workers", name)
		case (name == "max-keys" || name == "idle") && onceOf(c, "key") == "":
			return usagef("option --%s: it is for workers of --key, which is not given", name)
		case c.Bool("share") && slices.Contains([]string{"balance", "key", "max-requests", "ready-timeout"}, name):
			return usagef("option --%s: with --share the workers receive by themselves", name)
		case name == "balance" && onceOf(c, "key") != "":
			return usagef("option --balance: with --key it is the value that chooses the worker")
		case (name == "idle" || name == "max-age" || name == "ready-timeout") && durationOf(c, name) == 0:
			return usageHint("without the option there is no limit", "option --%s: the time is 0", name)
		}
	}
	if !c.Bool("resident") {
		return nil
	}
	for _, f := range append(limitFlags(), dialectFlag(""), &cli.StringSliceFlag{Name: "accept-env"}) {
		if name := f.Names()[0]; c.IsSet(name) {
			return usagef("option --%s: it is for programs that run for one connection, and workers are resident", name)
		}
	}
	key := onceOf(c, "key")
	switch {
	case c.IsSet("proto"):
		return usagef("option --proto: workers receive fdkit's own messages, which the pool passes on as they are")
	case key != "" && c.IsSet("n"):
		return usageHint("--max-keys sets how many there may be", "option -n: with --key there is a worker for each value")
	case key != "" && (!scm.ValidName(key) || !exec.DescribesConnection(key)):
		return usageHint("FDKIT_KEY, TCPREMOTEIP and the like are, see fdkit-environ(7)", "option --key: %q is no variable that comes with connections", key)
	}
	return nil
}

// runResident hands the connections that come from q to workers.
func (r *receiver) runResident(c *cli.Context, q *fdrecv.Queue, o poolOptions, signals, orders <-chan os.Signal, succession *succession, metrics *metrics) error {
	workers := r.workers(c, q, o)
	metrics.watchWorkers(workers)
	begun := make(chan struct{})
	if workers.Key != "" {
		close(begun) // there is no worker before a connection comes
	} else {
		started, first := workers.Started, sync.OnceFunc(func() { close(begun) })
		workers.Started = func(w *exec.Worker) {
			started(w)
			first()
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- workers.Run() }()
	r.notify.status(func() string { return fmt.Sprintf("running %d workers", workers.Running()) })
	r.notify.ready()
	for {
		select {
		case <-begun:
			succession.relieve(q, metrics)
			begun = nil
		case <-r.notify.ticks():
			r.notify.tick()
		case err := <-ended:
			r.notify.stopping()
			r.close(q)
			return err
		case <-succession.seat.Replaced():
			succession.replaced()
			r.notify.stopping()
			workers.Stop()
			r.retire(q, succession, metrics)
			return r.finish(workers, ended, signals, o.grace)
		case order := <-orders:
			if order == syscall.SIGUSR1 {
				r.tellWorkers(workers.Status())
				continue
			}
			r.log.event(isInfo, "renewing", "replacing the workers")
			workers.Renew()
		case sig := <-signals:
			r.notify.stopping()
			r.log.toldToEnd(sig)
			workers.Stop()
			r.retire(q, succession, metrics)
			return r.finish(workers, ended, signals, o.grace)
		}
	}
}

// workers returns the workers that the options ask for.
func (r *receiver) workers(c *cli.Context, q *fdrecv.Queue, o poolOptions) *exec.Workers {
	receiver := q.Receiver()
	var m fdrecv.Message
	w := &exec.Workers{
		Program: r.program, Confine: o.confine, Environ: o.environ,
		N: o.slots, QueueFD: numberOf(c, "queue-fd"), Share: c.Bool("share"),
		Balance: c.Generic("balance").(*balance).Balance,
		Key:     onceOf(c, "key"), Idle: max(durationOf(c, "idle"), 0),
		MaxRequests: numberOf(c, "max-requests"), MaxAge: max(durationOf(c, "max-age"), 0),
		ReadyTimeout: max(durationOf(c, "ready-timeout"), 0),
		Queue:        q.FD(),
		Receive: func(c *exec.Connection) (bool, error) {
			came, err := receiver.ReceiveNow(&m)
			c.FDs, c.Payload = m.FDs, m.Payload
			return came, err
		},
		Lost: func(err error) bool {
			_, lost := errors.AsType[*fdrecv.LostError](err)
			return lost
		},
		Trouble: r.log.error,
		Started: func(w *exec.Worker) {
			r.log.event(isInfo, "start", "start worker {pid}{for}", slog.Int("pid", w.PID), workerName(w.Index, w.Key))
		},
		Ended: r.workerEnded,
	}
	w.Environ = slices.DeleteFunc(slices.Clone(w.Environ), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return exec.DescribesConnection(name)
	})
	switch {
	case w.Key != "":
		w.N = numberOf(c, "max-keys")
	case !c.IsSet("n"):
		w.N = runtime.NumCPU()
	}
	return w
}

// workerName tells one worker from the others, in text and in a field.
func workerName(index int, key string) slog.Attr {
	if index < 0 {
		return slog.String("for", fmt.Sprintf(" for %q", key))
	}
	return slog.String("for", fmt.Sprintf(" (%d)", index))
}

func (r *receiver) workerEnded(w *exec.Worker, status syscall.WaitStatus) {
	severity := isInfo
	if status.Signaled() && status.Signal() != syscall.SIGTERM && !r.ending.Load() {
		severity = isError
	}
	r.log.event(severity, "end", "end worker {pid}{for}, ran {ran}, connections {connections}, {status}",
		slog.Int("pid", w.PID), workerName(w.Index, w.Key), slog.Duration("ran", time.Since(w.Begin)),
		slog.Int("connections", w.Handed), slog.String("status", exec.StatusText(status)))
}

// tellWorkers says what each worker does.
func (r *receiver) tellWorkers(all []exec.WorkerStatus) {
	slices.SortFunc(all, func(a, b exec.WorkerStatus) int { return a.Begin.Compare(b.Begin) })
	for _, s := range all {
		state := "receives"
		switch {
		case s.Retired:
			state = "is to end"
		case s.Unread:
			state = "has not received the last"
		case s.Leases > 0:
			state = fmt.Sprintf("has %d not done", s.Leases)
		}
		r.log.event(isNotice, "worker", "worker {pid}{for}: running {ran}, connections {connections}, {state}",
			slog.Int("pid", s.PID), workerName(s.Index, s.Key), slog.Duration("ran", time.Since(s.Begin)),
			slog.Int("connections", s.Handed), slog.String("state", state))
	}
}
