//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// env is what a case runs in: a directory of its own, and all that it has started.
type env struct {
	context.Context
	options
	dir       string
	marker    string // by which everything that was started is found
	random    *rand.Rand
	server    string   // this program, under the name by which it serves
	variables []string // that everything started has besides
	begun     []*process
	started   int
	closes    []func()
}

// failure ends a case: something that is no figure has failed.
type failure struct{ error }

// attempt runs a case, and ends all that it has started.
func (e *env) attempt(do func(*env, *row), r *row) {
	defer func() {
		for _, p := range e.begun {
			_ = p.cmd.Process.Kill()
		}
		for _, pid := range e.left() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		for _, p := range e.begun {
			<-p.ended
		}
		for _, c := range e.closes {
			c()
		}
		if f, ok := recover().(failure); ok {
			r.wrong = append(r.wrong, f.Error())
		}
	}()
	e.must(os.MkdirAll(e.dir, 0o755))
	e.must(os.Chmod(e.dir, 0o777)) // other users make queues here, too
	e.server = filepath.Join(filepath.Dir(e.dir), inside)
	do(e, r)
}

// must ends the case if there is an error.
func (e *env) must(err error) {
	if err != nil {
		panic(failure{err})
	}
}

// n returns how many of something the run has.
func (e *env) n(short, long int64) int64 {
	if e.short {
		return short
	}
	return max(short, int64(float64(long)*e.part))
}

// record makes a record of n connections.
func (e *env) record(n int64) *record {
	r, err := newRecord(filepath.Join(e.dir, fmt.Sprintf("record%d", len(e.closes))), int(n))
	e.must(err)
	e.closes = append(e.closes, r.close)
	return r
}

// process is a program that was started.
type process struct {
	e     *env
	cmd   *exec.Cmd
	log   string
	ended chan struct{} // closed when it was waited for
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// start starts a program whose standard error is a log, and whose standard input and
// output are those of cmd, or /dev/null.
func (e *env) start(cmd *exec.Cmd) *process {
	p := &process{e: e, cmd: cmd, log: filepath.Join(e.dir, fmt.Sprintf("%d.log", e.started)), ended: make(chan struct{})}
	log, err := os.Create(p.log)
	e.must(err)
	defer log.Close()
	cmd.Stderr = log
	if cmd.Env == nil {
		cmd.Env = append(os.Environ(), "TMPDIR="+e.dir)
	}
	cmd.Env = append(append(cmd.Env, marker+"="+e.marker), e.variables...)
	e.must(cmd.Start())
	e.begun = append(e.begun, p)
	e.started++
	go func() {
		_ = cmd.Wait()
		close(p.ended)
	}()
	return p
}

// startFdkit starts an fdkit command.
func (e *env) startFdkit(args ...string) *process { return e.start(exec.Command(e.fdkit, args...)) }

// listen starts fdkit listen with these options at a free port, and returns its address.
func (e *env) listen(args ...string) (*process, string) {
	return e.listenAs(exec.Command(e.fdkit, e.listenArgs(args...)...))
}

func (e *env) listenArgs(args ...string) []string {
	return append(append([]string{"listen", "--address-fd", "3"}, args...), "127.0.0.1:0")
}

// serve starts fdkit serve, and returns its address.
func (e *env) serve(address string, options []string, program ...string) (*process, string) {
	args := append([]string{"serve", "--address-fd", "3"}, options...)
	return e.listenAs(exec.Command(e.fdkit, append(append(args, address), program...)...))
}

// listenAs starts a command that tells its address at descriptor 3.
func (e *env) listenAs(cmd *exec.Cmd) (*process, string) {
	read, write, err := os.Pipe()
	e.must(err)
	defer read.Close()
	cmd.ExtraFiles = []*os.File{write}
	p := e.start(cmd)
	write.Close()
	address, err := bufio.NewReader(read).ReadString('\n')
	if err != nil {
		e.must(fmt.Errorf("listen has told no address: %s", p.read()))
	}
	return p, strings.TrimSpace(address)
}

// tell sends a signal.
func (p *process) tell(sig syscall.Signal) { _ = p.cmd.Process.Signal(sig) }

// alive tells whether the process has not ended yet.
func (p *process) alive() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// end sends TERM, and waits for the process's end and status 0.
func (p *process) end() {
	p.tell(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.e.must(fmt.Errorf("%v has not ended within %v of SIGTERM: %s", p.cmd.Args, patience, p.read()))
	}
	if status := p.cmd.ProcessState; !status.Success() {
		p.e.must(fmt.Errorf("%v has ended with %v: %s", p.cmd.Args, status, p.read()))
	}
}

// read returns the log.
func (p *process) read() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// await waits until something holds, and ends the case if it does not.
func (e *env) await(what string, holds func() bool) {
	if !e.within(patience, holds) {
		e.must(fmt.Errorf("not so within %v: %s", patience, what))
	}
}

// within waits at most that long until something holds, and tells whether it does.
func (e *env) within(limit time.Duration, holds func() bool) bool {
	for deadline := time.Now().Add(limit); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) || e.Err() != nil {
			return false
		}
	}
	return true
}

// stop tells a load to make no more connections, once the run is interrupted.
func (e *env) stop() bool { return e.Err() != nil }

// metrics returns the metrics that a command tells at a Unix socket; those with labels are
// summed up.
func (e *env) metrics(path string) map[string]int64 {
	e.await("there are metrics", func() bool { _, err := os.Stat(path); return err == nil })
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		},
	}}
	found := map[string]int64{}
	answer, err := client.Get("http://fdkit/metrics")
	e.must(err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	e.must(err)
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if i := strings.IndexByte(name, '{'); i >= 0 {
			value, name = line[strings.LastIndexByte(line, ' ')+1:], name[:i]
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if ok && err == nil {
			found[name] += int64(n)
		}
	}
	if len(found) == 0 {
		e.must(errors.New("no metrics have come"))
	}
	return found
}
