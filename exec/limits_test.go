//go:build linux

package exec_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/exec"
	"fdkit/internal/fdtest"
)

// limited is a pool with limits, and what it has told of them.
type limited struct {
	*pool
	refused []string // reasons
	limits  []string // that have ended programs
}

// runLimited runs a pool of programs until the test's end.
func runLimited(t *testing.T, slots int, program *exec.Program, set func(*exec.Pool)) *limited {
	t.Helper()
	fdtest.NoLeaks(t)
	l := &limited{pool: newPool(slots, program)}
	l.Refused = func(reason string, c *exec.Connection) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.refused = append(l.refused, reason)
		if len(c.FDs) != 1 {
			l.wrong = append(l.wrong, fmt.Sprintf("Refused is told of %d descriptors, want 1", len(c.FDs)))
		}
	}
	l.Limited = func(r *exec.Run) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.limits = append(l.limits, r.Limit)
		if !l.started[r.PID] || r.Note != r.PID {
			l.wrong = append(l.wrong, fmt.Sprintf("Limited(%+v) without its Started", r))
		}
	}
	if set != nil {
		set(l.Pool)
	}
	go func() { l.ended <- l.Run() }()
	t.Cleanup(func() {
		if t.Failed() { // perhaps before its end
			l.Stop()
			l.Signal(syscall.SIGKILL)
			func() {
				defer func() { _ = recover() }()
				close(l.source)
			}()
		}
		fdtest.Eventually(t, "the pool waits for no children any more", func() bool { return !fdtest.Inside("(*Pool).reap") })
	})
	return l
}

// pass gives the pool the server's end of a connection.
func (l *limited) pass(t *testing.T, server *fdtest.End, vars ...string) {
	t.Helper()
	c := exec.Connection{FDs: []int{server.FD}}
	if len(vars) > 0 {
		c.Payload = []byte("FDKIT=1\x00" + strings.Join(vars, "\x00") + "\x00")
	}
	select {
	case l.source <- received{connection: c}:
		server.Take()
	case <-time.After(fdtest.Limit):
		t.Fatal("the pool does not receive")
	}
}

// tcp gives the pool a TCP connection and returns the client's end.
func (l *limited) tcp(t *testing.T, vars ...string) *fdtest.End {
	t.Helper()
	client, server := fdtest.TCPPair(t)
	l.pass(t, server, vars...)
	return client
}

func (l *limited) wait(t *testing.T, what string, condition func() bool) {
	t.Helper()
	fdtest.Eventually(t, what, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return condition()
	})
}

func (l *limited) waitRunning(t *testing.T, n int) {
	t.Helper()
	fdtest.Eventually(t, fmt.Sprintf("%d programs run", n), func() bool { return l.Running() == n })
}

func write(t *testing.T, e *fdtest.End, text string) {
	t.Helper()
	if _, err := unix.Write(e.FD, []byte(text)); err != nil {
		t.Fatalf("the client writes: %v", err)
	}
}

func expect(t *testing.T, e *fdtest.End, want string) {
	t.Helper()
	buf := make([]byte, 100)
	if n, err := unix.Read(e.FD, buf); err != nil || string(buf[:n]) != want {
		t.Fatalf("the client reads %q, %v; want %q", buf[:max(n, 0)], err, want)
	}
}

// However a program ends, its source has one less.
func TestPerSource(t *testing.T) {
	for name, script := range map[string]string{
		"exit":      "read x; exit 0",
		"exit 3":    "read x; exit 3",
		"killed":    "read x; kill -KILL $$",
		"TERM":      "read x; kill -TERM $$",
		"closed":    "read x; exec <&- >&-; exit 0",
		"in the bg": "read x; sleep 0.01 & exit 0",
	} {
		t.Run(name, func(t *testing.T) {
			l := runLimited(t, 10, sh(t, script), func(p *exec.Pool) {
				p.PerSource = exec.SourceLimit{N: 2, Message: []byte("busy\n")}
			})
			const ann, bob = "TCPREMOTEIP=192.0.2.1", "TCPREMOTEIP=192.0.2.2"
			for round := range 2 {
				a, b := l.tcp(t, ann), l.tcp(t, ann)
				l.waitRunning(t, 2)
				third, server := fdtest.TCPPair(t)
				write(t, third, "GET / HTTP/1.0\r\n\r\n")
				l.pass(t, server, ann)
				if got := all(t, third); got != "busy\n" {
					t.Errorf("the third client of a source gets %q, want busy", got)
				}
				other, unknown := l.tcp(t, bob), l.tcp(t, "PROTO=TCP")
				l.waitRunning(t, 4)
				for _, client := range []*fdtest.End{a, b, other, unknown} {
					write(t, client, "\n")
					all(t, client)
				}
				l.waitRunning(t, 0)
				if l.count(func() int { return len(l.refused) }) != round+1 {
					t.Errorf("round %d: refused %q, want one more %s", round, l.refused, exec.RefusedPerSource)
				}
			}
			l.finish(t, nil)
			if !slices.Equal(l.refused, []string{exec.RefusedPerSource, exec.RefusedPerSource}) {
				t.Errorf("refused %q, want %s twice", l.refused, exec.RefusedPerSource)
			}
		})
	}
}

