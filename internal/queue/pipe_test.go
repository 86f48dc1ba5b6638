//go:build linux

package queue

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
	"fdkit/internal/scm"
)

func aLine() line {
	return line{
		pid: 42, file: 7, name: "fdkit-0123", token: strings.Repeat("a", 32), answer: strings.Repeat("b", 32), pipe: "13:4711",
	}
}

func TestParseLine(t *testing.T) {
	l := aLine()
	if got, err := parseLine(l.String()); err != nil || got != l {
		t.Errorf("parseLine(%q) = %+v, %v; want %+v, nil", l.String(), got, err, l)
	}
	without := l
	without.file = -1
	if got, err := parseLine(without.String()); err != nil || got != without {
		t.Errorf("parseLine(%q) = %+v, %v; want %+v, nil", without.String(), got, err, without)
	}
	text := l.String()
	for _, bad := range []string{
		"", "\n", "hello\n", "fdkit-queue\n", "fdkit-queue ", text[:len(text)-1], text + text, text + "x", " " + text,
		strings.Replace(text, "pid=42", "pid=0", 1),
		strings.Replace(text, "pid=42", "pid=-1", 1),
		strings.Replace(text, "pid=42", "pid=042", 1),
		strings.Replace(text, "pid=42", "pid=+42", 1),
		strings.Replace(text, "pid=42", "pid=99999999999999999999", 1),
		strings.Replace(text, "file=7", "file=x", 1),
		strings.Replace(text, "file=7", "file=7 ", 1),
		strings.Replace(text, "name=fdkit-0123", "name=", 1),
		strings.Replace(text, "name=fdkit-0123", "name=a b", 1),
		strings.Replace(text, l.token, l.token[1:], 1),
		strings.Replace(text, l.answer, l.answer+"b", 1),
		strings.Replace(text, " token=", "  token=", 1),
		strings.Replace(text, " pipe=", "\npipe=", 1),
		strings.Replace(text, "fdkit-queue", "Fdkit-queue", 1),
		strings.Replace(text, "\n", "\r\n", 1),
	} {
		if got, err := parseLine(bad); err == nil {
			t.Errorf("parseLine(%q) = %+v, nil; want an error", bad, got)
		}
	}
}

// FuzzParseLine parses what may be in a pipe: a line that is taken is one that was
// written so.
func FuzzParseLine(f *testing.F) {
	f.Add(aLine().String())
	f.Add("hello\n")
	f.Add("fdkit-queue pid=1 file=-1 name=x token= answer= pipe=\n")
	f.Fuzz(func(t *testing.T, text string) {
		if l, err := parseLine(text); err == nil && l.String() != text {
			t.Errorf("parseLine(%q) = %+v, which is written %q", text, l, l)
		}
	})
}

// FuzzLine writes any line: it is read as the same, or refused.
func FuzzLine(f *testing.F) {
	f.Add(1, -1, "x", "13:1")
	f.Add(1<<22, 1000, "fdkit-"+strings.Repeat("0", 32), "0:0")
	f.Fuzz(func(t *testing.T, pid, file int, name, pipe string) {
		l := aLine()
		l.pid, l.file, l.name, l.pipe = pid, file, name, pipe
		if got, err := parseLine(l.String()); err == nil && got != l {
			t.Errorf("%+v is written %q and parsed as %+v", l, l, got)
		}
	})
}

// join1 joins a sender and a receiver of this process by a pipe. It keeps a copy
// of the reading end, for further receivers.
func join1(t *testing.T) (s, r *side, more *fdtest.End) {
	t.Helper()
	read, write := fdtest.Pipe(t)
	s = openToSend(t, number(write.Take()), Options{})
	r = openToReceive(t, number(fdtest.Dup(t, read.FD).Take()), Options{})
	return s, r, read
}

func TestPipe(t *testing.T) {
	fdtest.NoLeaks(t)
	s, r, more := join1(t)
	for _, payload := range []string{"one", "two", "three"} {
		s.send(t, payload)
		r.receive(t, payload)
	}
	more.Close()
	select {
	case <-s.Gone():
		t.Error("Gone is closed while a receiver is there")
	default:
	}
	s.send(t, "four")
	s.send(t, "five")
	s.close(t, 0)
	r.receive(t, "four")
	r.receive(t, "five")
	r.receiveEnd(t)
	r.close(t, 0)
}

