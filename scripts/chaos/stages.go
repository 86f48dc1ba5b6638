//go:build linux

package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// killStages ends each stage of listen | tap | pool with each signal that does, at some
// moment under load. A second later no process, file or port may be left.
func killStages(e *env, r *row) {
	const stages, clients = 3, 64
	// Those that end a Go program, os/signal: by order, by the kernel, or as if by a fault.
	signals := []unix.Signal{
		unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGABRT, unix.SIGKILL,
		unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGTRAP, unix.SIGSYS,
	}
	times := int(e.n(3, 100))
	left := map[string]bool{}
	var slowest time.Duration
	for range times {
		for stage := range stages {
			for _, sig := range signals {
				// What the scheduler has kept from running for a second is no leftover: it
				// is so only if it is so again.
				for try := 0; e.Err() == nil; try++ {
					took, what := e.killStage(r, stage, sig, clients)
					r.faults++
					if what == "" {
						slowest = max(slowest, took)
						break
					}
					if try == 2 {
						left[fmt.Sprintf("%s after %v of stage %d", what, sig, stage)] = true
						break
					}
				}
			}
		}
	}
	r.note("all was gone %v after the signal at the latest", slowest.Round(time.Millisecond))
	r.expect(len(left) == 0, "nothing left after 1 s", "%v", left)
	r.expect(r.duplicated == 0, "0 duplicated", "%d", r.duplicated)
	r.expect(r.served > 0, "some served", "none")
}

// killStage is one pipeline. It returns how long it took until nothing was left, and what
// was after a second.
func (e *env) killStage(r *row, stage int, sig unix.Signal, clients int64) (time.Duration, string) {
	dir := e.at("pipeline")
	e.must(os.RemoveAll(dir))
	e.must(os.Mkdir(dir, 0o755))
	record := e.record(clients)
	e.begun = nil
	processes, address := e.pipeline(dir, e.server, record.path, "one", "2ms")
	l := newLoad(address, record, 4)
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.run(clients, e.stop)
	}()
	e.await("the pipeline serves", func() bool { return l.finished.Load() > 0 })
	time.Sleep(time.Duration(e.random.Int64N(int64(30 * time.Millisecond))))
	processes[stage].tell(sig)
	begin := time.Now()
	what := ""
	e.within(time.Second, func() bool {
		what = e.leftover(dir, address, processes)
		return what == ""
	})
	took := time.Since(begin)
	for _, pid := range e.left() {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	<-done
	for _, p := range processes {
		<-p.ended
	}
	l.count(r)
	record.close()
	e.closes = e.closes[:len(e.closes)-1]
	return took, what
}

// pipeline starts listen | tap | pool.
func (e *env) pipeline(dir string, program ...string) ([]*process, string) {
	pipe := func() (*os.File, *os.File) {
		read, write, err := os.Pipe()
		e.must(err)
		return read, write
	}
	toTap, fromListen := pipe()
	toPool, fromTap := pipe()
	defer toTap.Close()
	defer toPool.Close()
	tap := exec.Command(e.fdkit, "tap", "-q")
	tap.Stdin, tap.Stdout = toTap, fromTap
	pool := exec.Command(e.fdkit, append([]string{"pool", "-n", "4"}, program...)...)
	pool.Stdin = toPool
	listen := exec.Command(e.fdkit, e.listenArgs()...)
	listen.Stdout = fromListen
	for _, cmd := range []*exec.Cmd{listen, tap, pool} {
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	}
	// The address comes when the queue is open, so tap and pool are started before.
	second, third := e.start(tap), e.start(pool)
	fromTap.Close()
	first, address := e.listenAs(listen)
	fromListen.Close()
	return []*process{first, second, third}, address
}

// leftover tells what is left of a pipeline.
func (e *env) leftover(dir, address string, processes []*process) string {
	for _, p := range processes {
		if p.alive() {
			return fmt.Sprintf("process %s", filepath.Base(strings.Join(p.cmd.Args, " ")))
		}
	}
	if pids := e.left(); len(pids) > 0 {
		return fmt.Sprintf("%d processes", len(pids))
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		return fmt.Sprintf("files %v, %v", entries, err)
	}
	if conn, err := net.Dial("tcp", address); err == nil {
		conn.Close()
		return "the port"
	}
	if names := abstractSockets(); os.Getenv(withinNetwork) != "" && len(names) > 0 {
		return fmt.Sprintf("sockets %v", names)
	}
	return ""
}