// The socket is asked if nothing came with it.
func TestPerSourceOfSocket(t *testing.T) {
	l := runLimited(t, 10, find(t, "cat"), func(p *exec.Pool) { p.PerSource.N = 1 })
	l.tcp(t)
	l.waitRunning(t, 1)
	all(t, l.tcp(t))
	a, b := fdtest.Pair(t, unix.SOCK_STREAM)
	l.pass(t, b)
	l.waitRunning(t, 2)
	c, d := fdtest.Pair(t, unix.SOCK_STREAM)
	l.pass(t, d)
	all(t, c)
	l.waitRunning(t, 2)
	a.Close()
	l.waitRunning(t, 1)
	l.Signal(syscall.SIGKILL)
	l.finish(t, nil)
	if len(l.refused) != 2 {
		t.Errorf("refused %q, want one TCP and one Unix connection", l.refused)
	}
}

// A program that cannot be started takes no place of its source.
func TestPerSourceOfNoProgram(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gone")
	file(t, path, "#!/bin/sh\n", 0o755)
	l := runLimited(t, 10, find(t, path), func(p *exec.Pool) {
		p.PerSource.N = 1
		p.Times = exec.TimeLimits{Run: time.Hour, Idle: time.Hour, Kill: time.Hour}
	})
	all(t, l.tcp(t)) // it is running
	l.waitRunning(t, 0)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		all(t, l.tcp(t, "TCPREMOTEIP=192.0.2.1"))
	}
	l.finish(t, nil)
	if len(l.refused) != 0 || len(l.troubles) != 4 {
		t.Errorf("refused %q, troubles %q; want four of these", l.refused, l.troubles)
	}
}

// Times at which nothing happens, and such as make a test short.
const (
	never = time.Hour
	short = 50 * time.Millisecond
)

func TestTimeout(t *testing.T) {
	for _, test := range []struct {
		script string
		want   syscall.Signal
	}{
		{"exec sleep 1000", syscall.SIGTERM},
		{"sleep 1000 & wait", syscall.SIGTERM},
		{"trap '' TERM; echo; sleep 1000 & wait; wait", syscall.SIGKILL},
	} {
		t.Run(test.script, func(t *testing.T) {
			l := runLimited(t, 5, sh(t, test.script), func(p *exec.Pool) {
				p.Times = exec.TimeLimits{Run: 300 * time.Millisecond, Kill: short}
			})
			for range 2 {
				all(t, l.tcp(t)) // also what the program has started is gone
				all(t, l.give(t))
			}
			l.finish(t, nil)
			if len(l.limits) != 4 || l.limits[0] != exec.LimitTimeout {
				t.Errorf("the limits %q have ended programs, want 4 times %s", l.limits, exec.LimitTimeout)
			}
			for _, status := range l.statuses {
				if status.Signal() != test.want {
					t.Errorf("a program has ended with %#x, want %v", status, test.want)
				}
			}
		})
	}
}

// A program that ends before is left alone, and so is its process id.
func TestTimeoutNotReached(t *testing.T) {
	l := runLimited(t, 5, find(t, "true"), func(p *exec.Pool) {
		p.Times = exec.TimeLimits{Run: never, Idle: never, FirstByte: never, Kill: short}
	})
	for range 20 {
		all(t, l.tcp(t))
	}
	l.finish(t, nil)
	if len(l.limits) != 0 || len(l.statuses) != 20 {
		t.Errorf("the limits %q have ended some of %d programs, want none of 20", l.limits, len(l.statuses))
	}
}

