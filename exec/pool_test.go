//go:build linux

package exec_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/exec"
	"fdkit/internal/fdtest"
	"fdkit/internal/interrupt"
)

func TestMain(m *testing.M) {
	fdtest.Main(m, map[string]func([]string) error{
		"ignoring": ignoring, "become": become, "become-with": becomeWith,
		"become-collecting": becomeCollecting, "become-failing": becomeFailing, "become-among": becomeAmong,
		"worker": worker,
	})
}

// pool is a pool, and what it has told.
type pool struct {
	*exec.Pool
	source chan received
	ended  chan error

	mu       sync.Mutex
	taken    int // connections received
	most     int // programs at once
	started  map[int]bool
	statuses []syscall.WaitStatus
	troubles []string
	wrong    []string
}

type received struct {
	connection exec.Connection
	err        error
}

var errLost = errors.New("lost on the way")

func newPool(slots int, program *exec.Program) *pool {
	environ, _ := exec.NewEnviron(os.Environ())
	p := &pool{source: make(chan received), ended: make(chan error, 1), started: map[int]bool{}}
	p.Pool = &exec.Pool{
		Program: program, Environ: environ, Slots: slots,
		Receivers: func() func(*exec.Connection) error {
			return func(c *exec.Connection) error {
				r, ok := <-p.source
				if !ok {
					return io.EOF
				}
				p.mu.Lock()
				p.taken++
				p.mu.Unlock()
				*c = r.connection
				return r.err
			}
		},
		Lost: func(err error) bool { return err == errLost },
		Started: func(r *exec.Run) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.started[r.PID] = true
			p.most = max(p.most, r.Running)
			r.Note = r.PID
			if len(r.Env) == 0 {
				p.wrong = append(p.wrong, "Started has no environment")
			}
		},
		Ended: func(r *exec.Run) {
			p.mu.Lock()
			defer p.mu.Unlock()
			if !p.started[r.PID] || r.Note != r.PID || r.Took <= 0 {
				p.wrong = append(p.wrong, fmt.Sprintf("Ended(%+v) without its Started", r))
			}
			delete(p.started, r.PID)
			p.statuses = append(p.statuses, r.Status)
		},
		Trouble: func(err error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.troubles = append(p.troubles, err.Error())
		},
	}
	return p
}

// run runs a pool of programs until the test's end.
func run(t *testing.T, slots int, program *exec.Program) *pool {
	t.Helper()
	p := newPool(slots, program)
	go func() { p.ended <- p.Run() }()
	t.Cleanup(func() {
		// Until then it would take away the children of others.
		fdtest.Eventually(t, "the pool waits for no children any more", func() bool { return !fdtest.Inside("(*Pool).reap") })
	})
	return p
}

