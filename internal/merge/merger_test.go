//go:build linux

package merge

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
	"fdkit/internal/interrupt"
	"fdkit/internal/scm"
)

// running is a Merger at work.
type running struct {
	*Merger
	t     *testing.T
	queue *fdtest.End // clients are sent here
	out   *os.File    // what it writes is read here
	ended chan error
	done  bool

	mu     sync.Mutex
	losses []Loss
	came   int
	left   int
}

// start runs a Merger until the test's end.
func start(t *testing.T, change func(*Merger)) *running {
	t.Helper()
	return startWith(t, change, func(*running) {})
}

// startWith does before what is to be done before it runs.
func startWith(t *testing.T, change func(*Merger), before func(*running)) *running {
	t.Helper()
	queue, in := fdtest.Pair(t, unix.SOCK_SEQPACKET)
	read, write := fdtest.Pipe(t)
	receiver := scm.NewReceiver(in.FD, nil)
	r := &running{t: t, queue: queue, out: os.NewFile(uintptr(read.Take()), "out"), ended: make(chan error, 1)}
	r.Merger = &Merger{
		Framing: Framing{Max: 1 << 20}, MaxHeld: 64 << 20, Out: write.FD, Queue: in.FD, Receive: receiver.ReceiveNow,
		Came: func(_ int, payload []byte) string {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.came++
			return string(payload)
		},
		Left: func(*Client) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.left++
		},
		Lost: func(l Loss) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.losses = append(r.losses, l)
		},
		Full: func(int) {},
	}
	if change != nil {
		change(r.Merger)
	}
	before(r)
	go func() {
		err := r.Run()
		write.Close()
		r.ended <- err
	}()
	t.Cleanup(func() {
		r.Abort()
		if !r.done {
			fdtest.Soon(t, "it has ended", r.ended)
		}
		r.out.Close()
	})
	return r
}

// give sends a client, whose descriptor is closed then.
func (r *running) give(name string, client *fdtest.End) {
	r.t.Helper()
	sender := scm.NewSender(r.queue.FD, nil)
	if err := sender.Send([]byte(name), client.FD); err != nil {
		r.t.Fatal(err)
	}
	client.Close()
}

// connect gives a client, and returns its other end.
func (r *running) connect(name string) *fdtest.End {
	r.t.Helper()
	ours, theirs := fdtest.Pair(r.t, unix.SOCK_STREAM)
	r.give(name, theirs)
	return ours
}

// end returns how Run has ended.
func (r *running) end() error {
	r.t.Helper()
	err := fdtest.Soon(r.t, "it has ended", r.ended)
	r.done = true
	return err
}

// wantLoss waits for a loss, and returns it.
func (r *running) wantLoss(reason, client string) (found Loss) {
	r.t.Helper()
	fdtest.Eventually(r.t, "lost: "+reason+" of "+client, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		i := slices.IndexFunc(r.losses, func(l Loss) bool { return l.Reason == reason && l.Client == client })
		if i >= 0 {
			found = r.losses[i]
		}
		return i >= 0
	})
	return found
}

func (r *running) noLoss() {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.losses) > 0 {
		r.t.Errorf("lost %+v; want nothing", r.losses)
	}
}

func (r *running) wantOut(want string) {
	r.t.Helper()
	got := make([]byte, len(want))
	read := make(chan error, 1)
	go func() {
		_, err := io.ReadFull(r.out, got)
		read <- err
	}()
	if err := fdtest.Soon(r.t, fmt.Sprintf("%.100q is written", want), read); err != nil || string(got) != want {
		r.t.Fatalf("written: %.100q, %v; want %.100q", got, err, want)
	}
}

func put(t *testing.T, end *fdtest.End, text string) {
	t.Helper()
	for b := []byte(text); len(b) > 0; {
		n, err := unix.Write(end.FD, b)
		if err != nil {
			t.Error(err)
			return
		}
		b = b[n:]
	}
}

