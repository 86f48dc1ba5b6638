//go:build linux

package relay

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
	"fdkit/internal/proto"
	"fdkit/internal/scm"
	"fdkit/internal/unixpath"
)

// script is what a relay was told, and where it listens.
type script struct {
	*Relay
	path string // of the relay
	at   string // of the target

	mu     sync.Mutex
	events []string
}

func (s *script) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, fmt.Sprintf(format, args...))
}

// seen tells whether an event was told.
func (s *script) seen(event string) bool { return s.count(event) > 0 }

func (s *script) count(event string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events {
		if strings.HasPrefix(e, event) {
			n++
		}
	}
	return n
}

// start begins a relay to a target of that type, whose listening socket it returns.
func start(t *testing.T, typ int) (s *script, target int) {
	t.Helper()
	fdtest.NoLeaks(t)
	dir := t.TempDir()
	s = &script{path: filepath.Join(dir, "tap"), at: filepath.Join(dir, "target")}
	target = serve(t, typ, s.at)
	arrow := map[proto.Direction]string{proto.FromClient: ">", proto.FromServer: "<"}
	var err error
	s.Relay, err = Listen(Endpoint{Path: s.path}, Endpoint{Path: s.at}, unixpath.Access{UID: -1, GID: -1}, Events{
		Opened: func(c *Conn) { s.say("opened") },
		Message: func(c *Conn, from proto.Direction, m *scm.Message) {
			s.say("%s%d+%d", arrow[from], len(m.Payload), len(m.FDs))
		},
		Ended:  func(c *Conn, from proto.Direction) { s.say("%send", arrow[from]) },
		Failed: func(c *Conn, err error) { s.say("failed: %v", err) },
		Closed: func(c *Conn) { s.say("closed") },
		Notice: func(err error) { s.say("notice: %v", err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if s.Type() != typ {
		t.Fatalf("the relay's type is %d; want that of the target, %d", s.Type(), typ)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	t.Cleanup(func() {
		s.Close()
		if err := fdtest.Soon(t, "the end of Serve", served); err != nil {
			t.Errorf("Serve: %v", err)
		}
		if _, err := os.Lstat(s.path); err == nil {
			t.Errorf("the socket file is still there")
		}
		if t.Failed() {
			t.Logf("events: %q", s.events)
		}
	})
	if typ == unix.SOCK_SEQPACKET { // has seen TypeOf
		_ = unix.Close(accept(t, target))
	}
	return s, target
}

// serve binds a socket to path.
func serve(t *testing.T, typ int, path string) int {
	t.Helper()
	fd := open(t, typ)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if typ != unix.SOCK_DGRAM {
		if err := unix.Listen(fd, 100); err != nil {
			t.Fatal(err)
		}
	}
	return fd
}

// open makes a socket whose calls do not wait for ever.
func open(t *testing.T, typ int) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) }) // nobody else does
	limit := unix.NsecToTimeval(fdtest.Limit.Nanoseconds())
	for _, option := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &limit); err != nil {
			t.Fatal(err)
		}
	}
	return fd
}

// again makes a call again that a signal has ended: with a limit, socket(7), none goes on
// by itself, signal(7).
func again(call func() error) (err error) {
	for err = call(); err == unix.EINTR; err = call() {
	}
	return err
}

func connect(fd int, path string) error {
	return again(func() error { return unix.Connect(fd, &unix.SockaddrUnix{Name: path}) })
}

func read(fd, room int) (n int, err error) {
	err = again(func() error {
		n, err = unix.Read(fd, make([]byte, room))
		return err
	})
	return n, err
}

func poll(fds []unix.PollFd) (n int, err error) {
	err = again(func() error {
		n, err = unix.Poll(fds, int(fdtest.Limit.Milliseconds()))
		return err
	})
	return n, err
}

func accept(t *testing.T, listener int) int {
	t.Helper()
	var fd int
	err := again(func() (err error) {
		fd, _, err = unix.Accept4(listener, unix.SOCK_CLOEXEC)
		return err
	})
	if err != nil {
		t.Fatalf("accept4: %v", err)
	}
	limit := unix.NsecToTimeval(fdtest.Limit.Nanoseconds())
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit)
	return fd
}

