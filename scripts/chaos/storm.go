//go:build linux

package main

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// signalStorm sends both commands all signals that do not end them, in no order, while
// clients come: listen pauses and goes on, and reads its rules, pool replaces its workers
// and says how they are, and both are stopped and go on.
func signalStorm(e *env, r *row) {
	e.must(os.WriteFile(e.at("rules"), []byte("allow 127.0.0.0/8\ndeny all\n"), 0o644))
	record := e.record(e.n(20_000, 300_000))
	pool := e.startFdkit("pool", "-q", "--from", e.at("q"), "--resident", "-n", "4", "--ready-timeout", "30s", e.server, record.path, "resident", "0s")
	listen, address := e.listen("-q", "--to", e.at("q"), "--rules", e.at("rules"))
	l := newLoad(address, record, 32)
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.run(int64(len(l.fates)), e.stop)
	}()
	harmless := []unix.Signal{unix.SIGCHLD, unix.SIGCONT, unix.SIGURG, unix.SIGWINCH, unix.SIGPIPE, unix.SIGIO}
	ofListen := append([]unix.Signal{unix.SIGUSR1, unix.SIGUSR2, unix.SIGHUP}, harmless...)
	ofPool := append([]unix.Signal{unix.SIGUSR1}, harmless...)
	for going := true; going; {
		select {
		case <-done:
			going = false
			continue
		case <-time.After(time.Duration(e.random.Int64N(int64(4 * time.Millisecond)))):
		}
		for range 1 + e.random.IntN(8) {
			listen.tell(ofListen[e.random.IntN(len(ofListen))])
			pool.tell(ofPool[e.random.IntN(len(ofPool))])
			r.faults += 2
		}
		switch e.random.IntN(40) {
		case 0:
			pool.tell(unix.SIGHUP)
		case 1:
			p := []*process{listen, pool}[e.random.IntN(2)]
			p.tell(unix.SIGSTOP)
			time.Sleep(5 * time.Millisecond)
			p.tell(unix.SIGCONT)
		default:
			listen.tell(unix.SIGUSR2)
			continue
		}
		r.faults++
	}
	l.count(r)
	r.expectAllServed()
	listen.end()
	pool.end()
}