// Many clients of all kinds write frames of all lengths in pieces of all lengths. Each
// frame comes whole, once, and in its client's order.
func TestWhole(t *testing.T) {
	for _, prefix := range []int{0, 1, 4} {
		t.Run(fmt.Sprint(prefix), func(t *testing.T) {
			fdtest.NoLeaks(t)
			const clients, frames = 24, 300
			r := start(t, func(m *Merger) { m.Framing.Prefix = prefix })
			var writers sync.WaitGroup
			for i := range clients {
				random := rand.New(rand.NewPCG(uint64(prefix), uint64(i)))
				var all []byte
				for j := range frames {
					text := fmt.Sprintf("%d %d ", i, j)
					room := 10
					switch {
					case prefix == 1:
						room = 200
					case i == 0:
						room = 20000
					}
					text += strings.Repeat(string(rune('a'+i)), random.IntN(room))
					all = append(all, framed(prefix, text)...)
				}
				if prefix == 0 && i%2 == 1 {
					all = all[:len(all)-1] // it gets a newline
				}
				switch i % 4 {
				case 0:
					ours, theirs := fdtest.Pair(t, unix.SOCK_STREAM)
					r.give("unix", theirs)
					writers.Go(func() { pieces(t, ours, all, random) })
				case 1:
					ours, theirs := fdtest.TCPPair(t)
					r.give("tcp", theirs)
					writers.Go(func() { pieces(t, ours, all, random) })
				case 2:
					read, write := fdtest.Pipe(t)
					r.give("pipe", read)
					writers.Go(func() { pieces(t, write, all, random) })
				case 3:
					name := t.TempDir() + "/file"
					if err := os.WriteFile(name, all, 0o600); err != nil {
						t.Fatal(err)
					}
					fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
					if err != nil {
						t.Fatal(err)
					}
					file := fdtest.Dup(t, fd)
					unix.Close(fd)
					r.give("file", file)
				}
			}
			r.queue.Close()
			next, total := make([]int, clients), 0
			in := bufio.NewReader(r.out)
			for {
				text, err := readFrame(in, prefix)
				if err == io.EOF {
					break
				} else if err != nil {
					t.Fatal(err)
				}
				var i, j int
				var tail string
				if n, _ := fmt.Sscanf(text, "%d %d %s", &i, &j, &tail); n < 2 || i >= clients || j != next[i] || strings.Trim(tail, string(rune('a'+i))) != "" {
					t.Fatalf("frame %.100q; want frame %d of client %d, whole", text, next[min(i, clients-1)], i)
				}
				next[i]++
				total++
			}
			writers.Wait()
			if err := r.end(); err != nil || total != clients*frames || r.Total.Frames != clients*frames || r.Total.Clients != clients {
				t.Errorf("Run() = %v, %d frames came, %+v; want nil, %d", err, total, r.Total, clients*frames)
			}
			r.noLoss()
		})
	}
}

func framed(prefix int, text string) []byte {
	if prefix == 0 {
		return []byte(text + "\n")
	}
	return append(binary.BigEndian.AppendUint64(nil, uint64(len(text)))[8-prefix:], text...)
}

func readFrame(in *bufio.Reader, prefix int) (string, error) {
	if prefix == 0 {
		line, err := in.ReadString('\n')
		if err == io.EOF && line != "" {
			err = io.ErrUnexpectedEOF
		}
		return strings.TrimSuffix(line, "\n"), err
	}
	var length [8]byte
	if _, err := io.ReadFull(in, length[8-prefix:]); err != nil {
		return "", err
	}
	text := make([]byte, binary.BigEndian.Uint64(length[:]))
	_, err := io.ReadFull(in, text)
	return string(text), err
}

// pieces writes in pieces, and closes.
func pieces(t *testing.T, end *fdtest.End, all []byte, random *rand.Rand) {
	for len(all) > 0 {
		n := min(1+random.IntN(1<<random.IntN(15)), len(all))
		put(t, end, string(all[:n]))
		all = all[n:]
	}
	end.Close()
}