func find(t *testing.T, name string, args ...string) *exec.Program {
	t.Helper()
	program, err := exec.Find(name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return program
}

func sh(t *testing.T, script string) *exec.Program { return find(t, "sh", "-c", script) }

// give gives the pool a connection and returns the client's end.
func (p *pool) give(t *testing.T) *fdtest.End {
	t.Helper()
	mine, its := fdtest.Pair(t, unix.SOCK_STREAM)
	select {
	case p.source <- received{connection: exec.Connection{FDs: []int{its.FD}}}:
		its.Take()
	case err := <-p.ended:
		t.Fatalf("Run() = %v, want it to take a connection", err)
	}
	return mine
}

func (p *pool) count(what func() int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return what()
}

// finish lets the pool end and checks what it says.
func (p *pool) finish(t *testing.T, want error) {
	t.Helper()
	close(p.source)
	if err := fdtest.Soon(t, "Run returns", p.ended); err != want {
		t.Errorf("Run() = %v, want %v", err, want)
	}
	if n := p.Running(); n != 0 {
		t.Errorf("Running() = %d after Run, want 0", n)
	}
	if len(p.started) != 0 {
		t.Errorf("%d programs have started and not ended, want none", len(p.started))
	}
	for _, text := range p.wrong {
		t.Error(text)
	}
}

// all reads until the end.
func all(t *testing.T, from *fdtest.End) string {
	t.Helper()
	var text []byte
	buf := make([]byte, 4096)
	for {
		poll := []unix.PollFd{{Fd: int32(from.FD), Events: unix.POLLIN}}
		if n, err := unix.Poll(poll, int(fdtest.Limit.Milliseconds())); err == unix.EINTR {
			continue
		} else if n != 1 || err != nil {
			t.Fatalf("the client waits for the end of its connection, and has %q", text)
		}
		n, err := unix.Read(from.FD, buf)
		if err != nil || n == 0 {
			return string(text)
		}
		text = append(text, buf[:n]...)
	}
}

func TestPoolSlots(t *testing.T) {
	fdtest.NoLeaks(t)
	const slots, connections = 3, 10
	p := run(t, slots, find(t, "cat"))
	given := make(chan *fdtest.End, connections)
	go func() {
		for range connections {
			fds, _ := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			p.source <- received{connection: exec.Connection{FDs: []int{fds[1]}}}
			given <- &fdtest.End{FD: fds[0]}
		}
	}()
	for done := range connections {
		want := min(slots, connections-done)
		fdtest.Eventually(t, "the slots are in use", func() bool { return p.Running() == want })
		if taken := p.count(func() int { return p.taken }); taken > done+slots {
			t.Errorf("with %d programs ended the pool has received %d connections, want at most %d", done, taken, done+slots)
		}
		client := fdtest.Soon(t, "a connection is taken", given)
		if _, err := unix.Write(client.FD, []byte("hello")); err != nil {
			t.Error(err)
		}
		_ = unix.Shutdown(client.FD, unix.SHUT_WR)
		if got := all(t, client); got != "hello" {
			t.Errorf("cat answers %q, want hello", got)
		}
		client.Close()
		fdtest.Eventually(t, "its program ends", func() bool { return p.count(func() int { return len(p.statuses) }) == done+1 })
	}
	p.finish(t, nil)
	if p.most != slots {
		t.Errorf("at most %d programs ran at once, want %d", p.most, slots)
	}
}

// However a program ends, its slot is free again.
func TestPoolEndings(t *testing.T) {
	for _, test := range []struct {
		script string
		exit   int
		signal syscall.Signal
	}{
		{"exit 0", 0, -1},
		{"exit 3", 3, -1},
		{"exec <&- >&-; exit 4", 4, -1},
		{"kill -KILL $$", -1, syscall.SIGKILL},
		{"ulimit -c 0; kill -SEGV $$", -1, syscall.SIGSEGV},
		{"kill -PIPE $$", -1, syscall.SIGPIPE},
	} {
		t.Run(test.script, func(t *testing.T) {
			fdtest.NoLeaks(t)
			p := run(t, 1, sh(t, test.script))
			for range 3 {
				if got := all(t, p.give(t)); got != "" {
					t.Errorf("the client gets %q, want nothing", got)
				}
			}
			p.finish(t, nil)
			if len(p.statuses) != 3 {
				t.Errorf("%d programs have ended, want 3", len(p.statuses))
			}
			for _, status := range p.statuses {
				if status.ExitStatus() != test.exit || status.Signal() != test.signal {
					t.Errorf("status %#x: exit %d, signal %d; want %d, %d", status, status.ExitStatus(), status.Signal(), test.exit, test.signal)
				}
			}
		})
	}
}

// Programs that end at once: each has its Started before its Ended.
func TestPoolManyShort(t *testing.T) {
	fdtest.NoLeaks(t)
	const connections = 200
	p := run(t, 8, find(t, "true"))
	for range connections {
		p.give(t).Close()
	}
	p.finish(t, nil)
	if len(p.statuses) != connections {
		t.Errorf("%d programs have ended, want %d", len(p.statuses), connections)
	}
}

// A program that could be run, and then cannot any more.
func TestPoolProgramThatCannotRun(t *testing.T) {
	for name, want := range map[string]string{"gone": "no such file or directory", "binary": "exec format error"} {
		t.Run(name, func(t *testing.T) {
			fdtest.NoLeaks(t)
			path := filepath.Join(t.TempDir(), name)
			file(t, path, "#!/bin/sh\n", 0o755)
			p := run(t, 1, find(t, path))
			all(t, p.give(t))
			fdtest.Eventually(t, "its program ends", func() bool { return p.count(func() int { return len(p.statuses) }) == 1 })
			if name == "binary" {
				file(t, path+".new", "no script\n", 0o755)
				if err := os.Rename(path+".new", path); err != nil {
					t.Fatal(err)
				}
			} else if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				all(t, p.give(t)) // it is closed
			}
			p.finish(t, nil)
			if len(p.troubles) != 3 || !strings.Contains(p.troubles[0], "cannot run "+path+": "+want) {
				t.Errorf("the troubles are %q, want 3 that say %q", p.troubles, want)
			}
		})
	}
}

