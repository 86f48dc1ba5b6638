//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// start is the suite of what a command costs before it does anything, and while it has
// nothing to do.
func start(b *bench) error {
	starts, err := b.starts()
	if err != nil {
		return err
	}
	if err := b.compare(starts); err != nil {
		return err
	}
	memory, err := b.memoryTable()
	if err != nil {
		return err
	}
	if err := b.compare(memory); err != nil {
		return err
	}
	return b.report("start", "Cost of a command", starts, memory)
}

// emptyGo is built as fdkit is.
const emptyGo = `//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

package main

func main() {}
`

func (b *bench) buildEmptyGo() (string, error) {
	source, path := filepath.Join(b.dir, "empty.go"), filepath.Join(b.dir, "empty-go")
	if err := os.WriteFile(source, []byte(emptyGo), 0o666); err != nil {
		return "", err
	}
	c := exec.Command("go", "build", "-trimpath", "-o", path, source)
	c.Dir = b.dir
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GO111MODULE=off")
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
}

// starts compares how long commands take that do nothing, or receive a descriptor and
// become a program that does nothing.
func (b *bench) starts() (*table, error) {
	empty, err := b.compile("empty")
	if err != nil {
		return nil, err
	}
	exit, err := b.compile("exit", freestanding...)
	if err != nil {
		return nil, err
	}
	starter, err := b.compile("starter")
	if err != nil {
		return nil, err
	}
	emptyGo, err := b.buildEmptyGo()
	if err != nil {
		return nil, err
	}
	var alone float64 // what the program that only exits took in this round
	row := func(name, needs, pkg string, becomes bool, s server) contestant {
		return contestant{name, needs, pkg, func() ([]float64, error) {
			figures, err := b.measureStarts(s)
			if err != nil {
				return nil, err
			}
			whole := figures[0]
			if becomes {
				whole -= alone
			} else if name == onlyExits {
				alone = whole
			}
			return append([]float64{whole}, figures...), nil
		}}
	}
	count := "300"
	if b.quick {
		count = "10"
	}
	one := func(command ...string) server {
		return server{commands: func(place) [][]string { return [][]string{command} }}
	}
	return &table{
		name:  "start",
		title: "Start of recv-exec",
		notes: []string{
			"Whole is the time from vfork to the end of the process, the median of " + count + " starts in each round. " +
				"Those that receive a descriptor then become the program that only exits; until exec is without the time that this takes in the same round.",
		},
		metrics: []metric{
			{name: "until exec", unit: "µs", ratio: true, plot: true},
			{name: "whole", unit: "µs"},
			{name: "p99 of whole", unit: "µs"},
			{name: "CPU", unit: "µs"},
		},
		contestants: []contestant{
			row("an empty Go program", "", "", false, one(starter, count, emptyGo)),
			row(onlyExits, "", "", false, one(starter, count, exit)),
			row("an empty C program, static", "", "", false, one(starter, count, empty)),
			row("fdkit recv-exec, stdin is a socket", "", "", true, one(starter, "-m", count, b.fdkit, "recv-exec", exit)),
			row("fdkit recv-exec, from a shell pipe", "", "", true, server{commands: func(p place) [][]string {
				port := strconv.Itoa(int(p.address.Port()))
				return [][]string{
					{b.fdkit, "listen", p.address.String()},
					{starter, "-c", p.address.Addr().String(), port, count, b.fdkit, "recv-exec", exit},
				}
			}}),
			row("s6-fdholder-retrieve", "s6-fdholder-daemon", "s6", true, server{prepare: fdholderRules, commands: func(place) [][]string {
				return [][]string{
					{"s6-fdholder-daemon", "-1", "-i", "rules", "holder"},
					{"sh", "-c", `read -r ready; s6-fdholder-store holder it </dev/null && exec "$0" "$@"`, starter, count, "s6-fdholder-retrieve", "holder", "it", exit},
				}
			}}),
		},
	}, nil
}

const onlyExits = "a program that only exits, without a C library"

// fdholderRules let everybody store and retrieve, s6-accessrules(1).
func fdholderRules(p place) error {
	dir := filepath.Join(p.dir, "rules/uid/default")
	for name, value := range map[string]string{"allow": "", "env/S6_FDHOLDER_STORE_REGEX": ".", "env/S6_FDHOLDER_RETRIEVE_REGEX": "."} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(value), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// measureStarts runs a server whose last command is the starter, and returns the median
// of the times, the time that one of a hundred exceeds, and the median CPU time.
func (b *bench) measureStarts(s server) (figures []float64, err error) {
	r, err := b.launch(s)
	if err != nil {
		return nil, err
	}
	defer func() { err = r.finish(err) }()
	if err := r.last(); err != nil {
		return nil, err
	}
	log, err := os.Open(filepath.Join(r.dir, "stdout"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	var times, cpu []float64
	for lines := bufio.NewScanner(log); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) != 2 {
			return nil, fmt.Errorf("the starter says %q", lines.Text())
		}
		for i, to := range []*[]float64{&times, &cpu} {
			n, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				return nil, err
			}
			*to = append(*to, n)
		}
	}
	if len(times) == 0 {
		return nil, errors.New("the starter has said nothing")
	}
	slices.Sort(times)
	slices.Sort(cpu)
	n := len(times)
	return []float64{times[n/2], times[n*99/100], cpu[n/2]}, nil
}

