//go:build linux

package main

// soakResident and soakPrograms serve many connections, and then hold listen and pool
// against what they were at first.
func soakResident(e *env, r *row) {
	listen, pool, l := e.resident("4", e.n(50_000, 1_100_000), 32)
	e.soak(r, l, e.n(40_000, 100_000), listen, pool)
}

func soakPrograms(e *env, r *row) {
	record := e.record(e.n(5_000, 110_000))
	pool := e.startFdkit("pool", "--from", e.at("q"), "-n", "8", e.server, record.path, "one", "0s")
	listen, address := e.listen("--to", e.at("q"))
	e.soak(r, newLoad(address, record, 16), e.n(3_000, 10_000), listen, pool)
}

func (e *env) soak(r *row, l *load, first int64, all ...*process) {
	// Until the collectors have run, and all memory is there that there will be.
	for most, same := int64(0), 0; same < 3 && l.next.Load() < first; same++ {
		l.run(first/10, e.stop)
		now := int64(0)
		for _, p := range all {
			now += memory(p.pid())
		}
		if now > most+64 {
			most, same = now, -1
		}
	}
	names := []string{"listen", "pool"}
	var before []int
	var kib []int64
	quiet := func() bool { return len(children(all[1].pid())) <= 4 } // programs that end have ended
	e.await("the first have ended", quiet)
	for _, p := range all {
		before, kib = append(before, descriptors(p.pid())), append(kib, memory(p.pid()))
	}
	rest := min(int64(len(l.fates))-l.next.Load(), e.n(10_000, 1_000_000))
	l.run(rest, e.stop)
	l.count(r)
	r.expectAllServed()
	for i, p := range all {
		now := 0
		e.within(patience/2, func() bool {
			now = descriptors(p.pid())
			return now == before[i]
		})
		r.expect(now == before[i], names[i]+": descriptors exact", "%d, before %d", now, before[i])
		grown := memory(p.pid()) - kib[i]
		r.note("%s has %d descriptors and %d KiB, %+d KiB over %d connections", names[i], now, memory(p.pid()), grown, rest)
		r.expect(grown < 1024, names[i]+": under 1 MiB more", "%d KiB", grown)
	}
}
