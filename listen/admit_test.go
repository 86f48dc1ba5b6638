//go:build linux

package listen_test

import (
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
	"fdkit/listen"
)

// gate is an Acceptor at one address, with what comes out of it.
type gate struct {
	*listen.Acceptor
	address  string
	listener *listen.Listener
	accepted chan string // what the payload says
	refused  chan string // REASON: detail
	ended    chan error
}

func newGate(t *testing.T, policy listen.Policy) *gate {
	t.Helper()
	l := on(t, "127.0.0.1:0")
	g := &gate{address: l.String(), listener: l, accepted: make(chan string, 100), refused: make(chan string, 100), ended: make(chan error, 1)}
	g.Acceptor = acceptor(t, policy, listen.Events{
		Refused: func(_ *listen.Conn, why listen.Refusal) { g.refused <- why.Reason + ": " + why.Detail },
	}, l)
	go func() {
		var c listen.Conn
		for {
			if err := g.Accept(&c); err != nil {
				g.ended <- err
				return
			}
			checkFlags(t, c.FD)
			g.accepted <- string(c.AppendPayload(nil))
			_ = unix.Close(c.FD)
		}
	}()
	return g
}

// end stops the gate, and waits until it has ended.
func (g *gate) end(t *testing.T) {
	t.Helper()
	g.Stop()
	if err := fdtest.Soon(t, "Accept ends", g.ended); err != listen.ErrStopped {
		t.Errorf("Accept() = %v after Stop, want ErrStopped", err)
	}
	g.Close()
}

// clientFrom connects to an IPv4 address from another one of this machine.
func clientFrom(t *testing.T, from, address string) *fdtest.End {
	t.Helper()
	c, sa := unconnected(t, address)
	if err := unix.Bind(c.FD, &unix.SockaddrInet4{Addr: netip.MustParseAddr(from).As4()}); err != nil {
		t.Fatalf("bind(%s): %v", from, err)
	}
	if err := unix.Connect(c.FD, sa); err != nil {
		t.Fatalf("connect(%s): %v", address, err)
	}
	return c
}

// inBacklog returns how many connections wait to be accepted.
func inBacklog(t *testing.T, l *listen.Listener) int {
	t.Helper()
	info, err := unix.GetsockoptTCPInfo(descriptor(t, l), unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		t.Fatal(err)
	}
	return int(info.Unacked) // of a listening socket, tcp_get_info() in net/ipv4/tcp.c
}

