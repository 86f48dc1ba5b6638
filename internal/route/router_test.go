//go:build linux

package route_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
	"fdkit/internal/interrupt"
	"fdkit/internal/route"
	"fdkit/internal/scm"
)

// rig is a Router with queues on both sides.
type rig struct {
	*route.Router
	t        *testing.T
	in       *scm.Sender
	inEnd    *fdtest.End
	mu       sync.Mutex
	queues   map[string]*pair // that are open
	absent   map[string]error // that Open returns
	events   []string         // refusals, and trouble
	ended    chan error
	received map[string]*scm.Receiver
}

// pair is a queue that a test receives from.
type pair struct {
	*scm.Sender
	out   *fdtest.End
	calls interrupt.Calls
	gone  chan struct{}
	fail  []error // that SendNow returns first
	left  int     // messages that nobody has received, for Close
}

func (p *pair) SendNow(payload []byte, fds ...int) error {
	if len(p.fail) > 0 {
		err := p.fail[0]
		p.fail = p.fail[1:]
		return err
	}
	return p.Sender.SendNow(payload, fds...)
}

func (p *pair) Gone() <-chan struct{}        { return p.gone }
func (p *pair) Drain(context.Context) error  { return nil }
func (p *pair) Close() (lost int, err error) { return p.left, unix.Close(p.FD()) }

func routes(by *route.By, all ...string) *route.Table {
	table := route.NewTable(by)
	for _, r := range all {
		pattern, queue, _ := strings.Cut(r, "=")
		if err := table.Add(pattern, queue); err != nil {
			panic(err)
		}
	}
	return table
}

// newRig returns a Router by lines with these routes, PATTERN=QUEUE. It runs after start.
func newRig(t *testing.T, all ...string) *rig {
	t.Helper()
	return newRigBy(t, "line", all...)
}

func newRigBy(t *testing.T, way string, all ...string) *rig {
	t.Helper()
	fdtest.NoLeaks(t)
	by, err := route.ParseBy(way)
	if err != nil {
		t.Fatal(err)
	}
	g := &rig{t: t, queues: map[string]*pair{}, absent: map[string]error{}, ended: make(chan error, 1), received: map[string]*scm.Receiver{}}
	inEnd, outEnd := fdtest.Pair(t, unix.SOCK_SEQPACKET)
	g.inEnd, g.in = inEnd, scm.NewSender(inEnd.FD, nil)
	receiver := scm.NewReceiver(outEnd.FD, nil)
	g.Router = &route.Router{
		By: by, MaxWaiting: 100, Timeout: time.Hour, Receive: receiver.ReceiveNow, Input: outEnd.FD, Open: g.open,
		Refused: func(c *route.Connection, reason string) { g.event(reason) },
		Lost:    func(n int, why error) { g.event(fmt.Sprintf("%d: %v", n, why)) },
		Trouble: func(err error) { g.event(err.Error()) },
	}
	if err := g.SetTable(routes(by, all...), nil); err != nil {
		t.Fatalf("SetTable(%v) = %v", all, err)
	}
	return g
}

func (g *rig) event(text string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.events = append(g.events, text)
}

func (g *rig) open(name string, wait bool, stop <-chan struct{}) (route.Queue, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for err := g.absent[name]; err != nil; err = g.absent[name] {
		if !wait || !errors.Is(err, route.ErrAbsent) {
			return nil, err
		}
		g.mu.Unlock()
		time.Sleep(time.Millisecond)
		g.mu.Lock()
		select {
		case <-stop:
			return nil, interrupt.ErrStopped
		default:
		}
	}
	end, out := fdtest.Pair(g.t, unix.SOCK_SEQPACKET)
	p := &pair{out: out, gone: make(chan struct{})}
	p.Sender = scm.NewSender(end.Take(), &p.calls)
	g.queues[name] = p
	return p, nil
}

func (g *rig) queue(name string) *pair {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.queues[name]
}

func (g *rig) start() {
	go func() { g.ended <- g.Run() }()
	g.t.Cleanup(func() {
		g.Abort()
		<-g.ended
		_, _ = g.Close()
	})
}