// Gone is closed only when the last copy of the pipe's reading end is.
func TestPipeGone(t *testing.T) {
	fdtest.NoLeaks(t)
	s, r, more := join1(t)
	r.close(t, 0)
	s.send(t, "for the next one")
	select {
	case <-s.Gone():
		t.Error("Gone is closed while somebody holds the pipe")
	default:
	}
	second := openToReceive(t, number(fdtest.Dup(t, more.FD).Take()), Options{})
	second.receive(t, "for the next one")
	second.close(t, 0)
	s.send(t, "lost")
	more.Close()
	fdtest.Soon(t, "Gone is closed", s.Gone())
	s.close(t, 1)
}

// The reader may have gone before the sender comes.
func TestPipeWithoutReader(t *testing.T) {
	fdtest.NoLeaks(t)
	read, write := fdtest.Pipe(t)
	read.Close()
	q, err := OpenSend(number(write.Take()), Options{})
	if err != nil {
		t.Fatalf("OpenSend to a pipe without a reader = %v, want a queue that is Gone", err)
	}
	fdtest.Soon(t, "Gone is closed", q.Gone())
	if lost, err := q.Close(); lost != 0 || err != nil {
		t.Errorf("Close() = %d, %v; want 0, nil", lost, err)
	}
}

func TestPipeTwoReceivers(t *testing.T) {
	fdtest.NoLeaks(t)
	s, first, more := join1(t)
	second := openToReceive(t, number(more.Take()), Options{})
	const messages = 200
	type result struct {
		payloads []string
		err      error
	}
	results := make(chan result, 2)
	for _, r := range []*side{first, second} {
		go func() {
			var got result
			var m scm.Message
			for {
				if got.err = r.Receive(&m); got.err != nil {
					results <- got
					return
				}
				got.payloads = append(got.payloads, string(m.Payload))
				m.Close()
			}
		}()
	}
	for i := range messages {
		s.send(t, fmt.Sprint(i))
	}
	s.close(t, 0)
	seen := map[string]int{}
	for range 2 {
		got := fdtest.Soon(t, "a receiver ends", results)
		if got.err != io.EOF {
			t.Errorf("a receiver ends with %v, want io.EOF", got.err)
		}
		for _, payload := range got.payloads {
			seen[payload]++
		}
	}
	for i := range messages {
		if n := seen[fmt.Sprint(i)]; n != 1 {
			t.Errorf("message %d was received %d times, want once", i, n)
		}
	}
}

func TestPipeAcrossProcesses(t *testing.T) {
	netns := func(c *exec.Cmd) {
		fdtest.NeedsRoot(t)
		c.SysProcAttr.Cloneflags = syscall.CLONE_NEWNET
	}
	for _, test := range []struct {
		about            string
		sender, receiver func(*exec.Cmd)
	}{
		{"the same user", nil, nil},
		{"the receiver is another user", nil, asNobody(t)},
		{"the sender is another user", asNobody(t), nil},
		{"the receiver has another network", nil, netns},
	} {
		t.Run(test.about, func(t *testing.T) {
			fdtest.NoLeaks(t)
			dir := t.TempDir()
			t.Setenv("TMPDIR", dir)
			read, write := fdtest.Pipe(t)
			s := join(t, "send", "fd:3", test.sender, write.FD)
			r := join(t, "receive", "fd:3", test.receiver, read.FD)
			second := join(t, "receive", "fd:3", test.receiver, read.FD)
			read.Close()
			write.Close()
			if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
				t.Errorf("files are left: %v, %v; want none", entries, err)
			}
			s.ask("send one", "sent <nil>")
			r.ask("receive", "received one with 1, <nil>")
			s.ask("send two", "sent <nil>")
			s.ask("send three", "sent <nil>")
			r.kill()
			s.kill()
			second.ask("receive", "received two with 1, <nil>")
			second.ask("receive", "received three with 1, <nil>")
			second.ask("receive", "received  with 0, EOF")
		})
	}
}