// What a slow client has sent is written before the fast one has much more, however long
// that has waited for its turn.
func TestFair(t *testing.T) {
	fdtest.NoLeaks(t)
	r := start(t, nil)
	fast, slow := r.connect("fast"), r.connect("slow")
	writing := make(chan struct{})
	go func() {
		defer close(writing)
		line := bytes.Repeat([]byte("fast\n"), 10000)
		for {
			if _, err := unix.SendmsgN(fast.FD, line, nil, nil, unix.MSG_NOSIGNAL); err != nil {
				return
			}
		}
	}()
	in := bufio.NewReader(r.out)
	for i := range 20 {
		for range 10000 { // it flows
			if line, err := in.ReadString('\n'); line != "fast\n" {
				t.Fatalf("%q, %v; want fast", line, err)
			}
		}
		put(t, slow, "slow\n")
		passed := 0
		for {
			line, err := in.ReadString('\n')
			if line == "slow\n" {
				break
			}
			// The pipe and bufio's buffer have 68 KiB, what is being written and what is
			// read next some 128 KiB each.
			if passed += len(line); err != nil || passed > 1<<20 {
				t.Fatalf("turn %d: %d bytes of the fast client come before the slow one's line, %v", i, passed, err)
			}
		}
	}
	r.Abort()
	if err := r.end(); err != interrupt.ErrStopped {
		t.Errorf("Run() = %v; want stopped", err)
	}
	<-writing // it is closed, and not another one by that number
}

// Nothing is read while nobody reads what is written, and clients' flags stay as they are.
func TestBackpressure(t *testing.T) {
	fdtest.NoLeaks(t)
	r := start(t, nil)
	client, theirs := fdtest.Pair(t, unix.SOCK_STREAM)
	same := fdtest.Dup(t, theirs.FD)
	r.give("c", theirs)
	line := bytes.Repeat([]byte("0123456789abcde\n"), 64)
	sent := 0
	fdtest.Eventually(t, "the client is held up", func() bool {
		for {
			n, err := unix.SendmsgN(client.FD, line, nil, nil, unix.MSG_DONTWAIT)
			if err != nil {
				return fdtest.Blocked(unix.SYS_WRITE, r.Out)
			}
			sent += n
		}
	})
	if sent > 4<<20 {
		t.Errorf("%d bytes were taken though nobody reads them", sent)
	}
	if flags, err := unix.FcntlInt(uintptr(same.FD), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
		t.Errorf("the client's flags are %#x, %v; want no O_NONBLOCK", flags, err)
	}
	r.Stop() // does not end it, as all is to be written
	go io.Copy(io.Discard, r.out)
	if err := r.end(); err != nil || r.Total.Bytes != int64(sent) {
		t.Errorf("Run() = %v, %d bytes written; want nil, %d", err, r.Total.Bytes, sent)
	}
	r.noLoss()
}

// Abort ends it while nobody reads, and says what is not written.
func TestAbort(t *testing.T) {
	fdtest.NoLeaks(t)
	r := start(t, nil)
	client := r.connect("c")
	fdtest.Eventually(t, "it writes", func() bool {
		_, _ = unix.SendmsgN(client.FD, bytes.Repeat([]byte("line\n"), 1000), nil, nil, unix.MSG_DONTWAIT)
		return fdtest.Blocked(unix.SYS_WRITE, r.Out)
	})
	r.Abort()
	if err := r.end(); err != interrupt.ErrStopped {
		t.Errorf("Run() = %v; want stopped", err)
	}
	if l := r.wantLoss("unwritten", ""); l.Bytes == 0 {
		t.Errorf("lost %+v; want how many bytes", l)
	}
}

// What reads has gone: that is seen also when nothing is written.
func TestNoReader(t *testing.T) {
	fdtest.NoLeaks(t)
	r := start(t, nil)
	client := r.connect("c")
	put(t, client, "line\nhalf")
	r.wantOut("line\n")
	r.out.Close()
	if err := r.end(); err == nil || !strings.Contains(err.Error(), "cannot write to stdout: write: broken pipe") {
		t.Errorf("Run() = %v; want broken pipe", err)
	}
	r.wantLoss("ended", "c")
}

