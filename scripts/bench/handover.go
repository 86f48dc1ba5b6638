//go:build linux

package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
)

// prefork are the ways in which workers of C have their connections.
type prefork struct {
	b               *bench
	worker, prefork string // programs
}

func (b *bench) preforks() (p prefork, err error) {
	p.b = b
	if p.worker, err = b.compile("worker"); err == nil {
		p.prefork, err = b.compile("prefork")
	}
	return p, err
}

// c is a server of C: so many workers that wait in some way.
func (w prefork) c(mode string, n int, wait string) server {
	return server{commands: func(p place) [][]string { return [][]string{w.command(mode, n, wait, p.address)} }}
}

func (w prefork) command(mode string, n int, wait string, a netip.AddrPort) []string {
	return []string{w.prefork, mode, strconv.Itoa(n), a.Addr().String(), strconv.Itoa(int(a.Port())), w.worker, wait}
}

// fdkit is fdkit listen with a pool of such workers.
func (w prefork) fdkit(n int, options ...string) server {
	return server{commands: func(p place) [][]string {
		pool := append([]string{w.b.fdkit, "pool", "--resident", "-n", strconv.Itoa(n)}, options...)
		return [][]string{{w.b.fdkit, "listen", p.address.String()}, append(pool, w.worker)}
	}}
}

// haproxy is HAProxy in front of such workers.
func (w prefork) haproxy(n int) server {
	config := func(p place) string { return filepath.Join(p.dir, "haproxy.cfg") }
	behind := func(p place) netip.AddrPort { return netip.AddrPortFrom(p.address.Addr(), p.address.Port()-1000) }
	return server{
		prepare: func(p place) error {
			return os.WriteFile(config(p), fmt.Appendf(nil, `defaults
	mode tcp
	maxconn 4000
	timeout connect 10s
	timeout client 10s
	timeout server 10s
listen bench
	bind %s backlog %s
	server workers %s
`, p.address, backlog, behind(p)), 0o644)
		},
		// The shell is there as all are started at once, and the workers must be first.
		commands: func(p place) [][]string {
			workers := w.command("listening", n, "block", behind(p))
			return [][]string{append([]string{"sh", "-c", `"$@" & sleep 0.1; exec haproxy -q -db -f ` + config(p), "sh"}, workers...)}
		},
	}
}

// handover is the suite of workers that stay, and of who hands them their connections.
func handover(b *bench) error {
	w, err := b.preforks()
	if err != nil {
		return err
	}
	const workers = 4
	var tables []*table
	for _, clients := range []int{64, 1} {
		t := &table{
			name:  fmt.Sprintf("handover-%d", clients),
			title: fmt.Sprintf("Hand-over to %d resident workers: %s", workers, atOnce(clients)),
			notes: []string{
				"The workers are the same program of C everywhere, and block until they have a connection. Each client connects, sends 64 bytes, reads the answer and the end, closes. " +
					"Ratios are to the same hand-over in C.",
			},
			metrics: loadMetrics,
		}
		for _, s := range []spawnerServer{
			{"C: accept and hand over, one queue (the limit)", "", "", w.c("shared", workers, "block")},
			{"C: accept and hand over, a queue for each worker", "", "", w.c("private", workers, "block")},
			{"fdkit listen \\| fdkit pool --resident --share", "", "", w.fdkit(workers, "--share")},
			{"fdkit listen \\| fdkit pool --resident", "", "", w.fdkit(workers)},
			{"C: all accept from one socket", "", "", w.c("listening", workers, "block")},
			{"C: SO_REUSEPORT", "", "", w.c("reuseport", workers, "block")},
			{"HAProxy in front of workers that accept", "haproxy", "haproxy", w.haproxy(workers)},
		} {
			l := load{clients: clients, question: make([]byte, question), answered: func(a []byte) bool { return len(a) > 1 && a[len(a)-1] == '\n' }}
			t.contestants = append(t.contestants, contestant{s.name, s.needs, s.pkg, func() ([]float64, error) {
				return b.measureLoad(s.server, l)
			}})
		}
		if err := b.compare(t); err != nil {
			return err
		}
		tables = append(tables, t)
	}
	return b.report("handover", "Hand-over to resident workers", tables...)
}
