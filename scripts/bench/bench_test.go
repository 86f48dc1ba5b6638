//go:build linux

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// programs has fdkit, bench and epollworker.
var programs string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "bench-test")
	if err != nil {
		panic(err)
	}
	programs = dir
	status := m.Run()
	os.RemoveAll(dir)
	os.Exit(status)
}

var build = sync.OnceValue(func() error {
	for name, from := range map[string]string{"fdkit": "../..", "epollworker": "../examples/epollworker", "bench": "."} {
		c := exec.Command("go", "build", "-trimpath", "-tags=urfave_cli_no_docs", "-o", filepath.Join(programs, name), ".")
		c.Dir = from
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("go build of %s: %w\n%s", name, err, out)
		}
	}
	return nil
})

// built returns the command that runs bench, in a directory of its own.
func built(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	if err := build(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	temporary := filepath.Join(dir, "tmp")
	if err := os.Mkdir(temporary, 0o777); err != nil {
		t.Fatal(err)
	}
	args = append([]string{"--quick", "--fdkit", filepath.Join(programs, "fdkit"), "--out", filepath.Join(dir, "results")}, args...)
	c := exec.Command(filepath.Join(programs, "bench"), args...)
	c.Env = append(os.Environ(), "TMPDIR="+temporary)
	c.Dir = dir
	return c
}

// nothingLeft tells whether all processes of the run have ended.
func nothingLeft(c *exec.Cmd) bool {
	all, _ := filepath.Glob("/proc/[0-9]*/environ")
	return !slices.ContainsFunc(all, func(file string) bool {
		text, _ := os.ReadFile(file)
		return bytes.Contains(text, []byte("TMPDIR="+c.Dir+"/tmp\x00"))
	})
}

// Every contestant still starts and answers, and leaves nothing.
func TestQuick(t *testing.T) {
	c := built(t, "all")
	begin := time.Now()
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("bench: %v\n%s", err, out)
	}
	t.Logf("took %v", time.Since(begin))
	for _, s := range suites {
		text, err := os.ReadFile(filepath.Join(c.Dir, "results", s.name+".md"))
		if err != nil {
			t.Fatal(err)
		}
		plots := strings.Count(string(text), ".svg)")
		if !strings.Contains(string(text), "\n| fdkit ") || plots == 0 {
			t.Errorf("suite %s has no figures of fdkit, or no plot:\n%s", s.name, text)
		}
		for line := range strings.Lines(string(text)) {
			_, after, _ := strings.Cut(line, "](")
			if name, found := strings.CutSuffix(strings.TrimSpace(after), ".svg)"); found {
				plot, err := os.ReadFile(filepath.Join(c.Dir, "results", name+".svg"))
				if err != nil || !bytes.Contains(plot, []byte("</svg>")) {
					t.Errorf("plot %s: %d bytes, %v", name, len(plot), err)
				}
			}
		}
	}
	if left, err := os.ReadDir(filepath.Join(c.Dir, "tmp")); err != nil || len(left) > 0 || !nothingLeft(c) {
		t.Errorf("files are left, or processes: %v, %v", left, err)
	}
	if left := cgroupsOf(c); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// However a run ends, it takes with it all that it has started; where it can, its files
// and its cgroup as well.
func TestEnded(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			c := built(t, "spawn")
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			within(t, "a contestant has started", func() bool {
				all, _ := filepath.Glob(filepath.Join(c.Dir, "tmp", "*", "server*", "log"))
				return len(all) > 0
			})
			if err := c.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			if err := c.Wait(); err == nil {
				t.Error("it has ended well")
			}
			within(t, "all processes have ended", func() bool { return nothingLeft(c) })
			if sig == syscall.SIGKILL {
				for _, dir := range cgroupsOf(c) {
					within(t, "its cgroup is empty", func() bool { return os.Remove(dir) == nil })
				}
				return
			}
			left, _ := filepath.Glob(filepath.Join(c.Dir, "tmp", "*"))
			if left = append(left, cgroupsOf(c)...); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// cgroupsOf returns the cgroups that a run has made.
func cgroupsOf(c *exec.Cmd) (all []string) {
	for _, dir := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		found, _ := filepath.Glob(fmt.Sprintf("%sfdkit-bench-%d", dir, c.Process.Pid))
		all = append(all, found...)
	}
	return all
}

// within waits until it is so.
func within(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		column []float64
		want   spread
	}{
		{[]float64{3}, spread{3, 3, 3}},
		{[]float64{4, 2}, spread{3, 2, 4}},
		{[]float64{9, 1, 5}, spread{5, 1, 9}},
		{[]float64{0.9, 1.2, 1, 1.1, 5}, spread{1.1, 0.9, 5}},
	} {
		var rounds [][]float64
		for _, figure := range c.column {
			rounds = append(rounds, []float64{0, figure})
		}
		if got := spreadOf(rounds, 1); got != c.want {
			t.Errorf("spreadOf(%v) = %v; want %v", c.column, got, c.want)
		}
	}
}

