//go:build linux

package main

import (
	"time"
)

// crowd has ten times more clients than slots, for a minute.
func crowd(e *env, r *row) {
	const slots, clients, most = 20, 200, 8 // a queue holds a handful of messages
	record := e.record(e.n(200_000, 1_000_000))
	pool := e.startFdkit("pool", "--from", e.at("q"), "-n", "20", "--metrics", "unix:"+e.at("metrics"), e.server, record.path, "one", "5ms")
	listen, address := e.listen("--to", e.at("q"))
	l := newLoad(address, record, clients)
	end := time.Now().Add(time.Duration(e.n(5, 60)) * time.Second)
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.run(int64(len(l.fates)), func() bool { return time.Now().After(end) || e.stop() })
	}()
	var queued, running int64
	var held int
	for going := true; going; {
		select {
		case <-done:
			going = false
		case <-time.After(20 * time.Millisecond):
			m := e.metrics(e.at("metrics"))
			queued, running = max(queued, m["fdkit_queued"]), max(running, m["fdkit_running"])
			held = max(held, descriptors(listen.pid())+descriptors(pool.pid()))
			r.faults++
		}
	}
	l.count(r)
	r.note("%d programs at most, %d in the queue, %d descriptors in listen and pool; looked at %d times", running, queued, held, r.faults)
	r.faults = 0
	r.expectAllServed()
	r.expect(queued > 0 && queued <= most, "at most 8 queued", "%d", queued)
	r.expect(running == slots, "20 programs", "%d", running)
}