func TestIdle(t *testing.T) {
	const idle = 1500 * time.Millisecond
	l := runLimited(t, 5, find(t, "cat"), func(p *exec.Pool) { p.Times = exec.TimeLimits{Idle: idle, Kill: never} })
	client := l.tcp(t)
	begin := time.Now()
	last := begin
	for time.Since(begin) < 2*idle {
		last = time.Now()
		write(t, client, "x")
		expect(t, client, "x")
		time.Sleep(idle / 20)
	}
	if n := l.count(func() int { return len(l.limits) }); n > 0 {
		t.Errorf("a limit has struck while bytes were going, want none")
	}
	if got := all(t, client); got != "" {
		t.Errorf("the client gets %q, want its end", got)
	}
	if after := time.Since(last); after < idle-50*time.Millisecond {
		t.Errorf("the end comes %v after the last byte, want %v", after, idle)
	}
	l.finish(t, nil)
	if !slices.Equal(l.limits, []string{exec.LimitIdle}) {
		t.Errorf("the limits %q have ended programs, want %s", l.limits, exec.LimitIdle)
	}
}

// Bytes that only the program sends count if the client takes them.
func TestIdleOneWay(t *testing.T) {
	const idle = 1500 * time.Millisecond
	l := runLimited(t, 5, sh(t, "while echo x; do sleep 0.02; done"), func(p *exec.Pool) { p.Times = exec.TimeLimits{Idle: idle, Kill: never} })
	client := l.tcp(t)
	for begin := time.Now(); time.Since(begin) < 2*idle; {
		buf := make([]byte, 100) // several have come if this test had to wait
		n, err := unix.Read(client.FD, buf)
		if got := string(buf[:max(n, 0)]); err != nil || n == 0 || strings.Trim(got, "x\n") != "" {
			t.Fatalf("the client reads %q, %v; want lines of x", got, err)
		}
	}
	if n := l.count(func() int { return len(l.limits) }); n > 0 {
		t.Errorf("a limit has struck while bytes were going, want none")
	}
	client.Close()
	l.finish(t, nil)

	// A client that takes nothing more: cat waits in write(2).
	l = runLimited(t, 5, find(t, "cat", "/dev/zero"), func(p *exec.Pool) { p.Times = exec.TimeLimits{Idle: idle, Kill: never} })
	l.tcp(t)
	l.wait(t, "the limit strikes", func() bool { return len(l.limits) == 1 })
	l.waitRunning(t, 0)
	l.finish(t, nil)
}

func TestFirstByte(t *testing.T) {
	const limit = 300 * time.Millisecond
	set := func(p *exec.Pool) { p.Times = exec.TimeLimits{FirstByte: limit, Kill: never} }
	for _, test := range []struct {
		about  string
		before func(t *testing.T, client, server *fdtest.End) // before the program starts
		after  func(t *testing.T, client *fdtest.End)
		want   bool // the limit strikes
	}{
		{"nothing", nil, nil, true},
		{"a byte after", nil, func(t *testing.T, client *fdtest.End) { write(t, client, "x") }, false},
		{"a byte before", func(t *testing.T, client, _ *fdtest.End) { write(t, client, "x") }, nil, false},
		{
			"a header that was read before", func(t *testing.T, client, server *fdtest.End) {
				write(t, client, "PROXY\r\n")
				expect(t, server, "PROXY\r\n")
			}, nil, true,
		},
		{
			"more than that header", func(t *testing.T, client, server *fdtest.End) {
				write(t, client, "PROXY\r\n")
				expect(t, server, "PROXY\r\n")
				write(t, client, "x")
			}, nil, false,
		},
		{"the end before", func(_ *testing.T, client, _ *fdtest.End) { _ = unix.Shutdown(client.FD, unix.SHUT_WR) }, nil, false},
		{"the end after", nil, func(_ *testing.T, client *fdtest.End) { _ = unix.Shutdown(client.FD, unix.SHUT_WR) }, false},
	} {
		t.Run(test.about, func(t *testing.T) {
			l := runLimited(t, 5, find(t, "sleep", "1000"), set)
			client, server := fdtest.TCPPair(t)
			if test.before != nil {
				test.before(t, client, server)
			}
			l.pass(t, server)
			l.waitRunning(t, 1)
			if test.after != nil {
				test.after(t, client)
			}
			if test.want {
				l.wait(t, "the limit strikes", func() bool { return len(l.limits) == 1 })
				all(t, client)
			} else {
				time.Sleep(2 * limit)
				if l.count(func() int { return len(l.limits) }) != 0 {
					t.Errorf("the limits %q have struck, want none", l.limits)
				}
				l.Signal(syscall.SIGTERM)
			}
			l.finish(t, nil)
		})
	}
}