// finish waits for the end of Run.
func (g *rig) finish() {
	g.t.Helper()
	err := fdtest.Soon(g.t, "the end of Run", g.ended)
	if err != nil {
		g.t.Errorf("Run() = %v", err)
	}
	g.ended <- err
}

// send sends descriptors to the Router, and closes them here.
func (g *rig) send(payload string, ends ...*fdtest.End) {
	g.t.Helper()
	var fds []int
	for _, end := range ends {
		fds = append(fds, end.FD)
	}
	if err := g.in.Send([]byte(payload), fds...); err != nil {
		g.t.Fatalf("Send() = %v", err)
	}
	for _, end := range ends {
		end.Close()
	}
}

// client sends the Router a connection, whose other end it returns.
func (g *rig) client(text string) *fdtest.End {
	g.t.Helper()
	client, server := fdtest.Pair(g.t, unix.SOCK_STREAM)
	write(g.t, client, text)
	g.send(scm.Begin, server)
	return client
}

func write(t *testing.T, end *fdtest.End, text string) {
	t.Helper()
	if _, err := unix.Write(end.FD, []byte(text)); text != "" && err != nil {
		t.Fatalf("write: %v", err)
	}
}

// next receives from a queue, and returns the key and the first descriptor.
func (g *rig) next(name string) (key string, fd *fdtest.End) {
	g.t.Helper()
	p := g.queue(name)
	if ready, err := p.calls.Wait(p.out.FD, unix.POLLIN, fdtest.Limit); !ready || err != nil {
		g.t.Fatalf("nothing has come to queue %s (%v); events: %q", name, err, g.said())
	}
	var m scm.Message
	if came, err := scm.NewReceiver(p.out.FD, &p.calls).ReceiveNow(&m); !came || err != nil {
		g.t.Fatalf("ReceiveNow() of queue %s = %v, %v", name, came, err)
	}
	for _, fd := range m.FDs[1:] {
		_ = unix.Close(fd)
	}
	key, known := scm.Var(m.Payload, "FDKIT_KEY")
	if !known {
		key = "none"
	}
	end := fdtest.Dup(g.t, m.FDs[0])
	_ = unix.Close(m.FDs[0])
	return key, end
}

func (g *rig) want(name, key string) *fdtest.End {
	g.t.Helper()
	got, fd := g.next(name)
	if got != key {
		g.t.Errorf("a connection with key %q has come to queue %s; want %q", got, name, key)
	}
	return fd
}

// said returns what was told, and forgets it.
func (g *rig) said() (events []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	events, g.events = g.events, nil
	return events
}

func (g *rig) wantSaid(want ...string) {
	g.t.Helper()
	var all []string
	fdtest.Eventually(g.t, fmt.Sprintf("told %q", want), func() bool {
		all = append(all, g.said()...)
		return len(all) >= len(want)
	})
	if got := strings.Join(all, "; "); got != strings.Join(want, "; ") {
		g.t.Errorf("told %q; want %q", all, want)
	}
}

// wantClosed waits until the client's connection is closed.
func (g *rig) wantClosed(client *fdtest.End) {
	g.t.Helper()
	var calls interrupt.Calls
	if ready, err := calls.Wait(client.FD, unix.POLLRDHUP, fdtest.Limit); !ready || err != nil {
		g.t.Errorf("a connection is not closed (%v)", err)
	}
}

// settled waits until the Router has taken up what was sent: n clients wait for a key.
func (g *rig) settled(n int) {
	g.t.Helper()
	fdtest.Eventually(g.t, fmt.Sprintf("%d clients without a key", n), func() bool { return g.Status().Keyless == n })
}

func read(t *testing.T, end *fdtest.End, n int) string {
	t.Helper()
	var all []byte
	for len(all) < n {
		b := make([]byte, n-len(all))
		got, err := unix.Read(end.FD, b)
		if err != nil || got == 0 {
			t.Fatalf("read after %q: %d, %v", all, got, err)
		}
		all = append(all, b[:got]...)
	}
	return string(all)
}