// A sender that is killed leaves its line in the pipe.
func TestPipeSenderEnded(t *testing.T) {
	for _, test := range []struct {
		about string
		stop  func(*participant)
	}{
		{"killed", (*participant).kill},
		{"closed", func(p *participant) { p.ask("close", "closed, lost 0, <nil>"); p.kill() }},
	} {
		t.Run(test.about, func(t *testing.T) {
			fdtest.NoLeaks(t)
			read, write := fdtest.Pipe(t)
			s := join(t, "send", "fd:3", nil, write.FD)
			write.Close()
			test.stop(s)
			given := fdtest.Dup(t, read.FD).Take()
			q, err := OpenReceive(number(given), Options{})
			_ = unix.Close(given) // in case that Open has not
			if !errors.Is(err, ErrEnded) || !errors.Is(err, io.EOF) {
				t.Errorf("OpenReceive() = %v, %v; want ErrEnded, which wraps io.EOF", q, err)
			}
		})
	}
}

// lineIn returns the line that a sender has written to a pipe.
func lineIn(t *testing.T, pipe int) line {
	t.Helper()
	text, err := peekPipe(pipe)
	if err != nil {
		t.Fatalf("peekPipe() = %v", err)
	}
	l, err := parseLine(string(text))
	if err != nil {
		t.Fatalf("parseLine(%q) = %v", text, err)
	}
	return l
}

// TestPipeSenderEnds lets the sender end between the line and the question: somebody else
// holds the pipe, so the receiver does not see that at the pipe.
func TestPipeSenderEnds(t *testing.T) {
	fdtest.NoLeaks(t)
	for _, test := range []struct {
		about string
		state func(*participant)
	}{
		{"nobody has waited for it", func(p *participant) {
			_ = p.cmd.Process.Kill()
			if err := unix.Waitid(unix.P_PID, p.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
				t.Error(err)
			}
		}},
		{"it ends a moment after it has closed", func(p *participant) {
			p.ask("close", "closed, lost 0, <nil>")
			time.AfterFunc(20*time.Millisecond, func() { _ = p.cmd.Process.Kill() })
		}},
	} {
		t.Run(test.about, func(t *testing.T) {
			read, write := fdtest.Pipe(t)
			s := join(t, "send", "fd:3", nil, write.FD)
			l := lineIn(t, read.FD)
			test.state(s)
			if fd, err := fetch(l, opening{}.patience()); err != io.EOF {
				t.Errorf("fetch() = %d, %v; want io.EOF", fd, err)
			}
			s.kill()
		})
	}
}

func TestPipeToken(t *testing.T) {
	fdtest.NoLeaks(t)
	_, _, more := join1(t)
	l := lineIn(t, more.FD)
	for about, change := range map[string]func(*line){
		"another token":             func(l *line) { l.token = random128() },
		"an empty token":            func(l *line) { l.token = "" },
		"a longer one":              func(l *line) { l.token += "0" },
		"another through /proc":     func(l *line) { l.name, l.token = "fdkit-none", random128() },
		"another answer":            func(l *line) { l.answer = random128() },
		"another, with a smuggling": func(l *line) { l.token = "\x00" + l.token },
	} {
		wrong := l
		change(&wrong)
		fd, err := fetch(wrong, opening{}.patience())
		if err == nil {
			_ = unix.Close(fd)
			t.Errorf("fetch with %s = %d, nil; want an error", about, fd)
		} else if !strings.Contains(err.Error(), "wrong token") && !strings.Contains(err.Error(), "another process answers") {
			t.Errorf("fetch with %s = %v, want one that says so", about, err)
		}
	}
	for about, change := range map[string]func(*line){
		"the line as it is":      func(*line) {},
		"the door through /proc": func(l *line) { l.name = "fdkit-none" },
		"the abstract door":      func(l *line) { l.file = -1 },
	} {
		right := l
		change(&right)
		fd, err := fetch(right, opening{}.patience())
		if err != nil {
			t.Errorf("fetch with %s = %v, want nil", about, err)
			continue
		}
		_ = unix.Close(fd)
	}
}

