//go:build linux

package exec

import (
	"io"
	osexec "os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
)

// A program that has ended takes up neither a slot nor a place of its source, also
// before the reaper has seen its end.
func TestEndedTakesUpNothing(t *testing.T) {
	client := source{user: true, uid: 1}
	for _, test := range []struct {
		name string
		room func(p *Pool) bool
	}{
		{"slot", (*Pool).slot},
		{"enter", func(p *Pool) bool { return p.enter(client) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := &Pool{
				Program: &Program{Args: []string{"true"}}, PerSource: SourceLimit{N: 1}, sources: map[source]int{client: 1},
				running: map[int]*Run{}, slots: make(chan struct{}, 1), wanted: make(chan struct{}, 1),
			}
			p.slots <- struct{}{}
			if test.room(p) {
				t.Fatal("there is room beside the program that runs, want none")
			}
			end(t, p, &watch{source: client, fd: -1})
			if !test.room(p) {
				t.Error("there is no room after the program has ended, want some")
			}
			if len(p.running) != 0 {
				t.Errorf("the pool has %d programs running, want 0", len(p.running))
			}
		})
	}
}

// Nor is it taken for one that runs.
func TestEndedIsSeen(t *testing.T) {
	for _, test := range []struct {
		name string
		look func(p *Pool, run *Run)
	}{
		{"Running", func(p *Pool, _ *Run) { p.Running() }},
		{"check", (*Pool).check},
		{"survived", (*Pool).survived},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := &Pool{
				Program: &Program{Args: []string{"true"}}, Times: TimeLimits{Run: time.Nanosecond},
				running: map[int]*Run{}, slots: make(chan struct{}, 1),
			}
			p.slots <- struct{}{}
			run := end(t, p, &watch{fd: -1})
			test.look(p, run)
			if len(p.running) != 0 || run.Limit != "" {
				t.Errorf("the pool has %d programs running, limit %q; want 0, none", len(p.running), run.Limit)
			}
		})
	}
}

// end runs a program to its end for p, which does not know of that.
func end(t *testing.T, p *Pool, w *watch) *Run {
	c := osexec.Command("true")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	pid := c.Process.Pid
	if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatalf("waitid: %v", err)
	}
	_ = c.Process.Release() // p waits for it
	p.running[pid] = &Run{PID: pid, watch: w}
	return p.running[pid]
}

// A connection that is held ends for its client when its program is collected. Behind the
// end of the pool there is nothing to collect.
func TestLinger(t *testing.T) {
	done := make(chan struct{})
	begun := func(p *Pool) *Pool {
		p.slots, p.wanted, p.spare = make(chan struct{}, 2), make(chan struct{}, 1), 2
		p.previous = time.Now().Add(time.Hour) // a program was started a moment ago
		return p
	}
	if !begun(&Pool{}).linger(done) {
		t.Error("the reaper does not linger while programs are started one after the other")
	}
	if begun(&Pool{Times: TimeLimits{Idle: time.Hour}}).linger(done) {
		t.Error("the reaper lingers while connections are held for their limits")
	}
	p := begun(&Pool{failing: failing{suspects: maxSuspects}})
	_, server := fdtest.TCPPair(t)
	w := p.watchFor(server.FD, source{})
	if len(p.wanted) != 1 {
		t.Error("a reaper that lingers already is not told that a connection is held")
	}
	if p.linger(done) {
		t.Error("the reaper lingers while a connection is held")
	}
	p.abandon(w)
	close(done)
	p = begun(&Pool{})
	p.running = map[int]*Run{}
	end(t, p, &watch{fd: -1})
	p.reaping.Stop()
	p.reap(done)
	if len(p.running) != 1 {
		t.Error("the reaper has waited for a program behind the end of the pool")
	}
	for pid := range p.running {
		_, _ = unix.Wait4(pid, nil, 0, nil)
	}
}

// A Pool that runs nothing waits for nothing, whatever its timers ask for.
func TestCollectsItsOwn(t *testing.T) {
	p := &Pool{running: map[int]*Run{}}
	other := &Pool{running: map[int]*Run{}}
	run := end(t, other, &watch{fd: -1})
	p.collect()
	if _, err := unix.Wait4(run.PID, nil, 0, nil); err != nil {
		t.Errorf("the child of another: wait4() = %v, want it", err)
	}
}

// Children that are made behind the end of Run are not reaped by it, also where another
// child keeps the reaper waiting.
func TestReapersEnd(t *testing.T) {
	other := osexec.Command("sleep", "1000")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = other.Process.Kill()
		_ = other.Wait()
	}()
	program := &Program{Path: "/bin/true", Args: []string{"true"}}
	queue, theirs := fdtest.Pair(t, unix.SOCK_SEQPACKET)
	theirs.Close()
	for name, run := range map[string]func() error{
		"Pool": (&Pool{Program: program, Slots: 2, Receivers: func() func(*Connection) error {
			return func(*Connection) error { return io.EOF }
		}}).Run,
		"Workers": (&Workers{
			Program: program, N: 2, Queue: queue.FD,
			Receive: func(*Connection) (bool, error) { return false, io.EOF },
		}).Run,
	} {
		ended := make(chan error, 1)
		go func() { ended <- run() }()
		if err := fdtest.Soon(t, name+": the end of Run", ended); err != nil {
			t.Errorf("%s: Run() = %v, want nil", name, err)
		}
		for range 20 {
			if err := osexec.Command("true").Run(); err != nil {
				t.Fatalf("%s: a child that was made behind the end of Run: %v", name, err)
			}
		}
	}
}

// A child that cannot become the program is waited for where it was started: when Run
// returns it may be the last one.
func TestFailedStart(t *testing.T) {
	spawner, err := newSpawner(&Program{Path: "/nonexistent", Args: []string{"nonexistent"}}, &Confinement{})
	if err != nil {
		t.Fatal(err)
	}
	var env envBlock
	(&Environ{}).fill(&env, 2, nil)
	for range 20 {
		if pid, err := spawner.spawn(2, &env); err != unix.ENOENT {
			t.Fatalf("spawn(a program that is not there) = %d, %v, want ENOENT", pid, err)
		}
		var status syscall.WaitStatus
		if pid, _ := syscall.Wait4(-1, &status, syscall.WNOHANG, nil); pid > 0 {
			t.Fatalf("child %d has ended (%v) and was not waited for", pid, status)
		}
	}
}

// A connection that was received before Stop and Signal, and whose program is started behind
// them, does not keep Run from its end.
func TestSignalBeforeStart(t *testing.T) {
	_, server := fdtest.TCPPair(t)
	p := &Pool{Program: &Program{Path: "/bin/sleep", Args: []string{"sleep", "1000"}}, Environ: &Environ{}, Slots: 1}
	p.Receivers = func() func(*Connection) error {
		came := false
		return func(c *Connection) error {
			if came {
				return io.EOF
			}
			came = true
			p.Stop()
			p.Signal(syscall.SIGTERM)
			c.FDs = []int{server.Take()}
			return nil
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- p.Run() }()
	if err := fdtest.Soon(t, "the end of Run", ended); err != nil {
		t.Errorf("Run() = %v, want nil", err)
	}
}
