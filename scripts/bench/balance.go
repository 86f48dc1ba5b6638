//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// hung is when a connection is said to hang. The pool gives one that its worker has not
// received to another after a second at the latest.
const hung = 1500 * time.Millisecond

// balance is the suite of who has which connection, and of what that costs when one of
// the workers is stopped or slow: "How not to load-balance connections with accept()".
func balance(b *bench) error {
	w, err := b.preforks()
	if err != nil {
		return err
	}
	contestants := []struct {
		name   string
		server func(workers int) server
	}{
		{"C: accept, blocking", func(n int) server { return w.c("listening", n, "block") }},
		{"C: accept, epoll", func(n int) server { return w.c("listening", n, "epoll") }},
		{"C: accept, EPOLLEXCLUSIVE", func(n int) server { return w.c("listening", n, "exclusive") }},
		{"C: SO_REUSEPORT", func(n int) server { return w.c("reuseport", n, "block") }},
		{"fdkit listen \\| fdkit pool --resident --share", func(n int) server { return w.fdkit(n, "--share") }},
		{"fdkit listen \\| fdkit pool --resident", func(n int) server { return w.fdkit(n) }},
	}
	shares := &table{
		name:  "balance-shares",
		title: "Shares of 16 workers",
		notes: []string{
			fmt.Sprintf("Clients come one after the other, on average 100 for each worker. With one worker stopped (SIGSTOP), those hang that have no answer within %v.", hung),
		},
		metrics: []metric{
			{name: "least share"},
			{name: "greatest share"},
			{name: "one stopped, hang", unit: "of 1600"},
			{name: "one stopped, longest answer", unit: "ms", digits: 1},
		},
	}
	tails := &table{
		name:  "balance-tail",
		title: "Four workers, one of them stopped or slow",
		notes: []string{
			fmt.Sprintf("8 clients, each again and again. The slow worker sleeps 50 ms for each connection. Those that have no answer within %v count with that.", hung),
		},
		metrics: []metric{
			{name: "stopped, p99", unit: "ms", digits: 1},
			{name: "stopped, p99.9", unit: "ms", digits: 1, ratio: true, plot: true},
			{name: "stopped, hang"},
			{name: "slow, p99", unit: "ms", digits: 1},
			{name: "slow, p99.9", unit: "ms", digits: 1, ratio: true, plot: true},
			{name: "slow, longest", unit: "ms", digits: 1},
		},
	}
	for _, c := range contestants {
		shares.contestants = append(shares.contestants, contestant{name: c.name, measure: func() ([]float64, error) {
			return b.shares(c.server(16), 16)
		}})
		tails.contestants = append(tails.contestants, contestant{name: c.name, measure: func() ([]float64, error) {
			return b.tails(c.server(4))
		}})
	}
	for _, t := range []*table{shares, tails} {
		if err := b.compare(t); err != nil {
			return err
		}
	}
	return b.report("balance", "Balance among workers", shares, tails)
}

// asked is what came of a number of connections.
type asked struct {
	by        map[int]int // connections, by the number of the worker
	hung      int
	latencies []time.Duration // sorted
}

func (a *asked) quantile(q float64) time.Duration {
	return a.latencies[min(int(q*float64(len(a.latencies))), len(a.latencies)-1)]
}

// ask makes so many connections, some at once, in at most so long.
func (r *running) ask(connections, clients int, length time.Duration) (*asked, error) {
	a := &asked{by: map[int]int{}}
	var next atomic.Int64
	var group sync.WaitGroup
	var lock sync.Mutex
	var failure error
	end := time.Now().Add(length)
	for range clients {
		group.Go(func() {
			for next.Add(1) <= int64(connections) && time.Now().Before(end) {
				begin := time.Now()
				worker, err := r.askOne()
				took := time.Since(begin)
				lock.Lock()
				switch {
				case err == nil:
					a.by[worker]++
				case errors.Is(err, os.ErrDeadlineExceeded):
					a.hung++
				default:
					failure = err
				}
				a.latencies = append(a.latencies, took)
				lock.Unlock()
			}
		})
	}
	group.Wait()
	slices.Sort(a.latencies)
	return a, failure
}

// askOne makes a connection, and returns the number of the worker that has answered.
func (r *running) askOne() (worker int, err error) {
	c, err := net.DialTimeout("tcp4", r.address.String(), hung)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(hung))
	if _, err := c.Write(make([]byte, question)); err != nil {
		return 0, err
	}
	text, err := io.ReadAll(c)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// startWorkers starts a server, and waits until all its workers are there.
func (b *bench) startWorkers(s server, n int) (*running, error) {
	r, err := b.start(s)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		found, err := workersOf()
		if err == nil && len(found) < n && time.Now().After(deadline) {
			err = fmt.Errorf("%d workers of %d are there after %v%s", len(found), n, patience, r.said())
		}
		if err != nil {
			return nil, errors.Join(err, r.stop())
		}
		if len(found) == n {
			time.Sleep(50 * time.Millisecond) // until they wait
			return r, nil
		}
	}
}

// workersOf returns the processes of the workers, by number.
func workersOf() (map[int]process, error) {
	all, err := processes()
	found := map[int]process{}
	for _, p := range all {
		if p.name != "worker" {
			continue
		}
		environ, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.pid))
		for v := range strings.SplitSeq(string(environ), "\x00") {
			if number, ok := strings.CutPrefix(v, "FDKIT_WORKER="); ok {
				n, _ := strconv.Atoi(number)
				found[n] = p
			}
		}
	}
	return found, err
}

// stopOne stops worker 1.
func stopOne() error {
	found, err := workersOf()
	if err != nil {
		return err
	}
	return os.NewSyscallError("kill", unix.Kill(found[1].pid, unix.SIGSTOP))
}

func (b *bench) shares(s server, n int) (figures []float64, err error) {
	count := 100 * n
	if b.quick {
		count = 10 * n
	}
	r, err := b.startWorkers(s, n)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.stop()) }()
	a, err := r.ask(count, 1, time.Minute)
	if err != nil {
		return nil, err
	}
	least, most := count, 0
	for i := range n {
		least, most = min(least, a.by[i]), max(most, a.by[i])
	}
	if err := stopOne(); err != nil {
		return nil, err
	}
	// Eight at once, or those that hang would take too long.
	stopped, err := r.ask(count, 8, time.Minute)
	if err != nil {
		return nil, err
	}
	return []float64{float64(least), float64(most), float64(stopped.hung), ms(stopped.quantile(1))}, nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (b *bench) tails(s server) (figures []float64, err error) {
	length := 5 * b.each
	for _, slow := range []bool{false, true} {
		a, err := b.tail(s, slow, length)
		if err != nil {
			return nil, err
		}
		last := float64(a.hung)
		if slow {
			last = ms(a.quantile(1))
		}
		figures = append(figures, ms(a.quantile(0.99)), ms(a.quantile(0.999)), last)
	}
	return figures, nil
}

func (b *bench) tail(s server, slow bool, length time.Duration) (a *asked, err error) {
	if slow {
		os.Setenv("SLOW", "1")
		defer os.Unsetenv("SLOW")
	}
	r, err := b.startWorkers(s, 4)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.stop()) }()
	if !slow {
		if err := stopOne(); err != nil {
			return nil, err
		}
	}
	count := 1 << 30
	if b.quick {
		count = 200
	}
	return r.ask(count, 8, length)
}
