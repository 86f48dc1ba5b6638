//go:build linux

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// What the suite holds, unless the limits of the machine are lower.
const (
	manyConnections = 150000
	manyWorkers     = 8
	manyHolders     = 8
)

// many is the suite of connections that stay: how fast they are opened, what each of them
// costs, and how fast questions are answered when all are there.
func many(b *bench) error {
	worker := filepath.Join(filepath.Dir(b.fdkit), "epollworker")
	if _, err := os.Stat(worker); err != nil {
		return fmt.Errorf("%w; make bench builds it beside fdkit", err)
	}
	prefork, err := b.compile("prefork")
	if err != nil {
		return err
	}
	limit, err := openLimit(manyConnections/manyWorkers*16/15 + 1)
	if err != nil {
		return err
	}
	// A sixteenth is left for workers that get more than others in the rush.
	count := min(manyConnections, int(limit)*15/16*manyWorkers)
	if b.quick {
		count = min(count, 2000)
	}
	byItself := func(mode string) server {
		return server{commands: func(p place) [][]string {
			return [][]string{{prefork, mode, strconv.Itoa(manyWorkers), p.address.Addr().String(), strconv.Itoa(int(p.address.Port())), worker}}
		}}
	}
	t := &table{
		name:  "many",
		title: fmt.Sprintf("%d connections that stay, %d workers", count, manyWorkers),
		notes: []string{
			fmt.Sprintf("The workers are scripts/examples/epollworker everywhere; a process may have %d descriptors (RLIMIT_NOFILE). "+
				"A connection is open when its first question of 64 bytes is answered; %d of them are opened at a time. "+
				"%d questions are asked at a time, as many as there are connections, in an order that has nothing to do with that in which these were opened.", limit, manyHolders*openWindow, manyHolders*askWindow),
			"The first 100 for each worker are opened one after the other, while all are idle: the shares are those of these. " +
				"Descriptors and memory of fdkit are by how much listen and pool together have grown from then on. " +
				"Memory of a connection is what its worker has grown by, and what the system has, for both ends.",
		},
		metrics: []metric{
			{name: "opened", unit: "1/s", ratio: true, plot: true},
			{name: "failed"},
			{name: "least share"},
			{name: "greatest share"},
			{name: "fdkit descriptors"},
			{name: "fdkit memory", unit: "KiB"},
			{name: "worker memory", unit: "B per connection"},
			{name: "system memory", unit: "B per connection"},
			{name: "p50", unit: "µs", ratio: true, plot: true},
			{name: "p99", unit: "µs", ratio: true},
			{name: "p99.9", unit: "µs", ratio: true},
		},
	}
	for _, c := range []struct {
		name string
		server
	}{
		{"workers accept from one socket (EPOLLEXCLUSIVE)", byItself("listening")},
		{"workers accept, each from its own (SO_REUSEPORT)", byItself("reuseport")},
		{"fdkit listen \\| fdkit pool --resident", server{commands: func(p place) [][]string {
			return [][]string{{b.fdkit, "listen", p.address.String()}, {b.fdkit, "pool", "--resident", "-n", strconv.Itoa(manyWorkers), worker}}
		}}},
	} {
		t.contestants = append(t.contestants, contestant{name: c.name, measure: func() ([]float64, error) {
			return b.holdMany(c.server, count)
		}})
	}
	if err := b.compare(t); err != nil {
		return err
	}
	return b.report("many", "Connections that stay", t)
}

// openLimit returns the RLIMIT_NOFILE of what this process starts, raised to wanted if
// it can be.
func openLimit(wanted uint64) (uint64, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, os.NewSyscallError("getrlimit", err)
	}
	// The hard limit takes CAP_SYS_RESOURCE, setrlimit(2); the soft one is raised by
	// each Go program for itself, but not by one of C.
	higher := unix.Rlimit{Cur: max(wanted, limit.Max), Max: max(wanted, limit.Max)}
	if unix.Setrlimit(unix.RLIMIT_NOFILE, &higher) == nil {
		return higher.Cur, nil
	}
	limit.Cur = limit.Max
	return limit.Max, os.NewSyscallError("setrlimit", unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
}