// Every fault is counted and told with its client, and the others notice nothing.
func TestFaults(t *testing.T) {
	fdtest.NoLeaks(t)
	r := start(t, nil)
	good := r.connect("good")
	lose := func(reason, client string, bytes int) {
		t.Helper()
		if l := r.wantLoss(reason, client); l.Bytes != bytes || l.Err == nil {
			t.Errorf("lost %+v; want %d bytes", l, bytes)
		}
		put(t, good, "good\n")
		r.wantOut("good\n")
	}

	// The kernel's buffers are smaller, so the writer sees the end.
	long := r.connect("long")
	rest := bytes.Repeat([]byte("x"), 10<<20)
	for len(rest) > 0 {
		n, err := unix.SendmsgN(long.FD, rest, nil, nil, unix.MSG_NOSIGNAL)
		if err != nil {
			break
		}
		rest = rest[n:]
	}
	if len(rest) == 0 {
		t.Error("10 MB without a newline were all taken")
	}
	if l := r.wantLoss("too-long", "long"); l.Bytes <= 1<<20 || l.Bytes > 1<<20+turnSize {
		t.Errorf("lost %+v; want a little more than 1 MiB", l)
	}

	client, theirs := fdtest.TCPPair(t)
	r.give("reset", theirs)
	put(t, client, "whole\nhalf")
	r.wantOut("whole\n")
	client.Reset()
	lose("failed", "reset", 4)

	dgram, _ := fdtest.Pair(t, unix.SOCK_DGRAM)
	r.give("dgram", dgram)
	lose("unreadable", "dgram", 0)
	_, write := fdtest.Pipe(t)
	r.give("write-only", write)
	lose("unreadable", "write-only", 0)
	for name, path := range map[string]string{"directory": "/", "device": "/dev/null"} {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		end := fdtest.Dup(t, fd)
		unix.Close(fd)
		r.give(name, end)
		lose("unreadable", name, 0)
	}

	sender := scm.NewSender(r.queue.FD, nil)
	if err := unix.Sendmsg(r.queue.FD, []byte("none"), nil, nil, 0); err != nil {
		t.Fatal(err)
	}
	lose("no-descriptor", "", 0)
	ours, first := fdtest.Pair(t, unix.SOCK_STREAM)
	if err := sender.Send([]byte("two"), first.FD, first.FD, r.queue.FD); err != nil {
		t.Fatal(err)
	}
	first.Close()
	put(t, ours, "first\n")
	r.wantOut("first\n")
	lose("extra", "two", 0)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.losses) != 8 {
		t.Errorf("lost %+v; want 8 things", r.losses)
	}
}

// Of a frame of length that is not complete at the end nothing is written.
func TestUnfinished(t *testing.T) {
	fdtest.NoLeaks(t)
	r := start(t, func(m *Merger) { m.Framing.Prefix = 2 })
	client := r.connect("c")
	put(t, client, "\x00\x01a\x00\x02b")
	client.Close()
	r.wantOut("\x00\x01a")
	if l := r.wantLoss("unfinished", "c"); l.Bytes != 3 {
		t.Errorf("lost %+v; want 3 bytes", l)
	}
}

// The frame that ends all: what others have sent before is written, also of clients that
// are still in the queue, and what is behind it is not.
func TestEnd(t *testing.T) {
	fdtest.NoLeaks(t)
	r := start(t, func(m *Merger) { m.Framing.End = []byte("end") })
	ends := r.connect("ends")
	put(t, ends, "a\n")
	r.wantOut("a\n")
	// While it writes to a full pipe it cannot see what happens meanwhile.
	filler := r.connect("filler")
	filling := make(chan struct{})
	go func() {
		defer close(filling)
		for err := error(nil); err == nil; { // until it is closed
			_, err = unix.SendmsgN(filler.FD, bytes.Repeat([]byte("fill\n"), 1000), nil, nil, unix.MSG_NOSIGNAL)
		}
	}()
	fdtest.Eventually(t, "it is held up", func() bool { return fdtest.Blocked(unix.SYS_WRITE, r.Out) })
	put(t, ends, "b\nend\nc\n")
	late := r.connect("late")
	put(t, late, "late\nhalf")
	last := r.connect("last")
	put(t, last, "no newline")
	last.Close()
	out, err := io.ReadAll(r.out)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.end(); err != nil {
		t.Errorf("Run() = %v; want nil", err)
	}
	for _, line := range []string{"b\n", "late\n", "no newline\n"} {
		if bytes.Count(out, []byte(line)) != 1 {
			t.Errorf("%q was written %d times; want once", line, bytes.Count(out, []byte(line)))
		}
	}
	if bytes.Contains(out, []byte("end\n")) || bytes.Contains(out, []byte("half")) || bytes.Contains(out, []byte("c\n")) {
		t.Errorf("%.100q was written", bytes.ReplaceAll(out, []byte("fill\n"), nil))
	}
	if l := r.wantLoss("after-end", "ends"); l.Bytes != 2 {
		t.Errorf("lost %+v; want 2 bytes", l)
	}
	if l := r.wantLoss("ended", "late"); l.Bytes != 4 {
		t.Errorf("lost %+v; want 4 bytes", l)
	}
	<-filling
}