func TestByKey(t *testing.T) {
	g := newRig(t, "a=A", "b=B", "*=D")
	g.start()
	for _, c := range []struct{ text, queue, key string }{
		{"a\nrest", "A", "a"}, {"b\r\n", "B", "b"}, {"c\n", "D", "c"},
	} {
		g.client(c.text)
		conn := g.want(c.queue, c.key)
		if got := read(t, conn, len(c.text)); got != c.text {
			t.Errorf("of %q, %q is left", c.text, got)
		}
	}
}

// A client that sends byte by byte holds up nobody, and nothing is changed at its socket.
func TestSlowClients(t *testing.T) {
	g := newRig(t, "*=D")
	g.Consume = true
	g.start()
	var clients []*fdtest.End
	for range 50 {
		client, server := fdtest.TCPPair(t)
		clients = append(clients, client)
		g.send("x", server)
	}
	for _, b := range "slow\n" {
		g.settled(len(clients))
		for _, client := range clients {
			write(t, client, string(b))
		}
		if b != '\n' {
			g.client("fast\nrest")
			g.want("D", "fast")
		}
	}
	for _, client := range clients {
		write(t, client, "rest")
		conn := g.want("D", "slow")
		if got := read(t, conn, 4); got != "rest" {
			t.Errorf("%q is left; want rest", got)
		}
		flags, err := unix.FcntlInt(uintptr(conn.FD), unix.F_GETFL, 0)
		if lowat, lowatErr := unix.GetsockoptInt(conn.FD, unix.SOL_SOCKET, unix.SO_RCVLOWAT); lowat != 1 || flags&unix.O_NONBLOCK != 0 || err != nil || lowatErr != nil {
			t.Errorf("SO_RCVLOWAT = %d (%v), flags %#x (%v); want 1 and blocking", lowat, lowatErr, flags, err)
		}
		conn.Close()
	}
}