// A program in the middle that copies the line, such as cat, is told.
func TestPipeCopiedLine(t *testing.T) {
	fdtest.NoLeaks(t)
	_, _, more := join1(t)
	read, write := fdtest.Pipe(t)
	if _, err := unix.Write(write.FD, []byte(lineIn(t, more.FD).String())); err != nil {
		t.Fatal(err)
	}
	refusedAt(t, OpenReceive, read.FD, Options{}, "the line in it comes from another pipe")
}

func TestPipeTwoSenders(t *testing.T) {
	fdtest.NoLeaks(t)
	read, write := fdtest.Pipe(t)
	second := fdtest.Dup(t, write.FD)
	openToSend(t, number(write.Take()), Options{})
	refusedAt(t, OpenSend, second.FD, Options{}, "another sender has written to this pipe")
	// They may both have come at the same moment.
	if _, err := unix.Write(second.FD, []byte(aLine().String())); err != nil {
		t.Fatal(err)
	}
	refusedAt(t, OpenReceive, read.FD, Options{}, "two programs have written to this pipe")
}

func TestPipeWithOtherThings(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"", "it ended before a sender wrote to it"},
		{"hello\n", `it carries no descriptors but data: "hello"`},
		{"no newline", `it carries no descriptors but data: "no newline"`},
		{"\n", "it carries no descriptors but data"},
		{"fdkit-", `it carries no descriptors but data: "fdkit-"`},
		{"fdkit-queue pid=1 file=3", "it carries no descriptors but data"},
		{"fdkit-queue pid=1 file=3\n", "it carries no descriptors but data"},
		{strings.Repeat("x", 5000), "it carries no descriptors but data"},
	} {
		fdtest.NoLeaks(t)
		read, write := fdtest.Pipe(t)
		if _, err := unix.Write(write.FD, []byte(test.text)); err != nil {
			t.Fatal(err)
		}
		write.Close()
		inTime(t, "opening a pipe with "+test.text, func() {
			refusedAt(t, OpenReceive, read.FD, Options{}, test.want)
		})
	}
}

// Data is told at once, also while its writer goes on.
func TestPipeWithOtherThingsGoingOn(t *testing.T) {
	fdtest.NoLeaks(t)
	for _, text := range []string{"hello\n", "no newline", "fdkit-queue pid=1\n"} {
		read, write := fdtest.Pipe(t)
		if _, err := unix.Write(write.FD, []byte(text)); err != nil {
			t.Fatal(err)
		}
		inTime(t, "opening a pipe with "+text, func() {
			refusedAt(t, OpenReceive, read.FD, Options{}, "it carries no descriptors but data")
		})
	}
}

// The line may come in pieces, and late.
func TestPipeLineInPieces(t *testing.T) {
	fdtest.NoLeaks(t)
	_, _, more := join1(t)
	read, write := fdtest.Pipe(t)
	l := lineIn(t, more.FD)
	l.pipe, _ = pipeIdentity(read.FD)
	text := l.String()
	opened := make(chan error, 1)
	fd := fdtest.Dup(t, read.FD).Take()
	go func() {
		q, err := OpenReceive(number(fd), Options{})
		if err == nil {
			_, err = q.Close()
		}
		opened <- err
	}()
	fdtest.Eventually(t, "the receiver waits", func() bool { return fdtest.Blocked(unix.SYS_PPOLL, -1) })
	for _, piece := range []string{text[:5], text[5:12], text[12:60], text[60:]} {
		if _, err := unix.Write(write.FD, []byte(piece)); err != nil {
			t.Fatal(err)
		}
	}
	if err := fdtest.Soon(t, "the receiver has opened its queue", opened); err != nil {
		t.Errorf("OpenReceive() = %v, want nil", err)
	}
}

func TestPipeWait(t *testing.T) {
	fdtest.NoLeaks(t)
	read, write := fdtest.Pipe(t)
	inTime(t, "waiting for a silent sender", func() {
		refusedAt(t, OpenReceive, read.FD, Options{Wait: 30 * time.Millisecond}, "no sender has written to it in time")
	})
	if _, err := unix.Write(write.FD, []byte("fdkit-queue pid=")); err != nil {
		t.Fatal(err)
	}
	inTime(t, "waiting for the rest of a line", func() {
		refusedAt(t, OpenReceive, read.FD, Options{Wait: 30 * time.Millisecond}, "it carries no descriptors but data")
	})
}