// memoryTable tells what commands take that wait, and whether they grow.
func (b *bench) memoryTable() (*table, error) {
	echo, err := b.compile("echo-line", freestanding...)
	if err != nil {
		return nil, err
	}
	answer, err := b.compile("answer")
	if err != nil {
		return nil, err
	}
	total := b.connections
	if b.quick {
		total = 200
	}
	listen := func(receiver ...string) server {
		return server{commands: func(p place) [][]string {
			return [][]string{{b.fdkit, "listen", p.address.String()}, append([]string{b.fdkit, "pool"}, receiver...)}
		}}
	}
	resident := listen("--resident", "-n", "2", answer)
	row := func(name, needs, pkg, arg string, s server, total int) contestant {
		return contestant{name, needs, pkg, func() ([]float64, error) { return b.measureGrowth(s, arg, total) }}
	}
	spawned := max(100, total/10)
	return &table{
		name:  "memory",
		title: "Memory",
		notes: []string{
			"Resident memory of one process: once it listens, after a tenth of the connections, and after all. " +
				"Pages of the program's file count as well, which all fdkit processes share; private is what is this process's alone.",
			fmt.Sprintf("%d connections handed over to resident workers, or %d with a program for each; `--connections` changes that.", total, spawned),
		},
		metrics: []metric{
			{name: "idle", unit: "MiB", digits: 1},
			{name: "private", unit: "MiB", digits: 1},
			{name: "after a tenth", unit: "MiB", digits: 1},
			{name: "after all", unit: "MiB", digits: 1},
			{name: "growth after a tenth", unit: "KiB"},
		},
		rounds: 1,
		contestants: []contestant{
			row("fdkit listen", "", "", "listen", resident, total),
			row("fdkit pool --resident", "", "", "pool", resident, total),
			row("fdkit pool -n 1000", "", "", "pool", listen("-n", "1000", echo), spawned),
			row("fdkit serve -n 1000", "", "", "serve", server{commands: func(p place) [][]string {
				return [][]string{{b.fdkit, "serve", "-n", "1000", p.address.String(), echo}}
			}}, spawned),
			row("tcpserver -c 1000", "tcpserver", "ucspi-tcp", "-HRDl0", server{commands: func(p place) [][]string {
				return [][]string{{"tcpserver", "-HRDl0", "-c", "1000", "-b", backlog, p.address.Addr().String(), strconv.Itoa(int(p.address.Port())), echo}}
			}}, spawned),
		},
	}, nil
}

// measureGrowth gives connections to a server, and returns the memory of that one of its
// processes which has the argument.
func (b *bench) measureGrowth(s server, arg string, total int) (figures []float64, err error) {
	r, err := b.start(s)
	if err != nil {
		return nil, err
	}
	defer func() { err = r.finish(err) }()
	// All are there when the first connection is answered.
	l := load{address: r.address, clients: 32, sources: 32, total: 1, length: time.Hour, question: []byte("a line\n"), answer: []byte("a line\n")}
	var sizes []process
	for _, total := range []int{1, total / 10, total - total/10} {
		l.total = total
		done, err := l.run()
		if err != nil {
			return nil, err
		}
		if done.failed > 0 {
			return nil, fmt.Errorf("%d of %d connections failed, the last: %w", done.failed, total, done.failure)
		}
		p, err := processWith(arg)
		if err != nil {
			return nil, err
		}
		sizes = append(sizes, p)
	}
	mib := func(n int64) float64 { return float64(n) / (1 << 20) }
	return []float64{
		mib(sizes[0].rss), mib(sizes[0].private), mib(sizes[1].rss), mib(sizes[2].rss), float64(sizes[2].rss-sizes[1].rss) / 1024,
	}, nil
}

// processWith returns the process whose first argument is that.
func processWith(arg string) (process, error) {
	all, err := processes()
	if err != nil {
		return process{}, err
	}
	for _, p := range all {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid))
		if err != nil {
			continue
		}
		if words := strings.Split(string(line), "\x00"); len(words) > 1 && words[1] == arg {
			return p, nil
		}
	}
	return process{}, fmt.Errorf("no process has the argument %s", arg)
}

// last waits for the last command of the server, which is to end well.
func (r *running) last() error {
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(r.pid, &status, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return os.NewSyscallError("wait4", err)
		case !status.Exited() || status.ExitStatus() != 0:
			return fmt.Errorf("it has ended with status %#x", uint32(status))
		default:
			return nil
		}
	}
}
