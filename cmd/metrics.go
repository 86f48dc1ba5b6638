//go:build linux

package cmd

import (
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"fdkit/exec"
	"fdkit/internal/route"
	"fdkit/listen"
)

// metrics counts what a command does, for option --metrics. A nil *metrics counts
// nothing, so that callers need not ask. Counting does not allocate.
type metrics struct {
	address  listen.Address
	lacking  bool // it was in use
	endpoint *endpoint
	accepts  bool // the command accepts connections, or else receives them
	runs     bool // it runs programs, or else sends connections on

	accepted, sent, received, lost atomic.Int64
	statuses                       [256]atomic.Int64 // programs by exit status
	signals                        [65]atomic.Int64  // programs by the signal that ended them
	waits, runtimes                histogram

	mu       sync.Mutex
	refusals map[string]int64 // by reason
	limits   map[string]int64 // programs that were ended, by the limit
	waiting  func() (descriptors int, ok bool)
	running  func() int
	slots    int
}

func newMetrics(accepts, runs bool) *metrics {
	m := &metrics{accepts: accepts, runs: runs, refusals: map[string]int64{}, limits: map[string]int64{}}
	// A counter that appears with its first event hides that from rate().
	if accepts {
		for _, reason := range listen.Reasons {
			m.refusals[reason] = 0
		}
	}
	if !accepts && !runs {
		for _, reason := range route.Reasons {
			m.refusals[reason] = 0
		}
	}
	if runs {
		for _, reason := range []string{exec.RefusedPerSource, exec.RefusedQueueTimeout, exec.RefusedGone} {
			m.refusals[reason] = 0
		}
		for _, limit := range []string{exec.LimitTimeout, exec.LimitIdle, exec.LimitFirstByte} {
			m.limits[limit] = 0
		}
	}
	m.waits.bounds = waitBounds
	m.runtimes.bounds = runBounds
	return m
}

// Close gives up the address.
func (m *metrics) Close() {
	if m != nil {
		m.endpoint.Close()
	}
}

// refused counts a connection that was accepted or received and turned away.
// There must be only a few different reasons, as each is a time series.
func (m *metrics) refused(reason string) {
	if m != nil {
		m.mu.Lock()
		m.refusals[reason]++
		m.mu.Unlock()
	}
}

// limited counts a program that a limit ends.
func (m *metrics) limited(limit string) {
	m.mu.Lock()
	m.limits[limit]++
	m.mu.Unlock()
}

// watchQueue makes the queue's length known, which waiting returns.
func (m *metrics) watchQueue(waiting func() (descriptors int, ok bool)) {
	if m != nil {
		m.mu.Lock()
		m.waiting = waiting
		m.mu.Unlock()
	}
}

// watchAccepting counts the connections that a listen.Acceptor lets in and refuses.
func (m *metrics) watchAccepting(on *listen.Events) {
	if m == nil {
		return
	}
	accepted, refused := on.Accepted, on.Refused
	on.Accepted = func(c *listen.Conn) {
		m.accepted.Add(1)
		if accepted != nil {
			accepted(c)
		}
	}
	on.Refused = func(c *listen.Conn, why listen.Refusal) {
		m.refused(why.Reason)
		if refused != nil {
			refused(c, why)
		}
	}
}

// sink returns a sink that counts what goes to the given one.
func (m *metrics) sink(to listen.Sink) listen.Sink {
	if m == nil {
		return to
	}
	return countingSink{to, m}
}

type countingSink struct {
	listen.Sink
	m *metrics
}

func (s countingSink) Send(payload []byte, fds ...int) error {
	err := s.Sink.Send(payload, fds...)
	if err != nil {
		s.m.lost.Add(1) // Serve closes the connection
	} else {
		s.m.sent.Add(1)
	}
	return err
}

// watchPool counts what a pool does, which is not running yet.
func (m *metrics) watchPool(pool *exec.Pool) {
	if m == nil {
		return
	}
	m.mu.Lock()
	m.running, m.slots = pool.Running, pool.Slots
	m.mu.Unlock()
	receivers, started, ended, trouble := pool.Receivers, pool.Started, pool.Ended, pool.Trouble
	limited, refused := pool.Limited, pool.Refused
	pool.Limited = func(run *exec.Run) {
		m.limited(run.Limit)
		if limited != nil {
			limited(run)
		}
	}
	pool.Refused = func(reason string, c *exec.Connection) {
		m.refused(reason)
		if refused != nil {
			refused(reason, c)
		}
	}
	pool.Receivers = func() func(*exec.Connection) error {
		receive := receivers()
		return func(c *exec.Connection) error {
			err := receive(c)
			if err == nil {
				m.received.Add(1)
			}
			return err
		}
	}
	pool.Started = func(run *exec.Run) {
		if accepted, ok := acceptedAt(run.Env); ok {
			m.waits.observe(run.Begin.Sub(accepted))
		}
		if started != nil {
			started(run)
		}
	}
	pool.Ended = func(run *exec.Run) {
		m.runtimes.observe(run.Took)
		m.countExit(run.Status)
		if ended != nil {
			ended(run)
		}
	}
	pool.Trouble = func(err error) {
		if _, lost := errors.AsType[*exec.LostError](err); lost {
			m.lost.Add(1)
		}
		if trouble != nil {
			trouble(err)
		}
	}
}

// watchWorkers counts what workers are given, which do not run yet.
func (m *metrics) watchWorkers(w *exec.Workers) {
	if m == nil {
		return
	}
	m.mu.Lock()
	m.running, m.slots = w.Running, w.N
	m.mu.Unlock()
	receive, ended, trouble := w.Receive, w.Ended, w.Trouble
	w.Receive = func(c *exec.Connection) (bool, error) {
		came, err := receive(c)
		if came {
			m.received.Add(1)
		}
		return came, err
	}
	w.Ended = func(worker *exec.Worker, status syscall.WaitStatus) {
		m.runtimes.observe(time.Since(worker.Begin))
		m.countExit(status)
		ended(worker, status)
	}
	w.Trouble = func(err error) {
		if _, lost := errors.AsType[*exec.LostError](err); lost {
			m.lost.Add(1)
		}
		trouble(err)
	}
}

func (m *metrics) countExit(status syscall.WaitStatus) {
	if status.Signaled() {
		m.signals[min(int(status.Signal()), len(m.signals)-1)].Add(1)
		return
	}
	m.statuses[status.ExitStatus()&0xff].Add(1)
}

// histogram counts durations in buckets.
type histogram struct {
	bounds []time.Duration // of the buckets; one more has none
	mu     sync.Mutex
	counts [12]int64
	sum    float64 // seconds
}

// The bounds are wide: each bucket is a time series.
var (
	waitBounds = []time.Duration{
		time.Millisecond, 5 * time.Millisecond, 25 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond,
		time.Second, 5 * time.Second, 30 * time.Second, 2 * time.Minute,
	}
	runBounds = []time.Duration{
		time.Millisecond, 5 * time.Millisecond, 25 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond,
		time.Second, 5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute, time.Hour,
	}
)

func (h *histogram) observe(d time.Duration) {
	d = max(d, 0) // the clock may have been set back
	i := 0
	for i < len(h.bounds) && d > h.bounds[i] {
		i++
	}
	h.mu.Lock()
	h.counts[i]++
	h.sum += d.Seconds()
	h.mu.Unlock()
}
