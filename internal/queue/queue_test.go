//go:build linux

package queue

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
	"fdkit/internal/scm"
)

func TestMain(m *testing.M) {
	fdtest.Main(m, map[string]func([]string) error{"participant": participate})
}

// participate is a process that takes part in a queue: send|receive SPEC. It does
// what its stdin tells it, line by line, and answers each with a line.
func participate(args []string) error {
	open, spec := OpenReceive, args[1]
	if args[0] == "send" {
		open = OpenSend
	}
	q, err := open(spec, Options{})
	if err != nil {
		fmt.Println("error:", err)
		return nil
	}
	fmt.Println("open")
	sender, receiver := scm.NewSender(q.FD, &q.Calls), scm.NewReceiver(q.FD, &q.Calls)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		command, payload, _ := strings.Cut(in.Text(), " ")
		switch command {
		case "send":
			fmt.Println("sent", sender.Send([]byte(payload), 2))
		case "receive":
			var m scm.Message
			err := receiver.Receive(&m)
			fmt.Printf("received %s with %d, %v\n", m.Payload, len(m.FDs), err)
			m.Close()
		case "enter", "takeover", "forge":
			fmt.Println(enterAs(command, payload, q))
		case "close":
			lost, err := q.Close()
			fmt.Printf("closed, lost %d, %v\n", lost, err)
		}
	}
	return nil // as if it was killed: without Close
}

// participant is such a process, as the test sees it.
type participant struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

// start starts a participant and returns its first line. files are descriptors 3
// and on.
func start(t *testing.T, role, spec string, change func(*exec.Cmd), files ...int) (*participant, string) {
	t.Helper()
	p := &participant{t: t, cmd: fdtest.Program(t, "participant", role, spec)}
	p.cmd.Stderr = os.Stderr
	if change != nil {
		change(p.cmd)
	}
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range files {
		f := os.NewFile(uintptr(fdtest.Dup(t, fd).Take()), "extra")
		defer f.Close()
		p.cmd.ExtraFiles = append(p.cmd.ExtraFiles, f)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start of a participant: %v", err)
	}
	p.in, p.out = in, bufio.NewScanner(out)
	t.Cleanup(p.kill)
	return p, p.line()
}

// join starts a participant, which must be able to open its queue.
func join(t *testing.T, role, spec string, change func(*exec.Cmd), files ...int) *participant {
	t.Helper()
	p, line := start(t, role, spec, change, files...)
	if line != "open" {
		t.Fatalf("a participant that opens %s to %s says %q, want %q", spec, role, line, "open")
	}
	return p
}

func (p *participant) line() string {
	p.t.Helper()
	line := make(chan string, 1)
	go func() {
		p.out.Scan()
		line <- p.out.Text()
	}()
	return fdtest.Soon(p.t, "a participant answers", line)
}

// tell tells the participant what to do.
func (p *participant) tell(command string) {
	p.t.Helper()
	if _, err := fmt.Fprintln(p.in, command); err != nil {
		p.t.Fatalf("%s: %v", command, err)
	}
}

// ask tells it, and compares the answer.
func (p *participant) ask(command, want string) {
	p.t.Helper()
	p.tell(command)
	if got := p.line(); got != want {
		p.t.Errorf("a participant told %q says %q, want %q", command, got, want)
	}
}

// kill kills it and waits until it is gone.
func (p *participant) kill() {
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	}
}

func asNobody(t *testing.T, groups ...uint32) func(*exec.Cmd) {
	return func(c *exec.Cmd) { fdtest.AsNobody(t, c, groups...) }
}

// side is an open queue in this process.
type side struct {
	*Queue
	*scm.Sender
	*scm.Receiver
}

func newSide(t *testing.T, q *Queue) *side {
	t.Helper()
	t.Cleanup(func() { _, _ = q.Close() })
	return &side{q, scm.NewSender(q.FD, &q.Calls), scm.NewReceiver(q.FD, &q.Calls)}
}

func openToSend(t *testing.T, spec string, o Options) *side {
	t.Helper()
	q, err := OpenSend(spec, o)
	if err != nil {
		t.Fatalf("OpenSend(%q) = %v, want nil", spec, err)
	}
	return newSide(t, q)
}

func openToReceive(t *testing.T, spec string, o Options) *side {
	t.Helper()
	q, err := OpenReceive(spec, o)
	if err != nil {
		t.Fatalf("OpenReceive(%q) = %v, want nil", spec, err)
	}
	return newSide(t, q)
}

// send sends a message with one descriptor.
func (s *side) send(t *testing.T, payload string) {
	t.Helper()
	if err := s.Send([]byte(payload), 2); err != nil {
		t.Fatalf("Send(%q) = %v, want nil", payload, err)
	}
}

// receive receives a message and compares it.
func (s *side) receive(t *testing.T, payload string) {
	t.Helper()
	var m scm.Message
	if err := s.Receive(&m); err != nil {
		t.Fatalf("Receive() = %v, want message %q", err, payload)
	}
	defer m.Close()
	if string(m.Payload) != payload || len(m.FDs) != 1 {
		t.Fatalf("Receive() = %q with %d descriptors, want %q with 1", m.Payload, len(m.FDs), payload)
	}
	if !fdtest.SameFile(m.FDs[0], 2) {
		t.Errorf("the descriptor of message %q is not the file that was sent", payload)
	}
}

func (s *side) receiveEnd(t *testing.T) {
	t.Helper()
	var m scm.Message
	if err := s.Receive(&m); err != io.EOF {
		t.Errorf("Receive() = %v, want io.EOF", err)
	}
}