// What passes is waited for: here the program is just being written.
func TestPoolTemporaryFailure(t *testing.T) {
	fdtest.NoLeaks(t)
	cat, err := os.ReadFile(find(t, "cat").Path)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "cat")
	file(t, path, string(cat), 0o755)
	writer, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	p := run(t, 1, find(t, path))
	client := p.give(t)
	fdtest.Eventually(t, "Trouble is told", func() bool { return p.count(func() int { return len(p.troubles) }) > 0 })
	writer.Close()
	_, _ = unix.Write(client.FD, []byte("hello"))
	_ = unix.Shutdown(client.FD, unix.SHUT_WR)
	if got := all(t, client); got != "hello" {
		t.Errorf("the client gets %q, want hello", got)
	}
	p.finish(t, nil)
	if len(p.troubles) != 1 || !strings.Contains(p.troubles[0], "trying again: text file busy") {
		t.Errorf("the troubles are %q, want one that says %q", p.troubles, "trying again: text file busy")
	}
}

func TestPoolStrangeMessages(t *testing.T) {
	fdtest.NoLeaks(t)
	p := run(t, 1, find(t, "cat"))
	p.source <- received{}
	p.source <- received{err: errLost}
	r, w := fdtest.Pipe(t)
	a, b := fdtest.Pair(t, unix.SOCK_STREAM)
	p.source <- received{connection: exec.Connection{FDs: []int{b.Take(), w.Take()}}}
	if got := all(t, r); got != "" { // closed, and not the program's
		t.Errorf("the further descriptor gives %q, want its end", got)
	}
	a.Close()
	p.finish(t, nil)
	want := []string{"without a descriptor", "a connection is lost: lost on the way", "than one connection: closed 1"}
	for i, text := range p.troubles {
		if i >= len(want) || !strings.Contains(text, want[i]) {
			t.Errorf("trouble %d is %q, want one of %q in this order", i, text, want)
		}
	}
	if len(p.troubles) != len(want) {
		t.Errorf("the troubles are %q, want %q", p.troubles, want)
	}
}

// However receiving ends, running programs are waited for.
func TestPoolEnd(t *testing.T) {
	broken := errors.New("the queue is broken")
	for _, test := range []struct{ end, want error }{
		{io.EOF, nil},
		{interrupt.ErrStopped, nil},
		{fmt.Errorf("wrapped: %w", interrupt.ErrStopped), nil},
		{broken, broken},
	} {
		t.Run(test.end.Error(), func(t *testing.T) {
			fdtest.NoLeaks(t)
			p := run(t, 5, find(t, "cat"))
			client := p.give(t)
			fdtest.Eventually(t, "the program runs", func() bool { return p.Running() == 1 })
			p.source <- received{err: test.end}
			_, _ = unix.Write(client.FD, []byte("hello"))
			buf := make([]byte, 10)
			if n, err := unix.Read(client.FD, buf); err != nil || string(buf[:n]) != "hello" {
				t.Errorf("the program answers %q, %v after the end; want hello", buf[:n], err)
			}
			select {
			case err := <-p.ended:
				t.Errorf("Run() = %v while a program runs", err)
			default:
			}
			client.Close()
			p.finish(t, test.want)
		})
	}
}

