//go:build linux

package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	mostProcessor = 0.05 // of the time that a shortage lasts
	mostRecovery  = 100 * time.Millisecond
)

// shortages brings about the same shortage three times while clients come, and looks at
// what a process does meanwhile. The verdicts take the best of the three, since what else
// runs on the machine can only make it look worse.
func (e *env) shortages(r *row, l *load, p *process, bring func() (end func() error, err error)) {
	least, recovery := 1.0, patience
	lasts := time.Duration(e.n(1, 10)) * time.Second
	for range 3 {
		l.run(100, e.stop)
		end, err := bring()
		e.must(err)
		r.faults++
		done := make(chan struct{})
		go func() {
			defer close(done)
			l.run(60, e.stop) // some may be served yet: accept4 takes a descriptor before it waits
		}()
		e.await("clients wait", func() bool { return l.open.Load() == 50 })
		least = min(least, e.processor(p, lasts))
		finished := l.finished.Load()
		begin := time.Now()
		e.must(end())
		e.within(patience, func() bool { return l.finished.Load() > finished })
		recovery = min(recovery, time.Since(begin))
		<-done
	}
	l.count(r)
	r.note("the best of three: %.2f %% of a processor for %v, recovery in %v", 100*least, lasts, recovery.Round(time.Millisecond))
	r.expectAllServed()
	r.expect(least < mostProcessor, "under 5 % of a processor", "%.1f %%", 100*least)
	r.expect(recovery <= mostRecovery, "recovery in 100 ms", "%v", recovery)
}

// processor returns the share of a processor that a process has in a time.
func (e *env) processor(p *process, lasts time.Duration) float64 {
	before, err := processorTime(p.pid())
	e.must(err)
	time.Sleep(lasts)
	after, err := processorTime(p.pid())
	e.must(err)
	return float64(after-before) / float64(lasts)
}

// fewForListen leaves listen no descriptor to accept with.
func fewForListen(e *env, r *row) {
	listen, _, l := e.resident("4", 480, 50)
	e.shortages(r, l, listen, func() (func() error, error) { return fewFiles(listen.pid(), 0) })
	if text := listen.read(); strings.Count(text, "too many open files") != 3 {
		r.expect(false, "said once each time", "the log is %q", text)
	}
}

// fewForServe leaves serve none. Its programs would inherit the limit.
func fewForServe(e *env, r *row) {
	record := e.record(480)
	serve, address := e.serve("127.0.0.1:0", []string{"-n", "4", "--limit", "nofile=1024"}, e.server, record.path, "one", "0s")
	e.shortages(r, newLoad(address, record, 50), serve, func() (func() error, error) { return fewFiles(serve.pid(), 0) })
	if text := serve.read(); strings.Count(text, "too many open files") < 3 {
		r.expect(false, "said each time", "the log is %q", text)
	}
}

// fewForPool leaves pool no descriptor to receive with: what it cannot receive is lost, and
// counted, and the first that comes when there are descriptors again is served.
func fewForPool(e *env, r *row) {
	n := e.n(2_000, 20_000)
	_, pool, l := e.resident("4", 2*n, 16)
	least := 1.0
	for range 10 {
		l.run(n/10, e.stop)
		restore, err := fewFiles(pool.pid(), 0)
		e.must(err)
		r.faults++
		l.run(n/10, e.stop)
		least = min(least, e.processor(pool, 500*time.Millisecond))
		e.must(restore())
	}
	l.count(r)
	counted := e.metrics(e.at("pool.metrics"))["fdkit_lost_total"]
	failed := r.reset + r.lost + r.cut
	r.note("%d connections were lost, and pool has counted %d", failed, counted)
	r.expect(failed == counted && failed > 0, "every loss counted", "%d lost, %d counted", failed, counted)
	r.expect(r.served+failed == r.connections, "all others served", "%d of %d", r.served, r.connections-failed)
	r.expect(r.duplicated == 0, "0 duplicated", "%d", r.duplicated)
	r.expect(least < mostProcessor, "under 5 % of a processor when none come", "%.1f %%", 100*least)
	r.expect(strings.Contains(pool.read(), "too many open files") || strings.Contains(pool.read(), "RLIMIT_NOFILE"), "said", "the log is %q", pool.read())
}

// nobody is an ordinary user.
const nobody = 65534

// inFlight lets an ordinary user have as many descriptors in flight as it may, with
// RLIMIT_NOFILE 64.
func inFlight(e *env, r *row) {
	if os.Geteuid() != 0 {
		r.skipped = "only root can be another user"
		return
	}
	record := e.record(480)
	e.startFdkit("pool", "--from", e.at("q"), "--owner", fmt.Sprint(nobody), "--resident", "-n", "4", "--ready-timeout", "30s",
		e.server, record.path, "resident", "0s")
	e.await("the queue is there", func() bool { _, err := os.Stat(e.at("q")); return err == nil })
	cmd := exec.Command("sh", append([]string{"-c", `ulimit -n 64; exec "$0" "$@"`, e.fdkit}, e.listenArgs("--to", e.at("q"))...)...)
	cmd.SysProcAttr = asNobody()
	listen, address := e.listenAs(cmd)
	l := newLoad(address, record, 50)
	e.shortages(r, l, listen, func() (func() error, error) {
		stuff := exec.Command(e.server, record.path, "stuff", "0s")
		stuff.SysProcAttr = asNobody()
		input, err := stuff.StdinPipe()
		if err != nil {
			return nil, err
		}
		output, err := stuff.StdoutPipe()
		if err != nil {
			return nil, err
		}
		p := e.start(stuff)
		if _, err := io.ReadFull(output, make([]byte, 1)); err != nil {
			return nil, fmt.Errorf("nothing is in flight: %w: %s", err, p.read())
		}
		return func() error {
			if err := input.Close(); err != nil {
				return err
			}
			<-p.ended
			return nil
		}, nil
	})
}

func asNobody() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
}

// stuff sends descriptors to itself until it may not send more, says so, and keeps them in
// flight until the end of its standard input.
func stuff() error {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return os.NewSyscallError("socketpair", err)
	}
	rights := unix.UnixRights(slices.Repeat([]int{0}, 200)...)
	for n := 0; ; n++ {
		err := unix.Sendmsg(fds[0], []byte{0}, rights, nil, 0)
		if err == unix.ETOOMANYREFS || err == unix.EAGAIN && n*200 > 1024 {
			break
		}
		if err != nil {
			return os.NewSyscallError("sendmsg", err)
		}
	}
	if _, err := os.Stdout.Write([]byte("\n")); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}
