//go:build linux

package main

// soakResident and soakPrograms serve many connections, and then hold listen and pool
// against what they were at first.
func soakResident(e *env, r *row) {
	listen, pool, l := e.resident("4", e.n(30_000, 1_100_000), 32)
	e.soak(r, l, e.n(15_000, 100_000), listen, pool)
}

func soakPrograms(e *env, r *row) {
	record := e.record(e.n(5_000, 110_000))
	pool := e.startFdkit("pool", "--from", e.at("q"), "-n", "8", e.server, record.path, "one", "0s")
	listen, address := e.listen("--to", e.at("q"))
	e.soak(r, newLoad(address, record, 16), e.n(2_000, 10_000), listen, pool)
}

func (e *env) soak(r *row, l *load, first int64, all ...*process) {
	l.run(first, e.stop) // until all is there that will be
	names := []string{"listen", "pool"}
	var before []int
	var kib []int64
	quiet := func() bool { return len(children(all[1].pid())) <= 4 } // programs that end have ended
	e.await("the first have ended", quiet)
	for _, p := range all {
		before, kib = append(before, descriptors(p.pid())), append(kib, memory(p.pid()))
	}
	l.run(int64(len(l.fates))-first, e.stop)
	l.count(&r.figures)
	r.expectAllServed()
	for i, p := range all {
		now := 0
		e.within(patience/2, func() bool {
			now = descriptors(p.pid())
			return now == before[i]
		})
		r.expect(now == before[i], names[i]+": descriptors exact", "%d, before %d", now, before[i])
		grown := memory(p.pid()) - kib[i]
		r.note("%s has %d descriptors and %d KiB, %+d KiB over %d connections", names[i], now, memory(p.pid()), grown, int64(len(l.fates))-first)
		r.expect(grown < 1024, names[i]+": under 1 MiB more", "%d KiB", grown)
	}
}