// Of a Unix connection nobody knows, and that is told once.
func TestTrafficOfUnix(t *testing.T) {
	l := runLimited(t, 5, find(t, "cat"), func(p *exec.Pool) {
		p.Times = exec.TimeLimits{Idle: short, FirstByte: short, Kill: never}
	})
	for range 3 {
		client := l.give(t)
		time.Sleep(4 * short)
		write(t, client, "hello")
		expect(t, client, "hello")
		client.Close()
	}
	l.finish(t, nil)
	if len(l.limits) != 0 || len(l.troubles) != 1 || !strings.Contains(l.troubles[0], "do not apply") {
		t.Errorf("the limits %q have struck, the troubles are %q; want none, and one that says that they do not apply", l.limits, l.troubles)
	}
}

func TestQueueTimeout(t *testing.T) {
	at := func(ago time.Duration) string {
		return fmt.Sprintf("FDKIT_ACCEPTED=%.6f", float64(time.Now().Add(-ago).UnixMicro())/1e6)
	}
	tcp := func(t *testing.T) (client, server *fdtest.End) { return fdtest.TCPPair(t) }
	local := func(t *testing.T) (client, server *fdtest.End) { return fdtest.Pair(t, unix.SOCK_STREAM) }
	half := func(_ *testing.T, client *fdtest.End) { _ = unix.Shutdown(client.FD, unix.SHUT_WR) }
	speak := func(t *testing.T, client *fdtest.End) { write(t, client, "hello") }
	leave := func(_ *testing.T, client *fdtest.End) { client.Close() }
	speakAndLeave := func(t *testing.T, client *fdtest.End) { write(t, client, "hello"); client.Close() }
	reset := func(_ *testing.T, client *fdtest.End) { client.Reset() }
	for _, test := range []struct {
		about string
		pair  func(t *testing.T) (client, server *fdtest.End)
		what  func(t *testing.T, client *fdtest.End)
		vars  []string
		want  string
	}{
		{"it is young", tcp, nil, []string{at(0)}, ""},
		{"it has waited", tcp, nil, []string{at(time.Hour + time.Minute)}, exec.RefusedQueueTimeout},
		{"not long", tcp, nil, []string{at(time.Hour - time.Minute)}, ""},
		{"the clock was set back", tcp, nil, []string{at(-24 * time.Hour)}, ""},
		{"no time", tcp, nil, []string{"FDKIT_ACCEPTED=NaN"}, ""},
		{"nor is this", tcp, nil, []string{"FDKIT_ACCEPTED="}, ""},
		{"a foreign sender", tcp, nil, nil, ""},
		{"TCP: half-closed", tcp, half, []string{at(0)}, ""},
		{"TCP: has spoken", tcp, speak, nil, ""},
		{"TCP: closed", tcp, leave, nil, ""}, // which looks the same
		{"TCP: reset", tcp, reset, nil, exec.RefusedGone},
		{"TCP: has spoken and reset", tcp, func(t *testing.T, c *fdtest.End) { speak(t, c); c.Reset() }, nil, exec.RefusedGone},
		{"Unix: it has waited", local, nil, []string{at(2 * time.Hour)}, exec.RefusedQueueTimeout},
		{"Unix: half-closed", local, half, nil, ""},
		{"Unix: closed", local, leave, nil, exec.RefusedGone},
		{"Unix: closed, with something to read", local, speakAndLeave, nil, ""},
	} {
		t.Run(test.about, func(t *testing.T) {
			l := runLimited(t, 1, find(t, "true"), func(p *exec.Pool) { p.Times.Queue = time.Hour })
			client, server := test.pair(t)
			if test.what != nil {
				test.what(t, client)
			}
			l.pass(t, server, test.vars...)
			l.finish(t, nil)
			got := strings.Join(l.refused, ", ")
			if got != test.want || len(l.statuses)+len(l.refused) != 1 {
				t.Errorf("refused %q with %d programs run, want %q", got, len(l.statuses), test.want)
			}
		})
	}
}

// Enough descriptors for all that is held, or none is begun with.
func TestWatchNeedsDescriptors(t *testing.T) {
	fdtest.NoLeaks(t)
	restore := fdtest.FewFiles(t, 40)
	p := newPool(40, find(t, "cat"))
	p.Times.Idle = time.Hour
	err := p.Run()
	restore()
	const want = "too few descriptors to watch the connections of 40 programs"
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Run() = %v, want %q", err, want)
	}
}
