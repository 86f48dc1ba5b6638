//go:build linux

package main

import (
	"fmt"
	"os/exec"
	"syscall"
	"time"
)

// between is the pause between two replacements.
const between = 20 * time.Millisecond

// replaceListen replaces listen by a new one every 20 ms.
func replaceListen(e *env, r *row) {
	old, pool, l := e.resident("4", e.n(10_000, 100_000), 32)
	e.whileServing(l, func() {
		next := e.relisten(l.address, "--takeover")
		e.ended(old)
		old = next
		r.faults++
	})
	l.count(r)
	r.expectAllServed()
	old.end()
	pool.end()
}

// replacePool does so with pool: one with workers and one with programs by turns.
func replacePool(e *env, r *row) {
	listen, pool, l := e.resident("2", e.n(5_000, 100_000), 32)
	e.whileServing(l, func() {
		args := []string{"pool", "--takeover", "--from", e.at("q")}
		if r.faults%2 == 0 {
			args = append(args, "-n", "4", e.server, l.record.path, "one", "0s")
		} else {
			args = append(args, "-n", "2", "--resident", "--ready-timeout", "30s", e.server, l.record.path, "resident", "0s")
		}
		next := e.startFdkit(args...)
		e.ended(pool)
		pool = next
		r.faults++
	})
	l.count(r)
	r.expectAllServed()
	listen.end()
	pool.end()
}

// replaceServe does so with serve, which is both in one process.
func replaceServe(e *env, r *row) {
	record := e.record(e.n(3_000, 20_000))
	serve := func(address string) (*process, string) {
		return e.serve(address, []string{"--takeover", e.at("q"), "-n", "8"}, e.server, record.path, "one", "1ms")
	}
	old, address := serve("127.0.0.1:0")
	l := newLoad(address, record, 32)
	e.whileServing(l, func() {
		next, got := serve(address)
		if got != address {
			e.must(fmt.Errorf("serve is at %s, and was to be at %s", got, address))
		}
		e.ended(old)
		old = next
		r.faults++
	})
	l.count(r)
	r.expectAllServed()
	old.end()
}

// killListen kills listen, and starts it again: the pool keeps its socket open.
func killListen(e *env, r *row) {
	listen, pool, l := e.resident("4", e.n(10_000, 100_000), 32)
	listen.end()
	listen = e.relisten(l.address, "--keep-listening", "1m")
	e.whileServing(l, func() {
		listen.tell(syscall.SIGKILL)
		<-listen.ended
		time.Sleep(time.Duration(e.random.Int64N(int64(between))))
		listen = e.relisten(l.address, "--keep-listening", "1m")
		r.faults++
	})
	l.count(r)
	r.expect(r.refused == 0, "0 refused", "%d", r.refused)
	r.expect(r.duplicated+r.cut == 0, "0 duplicated or cut", "%d, %d", r.duplicated, r.cut)
	r.expect(r.reset+r.lost <= r.faults, "at most one lost per kill", "%d lost, %d kills", r.reset+r.lost, r.faults)
	r.expect(r.served+r.reset+r.lost == r.connections && r.served > 0, "all others served", "%d of %d", r.served, r.connections)
	listen.end()
	pool.end()
}

// whileServing runs the load, and replaces something every 20 ms until it is over.
func (e *env) whileServing(l *load, replace func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.run(int64(len(l.fates)), e.stop)
	}()
	for {
		select {
		case <-done:
			return
		case <-time.After(between):
			replace()
		}
	}
}

// relisten starts another listen at the queue and that address, and waits until it is ready.
func (e *env) relisten(address string, args ...string) *process {
	args = append([]string{"listen", "--address-fd", "3", "--to", e.at("q")}, args...)
	p, got := e.listenAs(exec.Command(e.fdkit, append(args, address)...))
	if got != address {
		e.must(fmt.Errorf("listen is at %s, and was to be at %s", got, address))
	}
	return p
}

// ended waits until a process whose place was taken has ended, well.
func (e *env) ended(p *process) {
	e.await(fmt.Sprintf("%v has ended", p.cmd.Args), func() bool { return !p.alive() })
	if status := p.cmd.ProcessState; !status.Success() {
		e.must(fmt.Errorf("%v has ended with %v: %s", p.cmd.Args, status, p.read()))
	}
}
