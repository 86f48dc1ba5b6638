//go:build linux

package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// slots is how many programs each contestant may run at once: more than there are
// clients, so that none of them is kept waiting.
const slots = "100"

// backlog is what fdkit has by default; some others have 20, which 32 clients fill.
const backlog = "4096"

// spawn is the suite of servers that start one program per connection.
func spawn(b *bench) error {
	echo, err := b.compile("echo-line", freestanding...)
	if err != nil {
		return err
	}
	var tables []*table
	for _, program := range []struct {
		name, path string
		half       bool // it ends when its input does
	}{
		{"a static program that echoes a line", echo, false},
		{"/bin/cat", "/bin/cat", true},
	} {
		for _, clients := range []int{32, 1} {
			if b.quick && program.half == (clients > 1) {
				continue // it is enough that each has one client once, and many
			}
			t := &table{
				name:  fmt.Sprintf("spawn-%s-%d", filepath.Base(program.path), clients),
				title: fmt.Sprintf("One program per connection: %s, %s", program.name, atOnce(clients)),
				notes: []string{
					"Each client connects, sends a line, reads the answer and the end, closes. " +
						"CPU is the time that the server and its programs have used, from their cgroup. " +
						"Memory is that of the idle server after the load, PSS. " +
						"The load generator is one thread, which can take one CPU.",
				},
				metrics: loadMetrics,
				absent: [][2]string{
					{"s6-tcpserver", "not packaged in Debian 12 (s6-networking)"},
					{"busybox tcpsvd", "not built into Debian's busybox"},
				},
			}
			l := load{clients: clients, question: []byte("a line\n"), answer: []byte("a line\n"), half: program.half}
			if program.half {
				l.sources = 32 // the client closes first, and has the sockets in TIME_WAIT
			}
			servers, err := b.spawners(program.path)
			if err != nil {
				return err
			}
			for _, s := range servers {
				t.contestants = append(t.contestants, contestant{s.name, s.needs, s.pkg, func() ([]float64, error) {
					return b.measureLoad(s.server, l)
				}})
			}
			if err := b.compare(t); err != nil {
				return err
			}
			tables = append(tables, t)
		}
	}
	return b.report("spawn", "One program per connection", tables...)
}

func atOnce(clients int) string {
	if clients == 1 {
		return "1 client"
	}
	return fmt.Sprintf("%d clients", clients)
}

// loadMetrics are what measureLoad returns.
var loadMetrics = []metric{
	{name: "connections", unit: "1/s", ratio: true, plot: true},
	{name: "server CPU", unit: "ms per 1000", digits: 1, ratio: true, plot: true},
	{name: "p50", unit: "µs", ratio: true},
	{name: "p99", unit: "µs"},
	{name: "p99.9", unit: "µs"},
	{name: "memory", unit: "MiB", digits: 1},
	{name: "failed"},
	{name: "generator", unit: "% of a CPU"},
}

// measureLoad starts the server anew, warms it up, and loads it.
func (b *bench) measureLoad(s server, l load) (figures []float64, err error) {
	r, err := b.start(s)
	if err != nil {
		return nil, err
	}
	defer func() { err = r.finish(err) }()
	l.address = r.address
	if b.quick {
		l.total = 2 * l.clients
	}
	l.length = b.each / 4
	if _, err = l.run(); err != nil {
		return nil, fmt.Errorf("warming up: %w", err)
	}
	if _, err = r.cpu(); err != nil {
		return nil, err
	}
	l.length = b.each
	done, err := l.run()
	if err != nil {
		return nil, err
	}
	used, err := r.cpu()
	if err != nil {
		return nil, err
	}
	memory, err := pss()
	if err != nil {
		return nil, err
	}
	µs := func(q float64) float64 { return float64(done.quantile(q).Nanoseconds()) / 1e3 }
	return []float64{
		done.rate(), b.perThousand(used, done.connections), µs(0.5), µs(0.99), µs(0.999),
		float64(memory) / (1 << 20), float64(done.failed), 100 * done.cpu.Seconds() / done.took.Seconds(),
	}, nil
}

// perThousand returns the CPU time of so many connections in milliseconds per thousand.
// Without a cgroup it is not a number: getrusage(2) would leave out children that nobody
// has waited for.
func (b *bench) perThousand(used time.Duration, connections int) float64 {
	if b.group == nil {
		return math.NaN()
	}
	return used.Seconds() * 1e6 / float64(connections)
}