// Where it is known how many bytes are needed, TCP wakes nobody before, and afterwards
// the socket is as it was.
func TestLowWater(t *testing.T) {
	g := newRigBy(t, "bytes=100", "*=D")
	g.start()
	lowat := func(end *fdtest.End) int {
		n, err := unix.GetsockoptInt(end.FD, unix.SOL_SOCKET, unix.SO_RCVLOWAT)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	text := strings.Repeat("x", 100)
	for _, before := range []int{1, 7} {
		client, server := fdtest.TCPPair(t)
		if err := unix.SetsockoptInt(server.FD, unix.SOL_SOCKET, unix.SO_RCVLOWAT, before); err != nil {
			t.Fatal(err)
		}
		same := fdtest.Dup(t, server.FD)
		write(t, client, text[:50])
		g.send("x", server)
		fdtest.Eventually(t, "100 bytes are asked for", func() bool { return lowat(same) == 100 })
		write(t, client, text[50:])
		if conn := g.want("D", text); lowat(conn) != before || read(t, conn, 100) != text {
			t.Errorf("SO_RCVLOWAT = %d; want %d, and all that was sent", lowat(conn), before)
		}
	}
	// One who hangs up before is not taken for one without a key.
	client := g.client(text[:50])
	g.settled(1)
	client.Close()
	g.wantSaid(route.RefusedGone)
}

// TestReset: what a client has sent before a reset is not taken for a line that it has ended.
func TestReset(t *testing.T) {
	g := newRig(t, "*=D")
	g.start()
	client, server := fdtest.TCPPair(t)
	write(t, client, "half a li")
	g.send("x", server)
	g.settled(1)
	if err := unix.SetsockoptLinger(client.FD, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		t.Fatal(err)
	}
	client.Close()
	g.wantSaid(route.RefusedGone)
}

// What waits for a key is bounded: the longest makes room, and who speaks is served.
func TestCrowd(t *testing.T) {
	g := newRig(t, "*=D", "s=S")
	g.MaxWaiting, g.Silent = 10, "S"
	g.start()
	var silent []*fdtest.End
	for i := range 13 {
		silent = append(silent, g.client(""))
		if i == 1 {
			write(t, silent[1], "half")
		}
	}
	g.want("S", "none").Close() // the first
	g.wantClosed(silent[1])
	g.wantSaid(route.RefusedCrowded)
	g.want("S", "none").Close()
	g.settled(10)
	g.client("fast\n")
	g.want("D", "fast").Close()
}

// Clients without a key make room also for those whose queue is full, so that the number
// of all is bounded.
func TestCrowdAndFullQueue(t *testing.T) {
	g := newRig(t, "a=A")
	g.MaxWaiting = 20
	if err := unix.SetsockoptInt(g.queue("A").FD(), unix.SOL_SOCKET, unix.SO_SNDBUF, 1); err != nil {
		t.Fatal(err)
	}
	g.start()
	var silent []*fdtest.End
	for range 15 {
		silent = append(silent, g.client(""))
	}
	g.settled(15)
	for g.Status().Queues[0].Waiting < 10 {
		g.client("a\n").Close()
	}
	for _, client := range silent[:5] {
		g.wantClosed(client)
	}
	g.settled(10)
	want := slices.Repeat([]string{route.RefusedCrowded}, 5)
	g.wantSaid(append(want, "receiving pauses: 20 descriptors wait, most of them for queues that are full")...)
}

func TestTimeout(t *testing.T) {
	g := newRig(t, "*=D")
	g.Timeout = time.Millisecond
	g.start()
	g.wantClosed(g.client("half"))
	g.wantClosed(g.client(""))
	g.wantSaid(route.RefusedTimeout, route.RefusedTimeout)
}

func TestHungUp(t *testing.T) {
	g := newRig(t, "a=A")
	g.start()
	client := g.client("")
	g.settled(1)
	client.Close()
	g.wantSaid(route.RefusedGone)
	client, server := fdtest.TCPPair(t)
	g.send("x", server)
	g.settled(1)
	client.Reset()
	g.wantSaid(route.RefusedGone)
	client = g.client("a\nand the end")
	client.Close()
	if conn := g.want("A", "a"); read(t, conn, 13) != "a\nand the end" {
		t.Error("the text of a client that has hung up is not whole")
	}
	g.wantClosed(g.client("b\n"))
	g.wantSaid(route.RefusedNoRoute)
	g.wantClosed(g.client(strings.Repeat("x", g.By.Limit)))
	g.wantSaid(route.RefusedNoRoute)
}

// What has no bytes to be looked at goes to the default route.
func TestOthers(t *testing.T) {
	g := newRig(t, "*=D")
	g.start()
	socket := func(domain, typ int) *fdtest.End {
		fd, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		end := fdtest.Dup(t, fd)
		_ = unix.Close(fd)
		return end
	}
	listening := socket(unix.AF_INET, unix.SOCK_STREAM)
	if err := unix.Listen(listening.FD, 1); err != nil {
		t.Fatal(err)
	}
	pipe, _ := fdtest.Pipe(t)
	packets, _ := fdtest.Pair(t, unix.SOCK_SEQPACKET)
	for name, end := range map[string]*fdtest.End{
		"a pipe": pipe, "a listening socket": listening, "packets": packets,
		"UDP": socket(unix.AF_INET, unix.SOCK_DGRAM), "a socket that is not connected": socket(unix.AF_INET, unix.SOCK_STREAM),
	} {
		same := fdtest.Dup(t, end.FD)
		g.send(scm.Begin, end)
		if conn := g.want("D", "none"); !fdtest.SameFile(conn.FD, same.FD) {
			t.Errorf("%s does not come to the default queue", name)
		}
	}
	g.send("x")
	g.wantSaid("a message came without a descriptor")
}

// Nobody waits for a queue that is full, but what is for it; and that in its order.
func TestFullQueue(t *testing.T) {
	g := newRig(t, "a=A", "*=D")
	g.MaxWaiting = 20
	if err := unix.SetsockoptInt(g.queue("A").FD(), unix.SOL_SOCKET, unix.SO_SNDBUF, 1); err != nil {
		t.Fatal(err)
	}
	g.start()
	waiting := func() int { return g.Status().Queues[0].Waiting }
	n := 0
	for waiting() < 19 {
		g.client(fmt.Sprintf("a\n%05d", n)).Close()
		n++
	}
	g.client("fast\n")
	g.want("D", "fast")
	g.client(fmt.Sprintf("a\n%05d", n)).Close()
	g.wantSaid("receiving pauses: 20 descriptors wait, most of them for queues that are full")
	g.client("later\n")
	for i := range n + 1 {
		conn := g.want("A", "a")
		if got, want := read(t, conn, 7), fmt.Sprintf("a\n%05d", i); got != want {
			t.Fatalf("%q has come to the queue that was full; want %q", got, want)
		}
		conn.Close()
	}
	g.want("D", "later")
}

// A shortage of which poll tells nothing passes.
func TestShortage(t *testing.T) {
	g := newRig(t, "*=D")
	for _, errno := range []error{unix.ETOOMANYREFS, unix.ENOBUFS, unix.EAGAIN, unix.ENOMEM, unix.EINVAL} {
		g.queue("D").fail = append(g.queue("D").fail, fmt.Errorf("sendmsg: %w", errno))
	}
	g.start()
	g.wantClosed(g.client("lost\n"))
	g.wantSaid("cannot send a connection to queue D: sendmsg: invalid argument", route.RefusedSending)
	g.client("kept\n")
	g.want("D", "kept")
}

// Each connection that is lost is told, with how many there are.
func TestLost(t *testing.T) {
	g := newRig(t, "*=D")
	receive, cut := g.Receive, []*scm.LostError{{}, {Came: 1}}
	g.Receive = func(m *scm.Message) (bool, error) {
		came, err := receive(m)
		if came && len(cut) > 0 {
			m.Close()
			err, cut = cut[0], cut[1:]
			return false, err
		}
		return came, err
	}
	g.start()
	first, second := (&scm.LostError{}).Error(), (&scm.LostError{Came: 1}).Error()
	g.wantClosed(g.client("a\n"))
	g.wantClosed(g.client("b\n"))
	g.wantSaid("1: a connection is lost: "+first, "1: a connection is lost: "+second)
	g.client("c\n")
	g.want("D", "c")
	g.queue("D").left = 3
	g.mu.Lock()
	g.absent["D"] = route.ErrAbsent
	g.mu.Unlock()
	close(g.queue("D").gone)
	g.wantSaid("3: queue D has no receiver any more: closed 3 messages in it")
}

// A queue whose receiver has gone is opened again, and what was for it is not lost.
func TestGone(t *testing.T) {
	g := newRig(t, "a=A", "*=D")
	g.start()
	g.client("a\n")
	g.want("A", "a")
	old := g.queue("A")
	g.mu.Lock()
	g.absent["A"] = route.ErrAbsent
	g.mu.Unlock()
	old.out.Close()
	g.client("a\n2")
	g.wantSaid("queue A has no receiver any more")
	g.client("b\n")
	g.want("D", "b")
	g.client("a\n3")
	g.mu.Lock()
	delete(g.absent, "A")
	g.mu.Unlock()
	fdtest.Eventually(t, "the queue is opened again", func() bool { return g.queue("A") != old })
	for _, want := range []string{"a\n2", "a\n3"} {
		if got := read(t, g.want("A", "a"), 3); got != want {
			t.Errorf("%q has come; want %q", got, want)
		}
	}

	g.mu.Lock()
	g.absent["D"] = scm.ErrGone
	g.mu.Unlock()
	close(g.queue("D").gone)
	g.wantSaid("queue D has no receiver any more", "queue D has no receiver any more, and cannot be opened again")
	g.wantClosed(g.client("b\n"))
	g.wantSaid(route.RefusedNoQueue)
	g.mu.Lock()
	g.absent["A"] = scm.ErrGone
	g.mu.Unlock()
	close(g.queue("A").gone)
	g.finish() // nothing is left
}

func TestTables(t *testing.T) {
	g := newRig(t, "a=A", "*=D")
	if err := unix.SetsockoptInt(g.queue("A").FD(), unix.SOL_SOCKET, unix.SO_SNDBUF, 1); err != nil {
		t.Fatal(err)
	}
	g.start()
	held := 0
	for g.Status().Queues[0].Waiting == 0 {
		g.client("a\n")
		held++
	}
	g.mu.Lock()
	g.absent["X"] = errors.New("it is broken")
	g.mu.Unlock()
	if err := g.SetTable(routes(g.By, "a=B", "*=X"), nil); err == nil || err.Error() != "it is broken" {
		t.Errorf("SetTable() = %v; want what Open says", err)
	}
	g.client("b\n")
	g.want("D", "b")
	if err := g.SetTable(routes(g.By, "a=B", "*=D"), nil); err != nil {
		t.Fatal(err)
	}
	g.client("a\n")
	g.want("B", "a")
	for range held { // what had its route before
		g.want("A", "a")
	}
	fdtest.Eventually(t, "queue A is given up", func() bool { return len(g.Status().Queues) == 2 })
	first := g.queue("A")
	if err := g.SetTable(routes(g.By, "a=A"), nil); err != nil {
		t.Fatal(err)
	}
	if g.queue("A") == first {
		t.Error("queue A is not opened again")
	}
	g.client("a\n")
	g.want("A", "a")
}

// At the end what waits for its key has its time, and what waits for a queue is sent.
func TestEnd(t *testing.T) {
	g := newRig(t, "*=D")
	g.start()
	late := g.client("")
	g.settled(1)
	g.inEnd.Close()
	write(t, late, "late\n")
	g.want("D", "late")
	g.finish()

	g = newRig(t, "*=D")
	g.start()
	late, silent := g.client(""), g.client("")
	g.settled(2)
	g.Stop(200 * time.Millisecond)
	g.settled(2) // and it has stopped
	g.client("not received any more\n")
	write(t, late, "late\n")
	g.want("D", "late")
	g.wantClosed(silent)
	g.wantSaid(route.RefusedAtEnd)
	g.finish()

	g = newRig(t, "*=D")
	g.start()
	silent = g.client("")
	g.settled(1)
	g.Abort()
	g.wantClosed(silent)
	g.wantSaid(route.RefusedAtEnd)
	g.finish()
}

// All that comes in a message goes on.
func TestMessage(t *testing.T) {
	g := newRig(t, "*=D")
	g.start()
	for _, c := range []struct{ payload, want string }{
		{"FDKIT=1\x00A=b\x00FDKIT_KEY=old\x00C=d\x00", "FDKIT=1\x00A=b\x00C=d\x00FDKIT_KEY=new\x00"},
		{"FDKIT=1\x00A=b\x00half", "FDKIT=1\x00A=b\x00FDKIT_KEY=new\x00"},
		{"foreign", "FDKIT=1\x00PROTO=UNIX\x00"},
		{"FDKIT=1\x00A=" + strings.Repeat("x", 3760) + "\x00", "FDKIT=1\x00A=" + strings.Repeat("x", 3760) + "\x00"},
	} {
		client, server := fdtest.Pair(t, unix.SOCK_STREAM)
		second, _ := fdtest.Pipe(t)
		write(t, client, "new\n")
		g.send(c.payload, server, second)
		p := g.queue("D")
		var m scm.Message
		if err := scm.NewReceiver(p.out.FD, &p.calls).Receive(&m); err != nil {
			t.Fatal(err)
		}
		if len(m.FDs) != 2 || !bytes.HasPrefix(m.Payload, []byte(c.want)) {
			t.Errorf("sent %q, received %q with %d descriptors; want %q with 2", c.payload, m.Payload, len(m.FDs), c.want)
		}
		if !strings.HasPrefix(c.payload, scm.Begin) && !bytes.HasSuffix(m.Payload, []byte("\x00FDKIT_KEY=new\x00")) {
			t.Errorf("sent %q, received %q; want the key at the end", c.payload, m.Payload)
		}
		m.Close()
	}
	g.wantSaid("FDKIT_KEY is left out of a message: with it, its variables have more than 3776 bytes")
}