// Signal reaches what the programs have started, too.
func TestPoolSignal(t *testing.T) {
	fdtest.NoLeaks(t)
	p := run(t, 2, sh(t, "sleep 1000 & echo ready; wait"))
	for range 2 {
		client := p.give(t)
		buf := make([]byte, 10)
		if n, err := unix.Read(client.FD, buf); err != nil || string(buf[:n]) != "ready\n" {
			t.Fatalf("the program says %q, %v; want ready", buf[:n], err)
		}
		defer all(t, client) // the end comes when nobody holds the connection
	}
	p.Signal(syscall.SIGTERM)
	p.finish(t, nil)
	for _, status := range p.statuses {
		if status.Signal() != syscall.SIGTERM {
			t.Errorf("a program ended with status %#x, want SIGTERM", status)
		}
	}
}

// What the program sees: its connection, blocking, and nothing else of ours.
func TestPoolWorld(t *testing.T) {
	fdtest.NoLeaks(t)
	stray, err := unix.Open("/dev/null", unix.O_RDONLY, 0) // without O_CLOEXEC
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(stray)
	p := run(t, 1, sh(t, `exec ls /proc/self/fd`))
	for range 2 {
		a, b := fdtest.Pair(t, unix.SOCK_STREAM)
		if err := unix.SetNonblock(b.FD, true); err != nil {
			t.Fatal(err)
		}
		kept := fdtest.Dup(t, b.FD)
		p.source <- received{connection: exec.Connection{FDs: []int{b.Take()}}}
		fdtest.Eventually(t, "the connection is blocking", func() bool {
			flags, err := unix.FcntlInt(uintptr(kept.FD), unix.F_GETFL, 0)
			return err == nil && flags&unix.O_NONBLOCK == 0
		})
		kept.Close()
		if got := all(t, a); got != "0\n1\n2\n3\n" { // 3 is what ls reads
			t.Errorf("the program's descriptors are %q, want 0, 1, 2, and the directory", got)
		}
	}
	p.finish(t, nil)
}

// SIGCHLD would interrupt whoever waits for a connection, each time.
func TestPoolTakesNoSIGCHLD(t *testing.T) {
	caught := func() bool {
		status, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		_, text, _ := strings.Cut(string(status), "\nSigCgt:\t")
		mask, err := strconv.ParseUint(text[:16], 16, 64)
		if err != nil {
			t.Fatalf("SigCgt in /proc/self/status: %v", err)
		}
		return mask>>(unix.SIGCHLD-1)&1 != 0
	}
	before := caught()
	p := run(t, 2, sh(t, "echo"))
	for range 3 { // one soon after the other: starts collect what has ended, and the reaper the rest
		all(t, p.give(t))
	}
	if caught() {
		t.Error("SIGCHLD has a handler while the pool runs, want none")
	}
	fdtest.Eventually(t, "the pool knows of all ends", func() bool { return p.Running() == 0 })
	p.finish(t, nil)
	if caught() != before {
		t.Errorf("SIGCHLD has a handler: %t after the pool has ended, want %t as before", !before, before)
	}
}

