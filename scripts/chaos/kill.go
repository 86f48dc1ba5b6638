//go:build linux

package main

import (
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// every is the pause between two faults of a case.
const every = 50 * time.Millisecond

// resident starts a listener and a pool of workers with leases, and returns the pool and a
// load with n connections.
func (e *env) resident(workers string, n int64, parallel int) (listen, pool *process, l *load) {
	queue, r := filepath.Join(e.dir, "q"), e.record(n)
	pool = e.startFdkit("pool", "--from", queue, "--resident", "-n", workers, "--ready-timeout", "30s",
		"--metrics", "unix:"+e.at("pool.metrics"), e.server, r.path, "resident", "1ms")
	listen, address := e.listen("--to", queue, "--metrics", "unix:"+e.at("listen.metrics"))
	return listen, pool, newLoad(address, r, parallel)
}

// at returns a path in the directory of the case.
func (e *env) at(name string) string { return filepath.Join(e.dir, name) }

// killWorkers kills a worker every 50 ms.
func killWorkers(e *env, r *row) {
	_, pool, l := e.resident("8", e.n(50_000, 1_000_000), 32)
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.run(int64(len(l.fates)), e.stop)
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		case <-time.After(every):
			workers := children(pool.pid())
			if len(workers) > 0 && signalChild(pool.pid(), workers[e.random.IntN(len(workers))], unix.SIGKILL) {
				r.faults++
			}
		}
	}
	l.count(r)
	lost := e.metrics(e.at("pool.metrics"))["fdkit_lost_total"]
	r.expect(r.refused+r.reset+r.lost == 0, "0 untouched lost", "%d refused, %d reset, %d lost", r.refused, r.reset, r.lost)
	r.expect(r.duplicated == 0, "0 duplicated", "%d", r.duplicated)
	r.expect(r.cut <= r.faults, "at most one cut per kill", "%d cut, %d kills", r.cut, r.faults)
	r.expect(r.cut <= lost, "each cut one counted", "%d cut, %d counted", r.cut, lost)
	r.expect(r.served+r.cut == r.connections, "all others served", "%d of %d", r.served, r.connections-r.cut)
}