// through connects a client through the relay, and returns both ends.
func (s *script) through(t *testing.T, target int) (client, server *fdtest.End) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, s.Type()|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	limit := unix.NsecToTimeval(fdtest.Limit.Nanoseconds())
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit)
	if err := connect(fd, s.path); err != nil {
		t.Fatalf("connect: %v", err)
	}
	conn := accept(t, target)
	client, server = fdtest.Dup(t, fd), fdtest.Dup(t, conn)
	_, _ = unix.Close(conn), unix.Close(fd)
	return client, server
}

func send(t *testing.T, fd, size, fds int) {
	t.Helper()
	if err := scm.NewSender(fd, nil).Transmit(bytes.Repeat([]byte("x"), size), make([]int, fds), nil); err != nil {
		t.Fatalf("Transmit of %d bytes: %v", size, err)
	}
}

// receive receives with room for so many bytes, and returns what came as its length and
// how many descriptors came with it.
func receive(t *testing.T, fd, room int) string {
	t.Helper()
	got, _ := receiveFrom(t, fd, room)
	return got
}

func receiveFrom(t *testing.T, fd, room int) (got string, from unix.Sockaddr) {
	t.Helper()
	control := make([]byte, 2048)
	var n, oobn int
	err := again(func() (err error) {
		n, oobn, _, from, err = unix.Recvmsg(fd, make([]byte, room), control, unix.MSG_CMSG_CLOEXEC)
		return err
	})
	if err != nil {
		return err.Error(), nil
	}
	fds := 0
	messages, err := unix.ParseSocketControlMessage(control[:oobn])
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		came, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue
		}
		for _, fd := range came {
			_ = unix.Close(fd)
		}
		fds += len(came)
	}
	return fmt.Sprintf("%d+%d", n, fds), from
}

func expect(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %s; want %s", what, got, want)
	}
}

func TestBothWays(t *testing.T) {
	for _, typ := range []int{unix.SOCK_STREAM, unix.SOCK_SEQPACKET} {
		t.Run(TypeName(typ), func(t *testing.T) {
			s, target := start(t, typ)
			client, server := s.through(t, target)
			send(t, client.FD, 5, 2)
			expect(t, "the server receives", receive(t, server.FD, 100), "5+2")
			send(t, server.FD, 7, 253)
			expect(t, "the client receives", receive(t, client.FD, 100), "7+253")
			// Half closed: the other direction goes on.
			if err := unix.Shutdown(client.FD, unix.SHUT_WR); err != nil {
				t.Fatal(err)
			}
			expect(t, "the server receives at the end", receive(t, server.FD, 100), "0+0")
			send(t, server.FD, 3, 1)
			expect(t, "the client receives after that", receive(t, client.FD, 100), "3+1")
			server.Close()
			expect(t, "the client receives at the end", receive(t, client.FD, 100), "0+0")
			fdtest.Eventually(t, "closed", func() bool { return s.seen("closed") })
		})
	}
}

// TestApart has a reader who takes no descriptors with the bytes before them.
func TestApart(t *testing.T) {
	s, target := start(t, unix.SOCK_STREAM)
	client, server := s.through(t, target)
	for range 100 {
		send(t, client.FD, 4, 0)
		send(t, client.FD, 1, 1)
	}
	fdtest.Eventually(t, "all passed on", func() bool { return s.count(">1+1") == 100 })
	for i := range 100 {
		if n, err := read(server.FD, 4); n != 4 {
			t.Fatalf("read = %d, %v", n, err)
		}
		if got := receive(t, server.FD, 1); got != "1+1" {
			t.Fatalf("message %d: %s; want 1+1", i, got)
		}
	}
}

func TestPackets(t *testing.T) {
	s, target := start(t, unix.SOCK_SEQPACKET)
	client, server := s.through(t, target)
	const large = 400_000
	if err := unix.SetsockoptInt(client.FD, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, large); err != nil {
		fdtest.NeedsRoot(t)
		t.Fatal(err)
	}
	for _, size := range []int{0, 3000, 5000, 0, large, 1} {
		send(t, client.FD, size, 0)
		expect(t, "the server receives", receive(t, server.FD, large+1), fmt.Sprintf("%d+0", size))
	}
	send(t, client.FD, 0, 3)
	expect(t, "the server receives", receive(t, server.FD, 1), "0+3")
}