func rules(t *testing.T, text string) *listen.Rules {
	t.Helper()
	r, err := listen.ParseRules("rules", text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAcceptByRules(t *testing.T) {
	fdtest.NoLeaks(t)
	g := newGate(t, listen.Policy{Rules: rules(t, "allow 127.0.0.1 TCPNOTE=hello")})
	client(t, g.address)
	if payload := fdtest.Soon(t, "a connection", g.accepted); !strings.HasSuffix(payload, "\x00TCPNOTE=hello\x00") {
		t.Errorf("the payload is %q, want TCPNOTE=hello at its end", payload)
	}
	g.SetRules(rules(t, "deny 127.0.0.1"))
	from := client(t, g.address)
	if why := fdtest.Soon(t, "a refusal", g.refused); why != "rules: rules:1" {
		t.Errorf("refused for %q, want rules: rules:1", why)
	}
	if n, err := unix.Read(from.FD, make([]byte, 1)); n != 0 || err != nil {
		t.Errorf("the client reads %d bytes, %v; want the end", n, err)
	}
	g.SetRules(nil)
	client(t, g.address)
	fdtest.Soon(t, "a connection", g.accepted)
	g.end(t)
}

// What comes too early is refused, or waits outside of the way of others.
func TestAcceptBySourceRate(t *testing.T) {
	fdtest.NoLeaks(t)
	slow := listen.Rates{Source: listen.Rate{PerSecond: 0.2, Burst: 2}}
	refusing := slow
	refusing.Refuse = true
	g := newGate(t, listen.Policy{Rates: refusing})
	for range 3 {
		client(t, g.address)
	}
	fdtest.Soon(t, "a connection", g.accepted)
	fdtest.Soon(t, "a connection", g.accepted)
	if why := fdtest.Soon(t, "a refusal", g.refused); !strings.HasPrefix(why, "source-rate: ") {
		t.Errorf("refused for %q, want source-rate", why)
	}
	g.end(t)

	g = newGate(t, listen.Policy{Rates: slow})
	for range 4 { // the third is 5 s early, the fourth 10
		client(t, g.address)
	}
	fdtest.Soon(t, "a connection", g.accepted)
	fdtest.Soon(t, "a connection", g.accepted)
	clientFrom(t, "127.0.0.2", g.address)
	if payload := fdtest.Soon(t, "a connection of another source", g.accepted); !strings.Contains(payload, "TCPREMOTEIP=127.0.0.2\x00") {
		t.Errorf("the third connection is %q, want that of another source", payload)
	}
	g.Stop()
	for range 2 {
		fdtest.Soon(t, "at the end a connection that waited", g.accepted)
	}
	g.end(t)

	g = newGate(t, listen.Policy{Rates: listen.Rates{Source: listen.Rate{PerSecond: 100, Burst: 1}}})
	for range 5 {
		client(t, g.address)
	}
	for range 5 {
		fdtest.Soon(t, "a connection that may have waited", g.accepted)
	}
	g.end(t)
}

func TestAcceptByRate(t *testing.T) {
	fdtest.NoLeaks(t)
	slow := listen.Rates{Overall: listen.Rate{PerSecond: 0.01, Burst: 1}, Refuse: true}
	g := newGate(t, listen.Policy{Rates: slow})
	client(t, g.address)
	fdtest.Soon(t, "a connection", g.accepted)
	client(t, g.address)
	if why := fdtest.Soon(t, "a refusal", g.refused); !strings.HasPrefix(why, "rate: ") {
		t.Errorf("refused for %q, want rate", why)
	}
	g.end(t)

	// One is in hand, and goes at the end; the others stay in the backlog.
	slow.Refuse = false
	g = newGate(t, listen.Policy{Rates: slow})
	client(t, g.address)
	fdtest.Soon(t, "a connection", g.accepted)
	client(t, g.address)
	client(t, g.address)
	fdtest.Eventually(t, "one of two is in the backlog", func() bool { return inBacklog(t, g.listener) == 1 })
	if len(g.accepted) != 0 {
		t.Error("a connection was let through too early")
	}
	g.Stop()
	fdtest.Soon(t, "the connection in hand", g.accepted)
	g.end(t)
}

// A header that does not come holds up nobody, and only the trusted may send one.
func TestAcceptWithProxyHeader(t *testing.T) {
	fdtest.NoLeaks(t)
	var trust listen.Trust
	if err := trust.Add("127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	g := newGate(t, listen.Policy{
		Proxy: &listen.Proxy{Trust: trust, Timeout: time.Minute},
		Rules: rules(t, "deny 192.0.2.9\nallow all"),
	})
	client(t, g.address) // says nothing
	send := func(from, header string) {
		t.Helper()
		if _, err := unix.Write(clientFrom(t, from, g.address).FD, []byte(header)); err != nil {
			t.Fatal(err)
		}
	}
	send("127.0.0.1", "PROXY TCP4 192.0.2.1 198.51.100.1 4711 80\r\n")
	payload := fdtest.Soon(t, "a connection", g.accepted)
	for _, want := range []string{"TCPREMOTEIP=192.0.2.1", "TCPREMOTEPORT=4711", "TCPLOCALIP=198.51.100.1", "TCPLOCALPORT=80", "TCPPROXYIP=127.0.0.1"} {
		if !strings.Contains(payload, "\x00"+want+"\x00") {
			t.Errorf("the payload %q has no %s", payload, want)
		}
	}
	for _, test := range []struct{ from, header, want string }{
		{"127.0.0.1", "PROXY TCP4 192.0.2.9 198.51.100.1 4711 80\r\n", "rules: rules:1"},
		{"127.0.0.1", "GET / HTTP/1.0\r\n\r\n", "proxy: malformed PROXY header"},
		{"127.0.0.2", "", "proxy: not trusted"},
	} {
		send(test.from, test.header)
		if why := fdtest.Soon(t, "a refusal", g.refused); !strings.HasPrefix(why, test.want) {
			t.Errorf("%q from %s is refused for %q, want %s", test.header, test.from, why, test.want)
		}
	}
	g.Stop()
	select {
	case err := <-g.ended:
		t.Errorf("Accept() = %v while a header is waited for, want it to wait too", err)
	default:
	}
	if why := fdtest.Soon(t, "a refusal", g.refused); !strings.HasPrefix(why, "ended: ") {
		t.Errorf("refused for %q, want ended", why)
	}
	g.end(t)
}

// However many goroutines refuse, those who come at the rate are let in.
func TestRefusingKeepsTheRate(t *testing.T) {
	fdtest.NoLeaks(t)
	l := on(t, "127.0.0.1:0")
	var refused atomic.Int64
	accepted := make(chan int, 1000)
	a := acceptor(t, listen.Policy{Rates: listen.Rates{Overall: listen.Rate{PerSecond: 50, Burst: 1}, Refuse: true}}, listen.Events{
		Refused: func(*listen.Conn, listen.Refusal) { refused.Add(1) },
	}, l)
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			var c listen.Conn
			for a.Accept(&c) == nil {
				accepted <- c.FD
				_ = unix.Close(c.FD)
			}
		})
	}
	for refused.Load() < 300 { // a flood
		client(t, l.String()).Close()
	}
	for len(accepted) > 0 {
		<-accepted
	}
	// A debt would be longer than the test.
	fdtest.Eventually(t, "the next client is let in", func() bool {
		client(t, l.String()).Close()
		return len(accepted) > 0
	})
	a.Stop()
	group.Wait()
}

