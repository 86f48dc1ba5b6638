//go:build linux

package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// The soaks serve many connections, and then hold what serves them against what it was
// at first.
func soakResident(e *env, r *row) {
	e.collectOften()
	listen, pool, l := e.resident("16", e.n(40_000, 1_100_000), 32)
	e.soak(r, l, e.n(30_000, 100_000), 16, listen, pool)
}

func soakPrograms(e *env, r *row) {
	e.collectOften()
	record := e.record(e.n(40_000, 1_150_000))
	pool := e.startFdkit("pool", "--from", e.at("q"), "-n", "8", e.echoLine())
	listen, address := e.listen("--to", e.at("q"))
	e.soak(r, newLoad(address, record, 16), e.n(30_000, 150_000), 0, listen, pool)
}

func soakServe(e *env, r *row) {
	e.collectOften()
	record := e.record(e.n(40_000, 1_150_000))
	serve, address := e.serve("127.0.0.1:0", []string{"-n", "8"}, e.echoLine())
	e.soak(r, newLoad(address, record, 16), e.n(30_000, 150_000), 0, serve)
}

// collectOften lets the collector run at a quarter of the memory in the short run, which has
// not the time for enough of its turns.
func (e *env) collectOften() {
	if e.short {
		e.variables = append(e.variables, "GOGC=25")
	}
}

// echoLine returns a small program that sends back a line. It keeps no record: what its
// clients see is all that is known of a connection, and the program takes none of the time
// that a million of them have.
func (e *env) echoLine() string {
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", "fdkit/scripts/chaos").Output()
	e.must(err)
	source, program := filepath.Join(strings.TrimSpace(string(dir)), "../bench/c/echo-line.c"), e.at("echo-line")
	out, err := exec.Command("gcc", "-O2", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-o", program, source).CombinedOutput()
	if err != nil {
		e.must(fmt.Errorf("gcc %s: %w: %s", source, err, out))
	}
	return program
}

// soak makes the first connections, until the collector of garbage has run several times and
// memory has come to rest, and then all others. So many programs stay.
func (e *env) soak(r *row, l *load, first int64, stay int, all ...*process) {
	l.run(first, e.stop)
	var before []int
	var kib []int64
	e.await("the first programs have ended", func() bool { return len(children(all[len(all)-1].pid())) == stay })
	for _, p := range all {
		before, kib = append(before, e.descriptorsAtRest(p.pid())), append(kib, memory(p.pid()))
	}
	rest := min(int64(len(l.fates))-l.next.Load(), e.n(10_000, 1_000_000))
	l.run(rest, e.stop)
	l.count(r)
	r.expectAllServed()
	for i, p := range all {
		now, name := 0, p.cmd.Args[1]
		e.within(patience/2, func() bool {
			now = descriptors(p.pid())
			return now == before[i]
		})
		r.expect(now == before[i], name+": descriptors exact", "%d, before %d", now, before[i])
		grown := memory(p.pid()) - kib[i]
		r.note("%s has %d descriptors and %d KiB, %+d KiB over %d connections", name, now, memory(p.pid()), grown, rest)
		r.expect(grown < 1024, name+": under 1 MiB more", "%d KiB", grown)
	}
}