// TestGone holds that each side finds the other one gone as without the relay.
func TestGone(t *testing.T) {
	for _, typ := range []int{unix.SOCK_STREAM, unix.SOCK_SEQPACKET} {
		for _, clientGoes := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/client %t", TypeName(typ), clientGoes), func(t *testing.T) {
				s, target := start(t, typ)
				goes, stays := s.through(t, target)
				if !clientGoes {
					goes, stays = stays, goes
				}
				send(t, goes.FD, 5, 1)
				goes.Close()
				expect(t, "who stays receives", receive(t, stays.FD, 100), "5+1")
				fds := []unix.PollFd{{Fd: int32(stays.FD)}}
				if n, err := poll(fds); n != 1 || fds[0].Revents&unix.POLLHUP == 0 {
					t.Errorf("poll = %d, %v, events %#x; want POLLHUP", n, err, fds[0].Revents)
				}
				fdtest.Eventually(t, "closed", func() bool { return s.seen("closed") })
			})
		}
	}
}

// TestHalfThenGone has a client that first ends sending, and later dies while the server
// is silent.
func TestHalfThenGone(t *testing.T) {
	s, target := start(t, unix.SOCK_STREAM)
	client, server := s.through(t, target)
	_ = unix.Shutdown(client.FD, unix.SHUT_WR)
	fdtest.Eventually(t, "the end", func() bool { return s.seen(">end") })
	client.Close()
	fds := []unix.PollFd{{Fd: int32(server.FD)}}
	if n, err := poll(fds); n != 1 || fds[0].Revents&unix.POLLHUP == 0 {
		t.Errorf("poll = %d, %v, events %#x; want POLLHUP", n, err, fds[0].Revents)
	}
	fdtest.Eventually(t, "closed", func() bool { return s.seen("closed") })
}

// TestUnread has a server that stops receiving: the client's message is counted.
func TestUnread(t *testing.T) {
	s, target := start(t, unix.SOCK_STREAM)
	client, server := s.through(t, target)
	_ = unix.Shutdown(server.FD, unix.SHUT_RD)
	for s.count("failed: ") == 0 {
		if err := scm.NewSender(client.FD, nil).Transmit([]byte("hello"), []int{0}, nil); err == scm.ErrGone {
			break
		}
	}
	fdtest.Eventually(t, "the loss is told", func() bool {
		return s.seen("failed: 5 bytes with 1 descriptors are not delivered: no receiver is left")
	})
	// The other direction goes on.
	send(t, server.FD, 4, 0)
	expect(t, "the client receives", receive(t, client.FD, 10), "4+0")
}

// TestBackPressure holds that a relay takes no more than one message that it cannot pass on.
func TestBackPressure(t *testing.T) {
	s, target := start(t, unix.SOCK_STREAM)
	client, server := s.through(t, target)
	_ = unix.SetNonblock(client.FD, true)
	sent := 0
	fdtest.Eventually(t, "the client has to wait", func() bool {
		for {
			n, err := unix.Write(client.FD, make([]byte, 64<<10))
			if err != nil {
				break
			}
			sent += n
		}
		before := sent
		n, err := unix.Write(client.FD, make([]byte, 1))
		if err == nil {
			sent += n
		}
		return sent == before && sent > 0 && fdtest.Inside("(*Conn).pump", "waitWrite")
	})
	if sent > 2<<20 {
		t.Errorf("the client could send %d bytes that nobody reads", sent)
	}
	got := 0
	for got < sent {
		n, err := read(server.FD, 1<<20)
		if n <= 0 {
			t.Fatalf("after %d of %d bytes: %d, %v", got, sent, n, err)
		}
		got += n
	}
}

func TestNoTarget(t *testing.T) {
	s, target := start(t, unix.SOCK_STREAM)
	_ = os.Remove(s.at)
	fd := open(t, unix.SOCK_STREAM)
	if err := connect(fd, s.path); err != nil {
		t.Fatal(err)
	}
	expect(t, "the client receives", receive(t, fd, 10), "0+0")
	fdtest.Eventually(t, "told", func() bool { return s.seen("failed: cannot connect to " + s.at) })
	_ = target
	// It comes back, and is found again.
	target = serve(t, unix.SOCK_STREAM, s.at)
	client, server := s.through(t, target)
	send(t, client.FD, 2, 0)
	expect(t, "the server receives", receive(t, server.FD, 10), "2+0")
}

// TestOutOfDescriptors holds that clients wait while there are none.
func TestOutOfDescriptors(t *testing.T) {
	s, target := start(t, unix.SOCK_STREAM)
	first, _ := s.through(t, target) // the runtime's own descriptors are there now
	fd := open(t, unix.SOCK_STREAM)
	fdtest.Eventually(t, "all is quiet", func() bool {
		return s.seen("opened") && fdtest.Blocked(unix.SYS_ACCEPT4, s.listener)
	})
	restore := fdtest.FewFiles(t, 0)
	if err := connect(fd, s.path); err != nil {
		t.Fatal(err)
	}
	fdtest.Eventually(t, "told", func() bool { return s.seen("notice: accepting pauses") })
	restore()
	_ = unix.Close(accept(t, target))
	expect(t, "the client receives", receive(t, fd, 10), "0+0")
	first.Close()
}