// Stop lets what has come be written, and a client that has ended in order gets its
// newline.
func TestStop(t *testing.T) {
	fdtest.NoLeaks(t)
	r := start(t, nil)
	a, b := r.connect("a"), r.connect("b")
	put(t, a, "one\n")
	r.wantOut("one\n")
	put(t, b, "two\nhal")
	r.wantOut("two\n")
	put(t, a, "three")
	a.Close()
	r.Stop()
	r.wantOut("three\n")
	if err := r.end(); err != nil {
		t.Errorf("Run() = %v; want nil", err)
	}
	if l := r.wantLoss("ended", "b"); l.Bytes != 3 {
		t.Errorf("lost %+v; want 3 bytes", l)
	}
}

// Without clients it ends after the time of Idle; with one it does not.
func TestIdle(t *testing.T) {
	fdtest.NoLeaks(t)
	var client *fdtest.End
	r := startWith(t, func(m *Merger) { m.Idle = 50e6 }, func(r *running) { client = r.connect("c") })
	put(t, client, "there\n")
	r.wantOut("there\n")
	time.Sleep(100 * time.Millisecond) // nothing ends it meanwhile
	put(t, client, "still\n")
	r.wantOut("still\n")
	put(t, client, "x")
	client.Close()
	r.wantOut("x\n")
	if err := r.end(); err != nil {
		t.Errorf("Run() = %v; want nil", err)
	}
}

// While there is no descriptor left clients wait in the queue.
func TestLimit(t *testing.T) {
	fdtest.NoLeaks(t)
	// Those of the test are made before.
	var ours, theirs [6]*fdtest.End
	for i := range ours {
		ours[i], theirs[i] = fdtest.Pair(t, unix.SOCK_STREAM)
	}
	full := make(chan int, 1)
	r := start(t, func(m *Merger) {
		m.Full = func(n int) { full <- n }
		fdtest.FewFiles(t, 3+spareFDs+3)
	})
	// It has counted what is open.
	fdtest.Eventually(t, "it waits", func() bool { return fdtest.Inside("merge.(*Merger).wait") })
	for i := range ours {
		r.give(fmt.Sprint(i), theirs[i])
	}
	n := fdtest.Soon(t, "it is full", full)
	if n < 1 || n >= len(ours) {
		t.Fatalf("there is room for %d clients; want some", n)
	}
	put(t, ours[n], "waits\n")
	for i := range n {
		put(t, ours[i], "x\n")
		r.wantOut("x\n")
	}
	ours[0].Close()
	r.wantOut("waits\n")
	r.noLoss()
}

// Long frames of many clients share memory, and all come whole.
func TestCrowd(t *testing.T) {
	fdtest.NoLeaks(t)
	const held, clients, length = 64 << 10, 30, 200 << 10
	var most int
	r := start(t, func(m *Merger) {
		m.MaxHeld = held
		m.Came = func(int, []byte) string { most = max(most, m.held); return "c" }
		m.Left = func(*Client) { most = max(most, m.held) }
	})
	var writers sync.WaitGroup
	for i := range clients {
		c := r.connect("c")
		writers.Go(func() {
			line := strings.Repeat(string(rune('a'+i)), length-1) + "\n"
			put(t, c, line+line)
			c.Close()
		})
	}
	r.queue.Close()
	in, lines := bufio.NewReader(r.out), 0
	for {
		line, err := in.ReadString('\n')
		if err == io.EOF {
			break
		}
		if len(line) != length || strings.Trim(line, line[:1]) != "\n" {
			t.Fatalf("a line of %d bytes, %.20q", len(line), line)
		}
		lines++
	}
	writers.Wait()
	if err := r.end(); err != nil || lines != 2*clients {
		t.Errorf("Run() = %v, %d lines; want nil, %d", err, lines, 2*clients)
	}
	r.noLoss()
	// Room grows to twice what is needed at most.
	if bound := held + 2*(length+turnSize) + clients*2*aLittle; most > bound {
		t.Errorf("%d bytes were held; want at most %d", most, bound)
	}
}