// spawnerServer is a server that starts programs.
type spawnerServer struct {
	name, needs, pkg string
	server
}

// spawners returns the servers that start the program.
func (b *bench) spawners(program string) ([]spawnerServer, error) {
	handover, err := b.compile("handover")
	if err != nil {
		return nil, err
	}
	spawner, err := b.compile("spawner")
	if err != nil {
		return nil, err
	}
	ip := func(p place) string { return p.address.Addr().String() }
	port := func(p place) string { return strconv.Itoa(int(p.address.Port())) }
	config := func(p place) string { return filepath.Join(p.dir, "config") }
	one := func(command func(p place) []string) server {
		return server{commands: func(p place) [][]string { return [][]string{command(p)} }}
	}
	configured := func(text func(p place) string, command func(p place) []string) server {
		s := one(command)
		s.prepare = func(p place) error { return os.WriteFile(config(p), []byte(text(p)), 0o644) }
		return s
	}
	socat := func(p place) string {
		return "TCP-LISTEN:" + port(p) + ",bind=" + ip(p) + ",fork,reuseaddr,backlog=" + backlog
	}
	return []spawnerServer{
		{"C: accept, hand over, spawn (the limit)", "", "", one(func(p place) []string {
			return []string{handover, "1", ip(p), port(p), program}
		})},
		{"C: accept and spawn, 2 processes", "", "", one(func(p place) []string {
			return []string{spawner, "2", ip(p), port(p), program}
		})},
		{"C: accept and spawn", "", "", one(func(p place) []string {
			return []string{spawner, "1", ip(p), port(p), program}
		})},
		{"fdkit listen \\| fdkit pool", "", "", server{commands: func(p place) [][]string {
			return [][]string{{b.fdkit, "listen", p.address.String()}, {b.fdkit, "pool", "-n", slots, program}}
		}}},
		{"fdkit serve", "", "", one(func(p place) []string {
			return []string{b.fdkit, "serve", "-n", slots, p.address.String(), program}
		})},
		{"tcpserver", "tcpserver", "ucspi-tcp", one(func(p place) []string {
			// No look-ups, no delay: -HRDl0 as its manual advises for speed.
			return []string{"tcpserver", "-HRDl0", "-c", slots, "-b", backlog, ip(p), port(p), program}
		})},
		{"tcpsvd", "tcpsvd", "ipsvd", one(func(p place) []string {
			return []string{"tcpsvd", "-l", "0", "-c", slots, "-b", backlog, ip(p), port(p), program}
		})},
		{"xinetd", "xinetd", "xinetd", configured(func(p place) string {
			return fmt.Sprintf(`service bench
{
	type = UNLISTED
	socket_type = stream
	protocol = tcp
	bind = %s
	port = %s
	wait = no
	user = root
	server = %s
	instances = %s
	cps = 1000000 1
}
`, ip(p), port(p), program, slots)
		}, func(p place) []string {
			return []string{"xinetd", "-dontfork", "-f", config(p), "-pidfile", filepath.Join(p.dir, "pid"), "-filelog", filepath.Join(p.dir, "log")}
		})},
		{"openbsd-inetd", "inetd", "openbsd-inetd", configured(func(p place) string {
			return fmt.Sprintf("%s:%s stream tcp nowait.1000000 root %s %[3]s\n", ip(p), port(p), program)
		}, func(p place) []string {
			return []string{"inetd", "-i", config(p)}
		})},
		{"systemd-socket-activate", "systemd-socket-activate", "systemd", one(func(p place) []string {
			return []string{"systemd-socket-activate", "--accept", "--inetd", "-l", p.address.String(), program}
		})},
		{"socat EXEC", "socat", "socat", one(func(p place) []string {
			return []string{"socat", socat(p), "EXEC:" + program}
		})},
		{"socat EXEC nofork", "socat", "socat", one(func(p place) []string {
			return []string{"socat", socat(p), "EXEC:" + program + ",nofork"}
		})},
		{"ncat", "ncat", "ncat", one(func(p place) []string {
			return []string{"ncat", "-l", "-k", "-m", slots, "--exec", program, ip(p), port(p)}
		})},
	}, nil
}