// close closes the queue and compares what was lost.
func (s *side) close(t *testing.T, want int) {
	t.Helper()
	for range 2 { // the second time it says the same
		if lost, err := s.Close(); lost != want || err != nil {
			t.Errorf("Close() = %d, %v; want %d, nil", lost, err, want)
		}
	}
}

// refused opens a queue that cannot be opened.
func refused(t *testing.T, open func(string, Options) (*Queue, error), spec string, o Options, want string) {
	t.Helper()
	q, err := open(spec, o)
	if err == nil {
		_, _ = q.Close()
	}
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("opening %q = %v, want an error that says %q", spec, err, want)
	}
}

// refusedAt opens a queue at a copy of fd, which cannot be opened. Whether Open has
// closed the copy is left open here: it depends on how far it came.
func refusedAt(t *testing.T, open func(string, Options) (*Queue, error), fd int, o Options, want string) {
	t.Helper()
	given := fdtest.Dup(t, fd).Take()
	refused(t, open, number(given), o, want)
	_ = unix.Close(given)
}

func number(fd int) string { return fmt.Sprintf("fd:%d", fd) }

// Over a socket that both sides have already.
func TestSocketPair(t *testing.T) {
	for name, typ := range map[string]int{"seqpacket": unix.SOCK_SEQPACKET, "stream": unix.SOCK_STREAM} {
		t.Run(name, func(t *testing.T) {
			fdtest.NoLeaks(t)
			a, b := fdtest.Pair(t, typ)
			s := openToSend(t, number(a.Take()), Options{})
			r := openToReceive(t, number(b.Take()), Options{})
			s.send(t, "one")
			r.receive(t, "one")
			r.close(t, 0)
			fdtest.Soon(t, "Gone is closed when the receiver goes", s.Gone())
			if err := s.Send([]byte("x")); err != scm.ErrGone {
				t.Errorf("Send() = %v, want ErrGone", err)
			}
			s.close(t, 0)
		})
	}
}

func TestSocketPairEnd(t *testing.T) {
	fdtest.NoLeaks(t)
	a, b := fdtest.Pair(t, unix.SOCK_SEQPACKET)
	s := openToSend(t, number(a.Take()), Options{})
	r := openToReceive(t, number(b.Take()), Options{})
	s.send(t, "one")
	s.close(t, 0)
	r.receive(t, "one")
	r.receiveEnd(t)
}

// Standard input and output themselves cannot be used here: a participant has its
// commands there. What can stand behind a descriptor and is no queue is refused.
func TestDescriptorRefused(t *testing.T) {
	fdtest.NoLeaks(t)
	file, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	regular, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer regular.Close()
	sock := func(domain int) int {
		fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		return fd
	}
	listening := sock(unix.AF_UNIX)
	if err := errors.Join(unix.Bind(listening, &unix.SockaddrUnix{}), unix.Listen(listening, 1)); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ spec, want string }{
		{"fd:999999", "it is not open"},
		{"fd:x", `"x" is no descriptor number`},
		{"fd:-1", `"-1" is no descriptor number`},
		{"fd:", `"" is no descriptor number`},
		{"udp:x", `there is no kind of queue "udp"`},
		{"unix:", "the path is empty"},
		{"@", "the path is empty"},
		{"/" + strings.Repeat("x", 200), "a socket address holds 107"},
	} {
		refused(t, OpenSend, test.spec, Options{}, "cannot open queue "+test.spec+": ")
		refused(t, OpenReceive, test.spec, Options{}, test.want)
		refused(t, OpenSend, test.spec, Options{}, test.want)
	}
	for _, test := range []struct {
		fd   int
		want string
	}{
		{int(file.Fd()), "it is /dev/null, neither a pipe nor a Unix socket"},
		{int(regular.Fd()), "neither a pipe nor a Unix socket"},
		{sock(unix.AF_INET), "it is a network socket"},
		{listening, "it is a listening socket"},
	} {
		refusedAt(t, OpenReceive, test.fd, Options{}, test.want)
		refusedAt(t, OpenSend, test.fd, Options{}, test.want)
	}
}

func TestDrain(t *testing.T) {
	fdtest.NoLeaks(t)
	r, w := fdtest.Pipe(t)
	s := openToSend(t, number(w.Take()), Options{})
	to := openToReceive(t, number(r.Take()), Options{})
	if err := s.Drain(t.Context()); err != nil {
		t.Errorf("Drain of an empty queue = %v, want nil", err)
	}
	s.send(t, "one")
	s.send(t, "two")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Drain(ctx); err != context.Canceled {
		t.Errorf("Drain of a full queue with a context that has ended = %v, want context.Canceled", err)
	}
	drained := make(chan error, 1)
	go func() { drained <- s.Drain(t.Context()) }()
	to.receive(t, "one")
	to.receive(t, "two")
	if err := fdtest.Soon(t, "Drain returns", drained); err != nil {
		t.Errorf("Drain() = %v, want nil", err)
	}
	s.send(t, "three")
	go func() { drained <- s.Drain(t.Context()) }()
	to.close(t, 0)
	if err := fdtest.Soon(t, "Drain returns when no receiver is left", drained); err != nil {
		t.Errorf("Drain() = %v, want nil", err)
	}
	s.close(t, 1)
}

// inTime runs open, which is to end early by itself.
func inTime(t *testing.T, what string, open func()) {
	t.Helper()
	done := make(chan struct{})
	begin := time.Now()
	var group sync.WaitGroup
	group.Go(func() {
		open()
		close(done)
	})
	fdtest.Soon(t, what+" ends by itself", done)
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("%s took %v, want some seconds at most", what, took)
	}
	group.Wait()
}