// Those who were accepted early and find no room are answered as well.
func TestBusyAnswersThoseWhoHaveWaited(t *testing.T) {
	fdtest.NoLeaks(t)
	l := on(t, "127.0.0.1:0")
	refused := make(chan listen.Refusal, 10)
	a := acceptor(t, listen.Policy{
		Rates: listen.Rates{Source: listen.Rate{PerSecond: 50, Burst: 1}},
		Busy:  &listen.Busy{Message: "busy"},
	}, listen.Events{Refused: func(_ *listen.Conn, why listen.Refusal) { refused <- why }}, l)
	for range 3 {
		client(t, l.String())
	}
	var c listen.Conn
	if err := a.Accept(&c); err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(c.FD)
	go func() { // takes the others into the waiting room
		if a.Accept(&c) == nil {
			_ = unix.Close(c.FD)
		}
	}()
	fdtest.Eventually(t, "one of two waits", func() bool { return a.Waiting() == 1 })
	room, done := make(chan struct{}), make(chan struct{})
	go func() {
		a.RefuseUntil(room)
		close(done)
	}()
	if why := fdtest.Soon(t, "a refusal", refused); why.Reason != listen.RefusedAsBusy {
		t.Errorf("refused for %+v, want busy", why)
	}
	close(room)
	fdtest.Soon(t, "RefuseUntil ends", done)
	// Its connections are closed when their clients have.
	a.Close()
}

// Pause and Resume may come from anywhere.
func TestPauseAndResumeTogether(t *testing.T) {
	fdtest.NoLeaks(t)
	l := on(t, "127.0.0.1:0")
	a := acceptor(t, listen.Policy{}, listen.Events{}, l)
	ended := make(chan error, 1)
	go func() { ended <- a.Accept(new(listen.Conn)) }()
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			for range 200 {
				a.Pause()
			}
		})
		group.Go(func() {
			for range 200 {
				a.Resume()
			}
		})
	}
	group.Wait()
	a.Stop()
	if err := fdtest.Soon(t, "Accept ends", ended); err != listen.ErrStopped {
		t.Errorf("Accept() = %v, want ErrStopped", err)
	}
}