// A parent may have left signals ignored, SIGCHLD among them, or blocked.
func TestPoolWithSignalsIgnored(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := fdtest.Program(t, "ignoring")
	c.Path, c.Args = "/bin/sh", []string{"sh", "-c", `trap "" CHLD HUP PIPE USR1; exec "$0"`, self}
	out, err := c.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func ignoring([]string) error {
	program, err := exec.Find("sh", "-c", `grep -E '^Sig(Ign|Blk)' /proc/self/status; exit 7`)
	if err != nil {
		return err
	}
	p := newPool(2, program)
	go func() { p.ended <- p.Run() }()
	for range 5 {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		p.source <- received{connection: exec.Connection{FDs: []int{fds[1]}}}
		text, err := io.ReadAll(os.NewFile(uintptr(fds[0]), "client"))
		const none = "0000000000000000"
		if got, want := string(text), "SigBlk:\t"+none+"\nSigIgn:\t"+none+"\n"; got != want || err != nil {
			return fmt.Errorf("the program has %q (%w), want %q", got, err, want)
		}
	}
	close(p.source)
	if err := <-p.ended; err != nil {
		return err
	}
	for _, status := range p.statuses {
		if status.ExitStatus() != 7 {
			return fmt.Errorf("the programs ended with %#x, want exit status 7", p.statuses)
		}
	}
	if len(p.statuses) != 5 || len(p.wrong) > 0 {
		return fmt.Errorf("%d programs have ended, want 5; %q", len(p.statuses), p.wrong)
	}
	return nil
}

func TestBecome(t *testing.T) {
	for _, test := range []struct {
		places string // and the descriptor's number
		fd     int
		want   string // what ls /proc/self/fd shows of the connection, and all numbers
	}{
		{"0 1", 9, "connection at 0 1; open 0 1 2 3"},
		{"6 7", 9, "connection at 6 7; open 0 1 2 3 6 7"},
		{"6 7", 6, "connection at 6 7; open 0 1 2 3 6 7"},
		{"7 6", 7, "connection at 6 7; open 0 1 2 3 6 7"},
		{"0", 5, "connection at 0; open 0 1 2 3"},
		{"0 0", 5, "connection at 0; open 0 1 2 3"},
		{"100", 5, "connection at 100; open 0 1 100 2 3"},
	} {
		t.Run(fmt.Sprintf("%s from %d", test.places, test.fd), func(t *testing.T) {
			c := fdtest.Program(t, "become", append([]string{fmt.Sprint(test.fd)}, strings.Fields(test.places)...)...)
			var out strings.Builder
			c.Stderr = &out
			if err := c.Run(); err != nil {
				t.Errorf("%v\n%s", err, out.String())
			}
			if got := strings.TrimSpace(out.String()); got != test.want {
				t.Errorf("Become with %s: %q, want %q", test.places, got, test.want)
			}
		})
	}
}

// become has a connection at the number that is its first argument, in a process
// with all kinds of other descriptors, and becomes a program with it at the others.
func become(args []string) error {
	var numbers []int
	for _, arg := range args {
		var n int
		if _, err := fmt.Sscan(arg, &n); err != nil {
			return err
		}
		numbers = append(numbers, n)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	for stray := 10; stray < 20; stray++ {
		if err := unix.Dup2(2, stray); err != nil {
			return err
		}
	}
	if err := unix.Dup2(fds[0], numbers[0]); err != nil && fds[0] != numbers[0] {
		return err
	}
	if err := unix.SetNonblock(numbers[0], true); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fds[0], &st); err != nil {
		return err
	}
	program, err := exec.Find("sh", "-c", `
		for n in $(ls /proc/self/fd); do
			open="$open $n"
			[ "$(readlink /proc/$$/fd/$n)" = "$0" ] && at="$at $n"
		done
		grep -q 'flags:.*4...$' /proc/$$/fdinfo/${at##* } && echo nonblocking >&2
		echo "connection at$at; open$open" >&2`)
	if err != nil {
		return err
	}
	program.Args = append(program.Args, fmt.Sprintf("socket:[%d]", st.Ino))
	return program.Become(numbers[0], numbers[1:], os.Environ())
}