func TestQuantile(t *testing.T) {
	s := &served{}
	if got := s.quantile(0.5); got != 0 {
		t.Errorf("quantile without connections = %v; want 0", got)
	}
	for i := range 1000 {
		s.latencies = append(s.latencies, time.Duration(i+1))
	}
	for q, want := range map[float64]time.Duration{0: 1, 0.5: 501, 0.99: 991, 0.999: 1000, 1: 1000} {
		if got := s.quantile(q); got != want {
			t.Errorf("quantile(%v) = %v; want %v", q, int64(got), int64(want))
		}
	}
}

// Interleaved, and each ratio to the reference of the same round.
func TestCompare(t *testing.T) {
	var order []string
	measured := func(name string, figures ...float64) contestant {
		next := 0
		return contestant{name: name, measure: func() ([]float64, error) {
			order = append(order, name)
			next++
			if figures[next-1] < 0 {
				return nil, errors.New("it is negative")
			}
			return figures[next-1 : next], nil
		}}
	}
	tab := &table{
		name:    "test",
		metrics: []metric{{name: "figure", ratio: true}},
		contestants: []contestant{
			measured("A", 100, 200, 400), measured("B", 50, 300, 200), measured("C", 1, -1),
			{name: "D", needs: "no-such-program", pkg: "no-such-package"},
			measured("other"),
		},
		absent: [][2]string{{"E", "not packaged"}},
	}
	b := &bench{rounds: 3, only: regexp.MustCompile("^[A-E]$")}
	if err := b.compare(tab); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(order, ""); got != "ABCABCAB" {
		t.Errorf("measured in the order %s; want ABCABCAB", got)
	}
	if got, want := spreadOf(tab.rows[1].ratios, 0), (spread{0.5, 0.5, 1.5}); got != want {
		t.Errorf("ratios of B are %v; want %v", got, want)
	}
	var text strings.Builder
	tab.write(&text)
	_, lines, _ := strings.Cut(text.String(), "|:---|---:|---:|\n")
	if want := `| A | 200 | 1.00 (1.00..1.00) |
| B | 200 | 0.50 (0.50..1.50) |
| C | failed | |
| D | not installed (package no-such-package) | |
| E | not packaged | |
`; lines != want {
		t.Errorf("the table is\n%s\nwant\n%s", lines, want)
	}
	if want := "test, C, round 2: it is negative"; len(b.failed) != 1 || b.failed[0] != want {
		t.Errorf("failed: %v; want %s", b.failed, want)
	}
	if !slices.Equal(b.missing, []string{"no-such-package"}) {
		t.Errorf("missing: %v", b.missing)
	}
}

// echo serves connections as reply says, until the test ends.
func echo(t *testing.T, reply func(line string) string) netip.AddrPort {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			line, _ := bufio.NewReader(conn).ReadString('\n')
			_, _ = io.WriteString(conn, reply(line))
			conn.Close()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func TestLoad(t *testing.T) {
	question := []byte("a line\n")
	same := func(line string) string { return line }
	n := 0
	for _, c := range []struct {
		name  string
		reply func(line string) string
		load  load
		want  string // error
		fail  int
	}{
		{"so many", same, load{clients: 8, total: 100, answer: question}, "", 0},
		{"several addresses", same, load{clients: 8, total: 100, sources: 300, answer: question}, "", 0},
		{"both sides", same, load{clients: 1, total: 10, half: true, answer: question}, "", 0},
		{"wrong answers", func(string) string { n++; return []string{"a line\n", "other"}[n%2] }, load{clients: 1, total: 10, answer: question}, "", 5},
		{"no answer", func(string) string { return "" }, load{clients: 4, total: 10, answer: question}, `no connection was answered: the answer is ""`, 0},
		{"an answer that is looked at", same, load{clients: 4, total: 10, answered: func(answer []byte) bool { return string(answer) == "a line\n" }}, "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.load.address, c.load.question, c.load.length = echo(t, c.reply), question, time.Minute
			got, err := c.load.run()
			if c.want != "" {
				if err == nil || err.Error() != c.want {
					t.Errorf("run() = %v; want %s", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.connections != c.load.total-c.fail || got.failed != c.fail || len(got.latencies) != got.connections {
				t.Errorf("run() = %d answered, %d failed (%v), %d latencies; want %d and %d",
					got.connections, got.failed, got.failure, len(got.latencies), c.load.total-c.fail, c.fail)
			}
		})
	}
	l := load{address: netip.MustParseAddrPort("127.0.0.1:1"), clients: 2, length: time.Minute}
	if _, err := l.run(); err == nil || !strings.Contains(err.Error(), "more than 1000 connections failed") {
		t.Errorf("run() where nobody listens = %v", err)
	}
}

func TestMemberPath(t *testing.T) {
	member := "8:cpu,cpuacct:/a/b\n4:memory:/m\n0::/a/c\n"
	for _, c := range [][4]string{
		{"", "/", "/sys/fs/cgroup", "/sys/fs/cgroup/a/c"},
		{"cpuacct", "/", "/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu/a/b"},
		{"cpuacct", "/a", "/x", "/x/b"},
		{"cpuacct", "/other", "/x", "/x"}, // mounted from elsewhere
		{"pids", "/", "/x", "/x"},
	} {
		if got := memberPath([]byte(member), c[0], c[1], c[2]); got != c[3] {
			t.Errorf("memberPath(%q, %q, %q) = %s; want %s", c[0], c[1], c[2], got, c[3])
		}
	}
}