const (
	openWindow = 64 // connections that a holder opens at once
	askWindow  = 8  // that it asks at once
)

// holding is what is counted before and after all connections were opened.
type holding struct {
	fds, rss  int         // of fdkit
	workers   map[int]int // descriptors, by process
	workerRSS int
	available int // memory of the system
}

func (b *bench) holdMany(s server, count int) (figures []float64, err error) {
	r, err := b.start(s)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.stop()) }()
	before, err := settled(manyWorkers)
	if err != nil {
		return nil, fmt.Errorf("%w%s", err, r.said())
	}
	var holders []*holder
	for range manyHolders {
		h, err := startHolder()
		if err != nil {
			return nil, err
		}
		defer h.end()
		holders = append(holders, h)
	}
	orders := func(o order) ([]answer, error) {
		return do(holders, func(i int) order {
			o := o
			o.Target, o.Source = r.address.String(), netip.AddrFrom4([4]byte{127, 0, 0, byte(2 + i)}).String()
			return o
		})
	}
	// One after the other.
	first := min(100*manyWorkers, count/2)
	one, err := do(holders[:1], func(int) order {
		return order{Open: first, Window: 1, Target: r.address.String(), Source: "127.0.0.9"}
	})
	if err != nil {
		return nil, err
	}
	idle, err := lookAt()
	if err != nil {
		return nil, err
	}
	least, greatest := first, 0
	for pid, fds := range idle.workers {
		least, greatest = min(least, fds-before.workers[pid]), max(greatest, fds-before.workers[pid])
	}
	// The others.
	opened, err := orders(order{Open: (count - first) / manyHolders, Window: openWindow})
	if err != nil {
		return nil, err
	}
	after, err := lookAt()
	if err != nil {
		return nil, err
	}
	asked, err := orders(order{Ask: count / manyHolders, Window: askWindow})
	if err != nil {
		return nil, err
	}
	var rate float64
	var failed int
	var latencies []int64
	for _, a := range slices.Concat(one, opened, asked) {
		for _, n := range a.Failed {
			failed += n
		}
		latencies = append(latencies, a.Latencies...)
	}
	for _, a := range opened {
		rate += float64(a.Answered) / a.Seconds
	}
	slices.Sort(latencies)
	µs := func(q float64) float64 {
		return float64(latencies[min(int(q*float64(len(latencies))), len(latencies)-1)]) / 1e3
	}
	each := func(bytes int) float64 { return float64(bytes) / float64(count) }
	return []float64{
		rate, float64(failed), float64(least), float64(greatest),
		float64(after.fds - idle.fds), float64(after.rss-idle.rss) / 1024, // all of their code has run by then
		each(after.workerRSS - before.workerRSS), each(before.available - after.available),
		µs(0.5), µs(0.99), µs(0.999),
	}, nil
}

// settled waits until the workers are there, and looks.
func settled(workers int) (h holding, err error) {
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if h, err = lookAt(); err != nil || len(h.workers) == workers {
			break
		}
		if time.Now().After(deadline) {
			return h, fmt.Errorf("%d workers of %d are there after %v", len(h.workers), workers, patience)
		}
	}
	time.Sleep(200 * time.Millisecond) // until they have begun
	if err == nil {
		h, err = lookAt()
	}
	return h, err
}

func lookAt() (h holding, err error) {
	h.workers = map[int]int{}
	all, err := processes()
	if err != nil {
		return h, err
	}
	for _, p := range all {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.pid))
		if err != nil {
			return h, err
		}
		switch p.name {
		case "epollworker":
			h.workers[p.pid] = len(entries)
			h.workerRSS += int(p.rss)
		case "fdkit":
			h.fds += len(entries)
			h.rss += int(p.rss)
		}
	}
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return h, err
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "MemAvailable:" {
			kib, err := strconv.Atoi(fields[1])
			h.available = kib << 10
			return h, err
		}
	}
	return h, errors.New("/proc/meminfo has no MemAvailable")
}