// Who holds memory and is silent is closed when others wait for it.
func TestCrowdSilent(t *testing.T) {
	fdtest.NoLeaks(t)
	t.Cleanup(func() { grace = 5e9 })
	grace = 50e6
	r := start(t, func(m *Merger) { m.MaxHeld = 64 << 10 })
	silent := r.connect("silent")
	put(t, silent, strings.Repeat("s", 100<<10))
	fdtest.Eventually(t, "it holds much", func() bool {
		n, err := unix.IoctlGetInt(silent.FD, unix.SIOCOUTQ)
		return err == nil && n == 0
	})
	small := r.connect("small") // is heard all the while
	put(t, small, "small\n")
	r.wantOut("small\n")
	r.noLoss()
	long := r.connect("long")
	go put(t, long, strings.Repeat("l", 80<<10)+"\n")
	r.wantOut(strings.Repeat("l", 80<<10) + "\n")
	if l := r.wantLoss("crowded", "silent"); l.Bytes != 100<<10 {
		t.Errorf("lost %+v; want 102400 bytes", l)
	}
}

// A pipe that may not be opened anew is read all the same.
func TestPipeOfOthers(t *testing.T) {
	fdtest.NoLeaks(t)
	read, write := fdtest.Pipe(t)
	b := make([]byte, 10)
	if n, err := readNow(read.FD, b); err == unix.EOPNOTSUPP {
		fdtest.Lacks(t, "pipes have no RWF_NOWAIT before Linux 6.4")
	} else if err != unix.EAGAIN {
		t.Errorf("readNow() = %d, %v of an empty pipe; want EAGAIN", n, err)
	}
	put(t, write, "x")
	if n, err := readNow(read.FD, b); n != 1 || err != nil {
		t.Errorf("readNow() = %d, %v; want 1, nil", n, err)
	}
	write.Close()
	if n, err := readNow(read.FD, b); n != 0 || err != nil {
		t.Errorf("readNow() = %d, %v at the end; want 0, nil", n, err)
	}
}

// There is no garbage for each line.
func TestAllocations(t *testing.T) {
	f, s := &Framing{Max: 1 << 20, End: []byte("end")}, stream{}
	b := []byte(strings.Repeat("a line\n", 1000) + "half ")
	out := make([]byte, 0, 2*len(b))
	if n := testing.AllocsPerRun(100, func() { _, _, _, _ = s.add(f, out, b) }); n > 0 {
		t.Errorf("%v allocations for 1000 lines; want none", n)
	}
}

// BenchmarkMerge writes lines of 64 bytes from one client.
func BenchmarkMerge(b *testing.B) {
	var fds, out [2]int
	if err := unix.Pipe2(out[:], unix.O_CLOEXEC); err != nil {
		b.Fatal(err)
	}
	queue, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	if fds, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		b.Fatal(err)
	}
	m := &Merger{
		Framing: Framing{Max: 1 << 20}, MaxHeld: 64 << 20, Out: out[1], Queue: queue[0],
		Receive: scm.NewReceiver(queue[0], nil).ReceiveNow,
		Came:    func(int, []byte) string { return "" }, Left: func(*Client) {}, Lost: func(l Loss) { b.Error(l) },
	}
	if err := unix.Sendmsg(queue[1], []byte("x"), unix.UnixRights(fds[0]), nil, 0); err != nil {
		b.Fatal(err)
	}
	unix.Close(fds[0])
	unix.Close(queue[1])
	lines := bytes.Repeat([]byte(strings.Repeat("x", 63)+"\n"), 1024)
	b.ReportAllocs()
	b.ResetTimer()
	go func() {
		for left := b.N; left > 0; {
			n, err := unix.Write(fds[1], lines[:64*min(left, 1024)])
			if err != nil || n%64 != 0 {
				b.Error(n, err)
				break
			}
			left -= n / 64
		}
		unix.Close(fds[1])
	}()
	go func() {
		for buf := make([]byte, 1<<17); ; {
			if n, err := unix.Read(out[0], buf); n <= 0 || err != nil {
				break
			}
		}
	}()
	if err := m.Run(); err != nil || m.Total.Frames != int64(b.N) {
		b.Fatal(m.Total, err)
	}
	b.SetBytes(64)
	unix.Close(out[1])
	unix.Close(queue[0])
}
