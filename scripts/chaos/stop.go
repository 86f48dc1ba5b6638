//go:build linux

package main

import (
	"time"

	"golang.org/x/sys/unix"
)

// stopWorkers stops a worker every 50 ms, in rounds: when some of them are stopped, all
// connections must go on but those that these hold, one each. Then they go on, and so must
// these.
func stopWorkers(e *env, r *row) {
	const workers, parallel = 16, 64
	_, pool, l := e.resident("16", e.n(20_000, 1_000_000), parallel)
	e.await("the workers run", func() bool { return len(children(pool.pid())) == workers })
	all := children(pool.pid())
	var most, stuck int64
	share := e.n(5_000, 10_000)
	for l.next.Load()+share <= int64(len(l.fates)) && e.Err() == nil {
		done, end := make(chan struct{}), l.next.Load()+share
		go func() {
			defer close(done)
			l.run(share, e.stop)
		}()
		e.random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		var stopped []int
		for _, pid := range all[:workers/2] {
			time.Sleep(every)
			if signalChild(pool.pid(), pid, unix.SIGSTOP) {
				stopped = append(stopped, pid)
				r.faults++
			}
		}
		// All have been begun, and all have ended but those that are held.
		if !e.within(patience/2, func() bool { return l.next.Load() >= end && l.open.Load() <= int64(len(stopped)) }) {
			stuck++
		}
		most = max(most, l.open.Load())
		for _, pid := range stopped {
			signalChild(pool.pid(), pid, unix.SIGCONT)
		}
		<-done
	}
	l.count(r)
	r.note("at most %d connections waited while 8 workers were stopped", most)
	r.expectAllServed()
	r.expect(stuck == 0, "only held ones wait", "others waited in %d rounds", stuck)
}