func TestStop(t *testing.T) {
	s, target := start(t, unix.SOCK_STREAM)
	client, server := s.through(t, target)
	send(t, client.FD, 2, 1)
	expect(t, "the server receives", receive(t, server.FD, 10), "2+1")
	s.Stop()
	expect(t, "the server receives at the end", receive(t, server.FD, 10), "0+0")
	fdtest.Eventually(t, "closed", func() bool { return s.seen("closed") })
	if err := connect(open(t, unix.SOCK_STREAM), s.path); !errors.Is(err, unix.ENOENT) {
		t.Errorf("connect after Stop: %v; want ENOENT", err)
	}
}

func TestMany(t *testing.T) {
	s, target := start(t, unix.SOCK_STREAM)
	for i := range 100 {
		client, server := s.through(t, target)
		send(t, client.FD, 1, 3)
		expect(t, "the server receives", receive(t, server.FD, 10), "1+3")
		if client.Close(); i%2 == 0 {
			expect(t, "the server receives at the end", receive(t, server.FD, 10), "0+0")
		}
		server.Close()
	}
	fdtest.Eventually(t, "all closed", func() bool { return s.count("closed") == 100 })
}

func TestDatagrams(t *testing.T) {
	s, target := start(t, unix.SOCK_DGRAM)
	clients := map[string]int{}
	for _, name := range []string{"a", "b", "unbound"} {
		fd := open(t, unix.SOCK_DGRAM)
		if name != "unbound" {
			if err := unix.Bind(fd, &unix.SockaddrUnix{Name: filepath.Join(filepath.Dir(s.at), name)}); err != nil {
				t.Fatal(err)
			}
		}
		// A connected socket takes datagrams from its peer only, unix(7).
		if err := connect(fd, s.path); err != nil {
			t.Fatal(err)
		}
		clients[name] = fd
	}
	for round := range 2 {
		for name, size := range map[string]int{"a": 10, "b": 20_000, "unbound": 0} {
			send(t, clients[name], size+round, 1+round)
			got, from := receiveFrom(t, target, 30_000)
			expect(t, "the target receives", got, fmt.Sprintf("%d+%d", size+round, 1+round))
			if name == "unbound" {
				continue
			}
			if err := unix.Sendto(target, make([]byte, size+1), 0, from); err != nil {
				t.Fatalf("the target's answer: %v", err)
			}
			expect(t, name+" receives", receive(t, clients[name], 30_000), fmt.Sprintf("%d+0", size+1))
		}
	}
	if got := s.count("opened"); got != 3 {
		t.Errorf("%d connections; want 3: a, b and who has no address", got)
	}
	// The target starts anew.
	_ = os.Remove(s.at)
	send(t, clients["unbound"], 5, 0)
	fdtest.Eventually(t, "passed to the old one", func() bool { return s.count(">5+0") == 1 })
	expect(t, "the old target receives", receive(t, target, 10), "5+0")
	_ = unix.Shutdown(target, unix.SHUT_RD)
	send(t, clients["unbound"], 6, 2)
	fdtest.Eventually(t, "the loss is told", func() bool { return s.seen("failed: 6 bytes with 2 descriptors are not delivered") })
	target = serve(t, unix.SOCK_DGRAM, s.at)
	send(t, clients["a"], 7, 0)
	expect(t, "the new target receives", receive(t, target, 10), "7+0")
}

func TestForgets(t *testing.T) {
	s, target := start(t, unix.SOCK_DGRAM)
	for i := range maxSenders + 10 {
		fd := open(t, unix.SOCK_DGRAM)
		if err := unix.Bind(fd, &unix.SockaddrUnix{}); err != nil {
			t.Fatal(err)
		}
		if err := unix.Sendto(fd, []byte("x"), 0, &unix.SockaddrUnix{Name: s.path}); err != nil {
			t.Fatalf("datagram %d: %v", i, err)
		}
		expect(t, "the target receives", receive(t, target, 10), "1+0")
	}
	fdtest.Eventually(t, "the idlest are closed", func() bool { return s.count("closed") == 10 })
}
