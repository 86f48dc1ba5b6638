//go:build linux

package fdrecv_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/fdrecv"
	"fdkit/internal/fdtest"
	"fdkit/internal/scm"
)

// newQueue returns a queue and the socket at its other end.
func newQueue(t *testing.T) (*fdtest.End, *fdrecv.Queue) {
	t.Helper()
	send, receive := fdtest.Pair(t, unix.SOCK_SEQPACKET)
	q, err := fdrecv.Open(fmt.Sprintf("fd:%d", receive.Take()), fdrecv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	return send, q
}

// give sends a message with variables, NAME=VALUE each, and closes the ends.
func give(t *testing.T, to *fdtest.End, vars []string, ends ...*fdtest.End) {
	t.Helper()
	payload := []byte(scm.Begin)
	for _, v := range vars {
		payload = append(append(payload, v...), 0)
	}
	giveRaw(t, to, payload, ends...)
}

func giveRaw(t *testing.T, to *fdtest.End, payload []byte, ends ...*fdtest.End) {
	t.Helper()
	var fds []int
	for _, end := range ends {
		fds = append(fds, end.FD)
	}
	var rights []byte
	if fds != nil {
		rights = unix.UnixRights(fds...)
	}
	if err := unix.Sendmsg(to.FD, payload, rights, nil, 0); err != nil {
		t.Fatalf("sendmsg: %v", err)
	}
	for _, end := range ends {
		end.Close()
	}
}

// accept accepts the next connection, which the test's end closes.
func accept(t *testing.T, l net.Listener) *fdrecv.Conn {
	t.Helper()
	type accepted struct {
		conn net.Conn
		err  error
	}
	result := make(chan accepted, 1)
	go func() {
		conn, err := l.Accept()
		result <- accepted{conn, err}
	}()
	a := fdtest.Soon(t, "a connection", result)
	if a.err != nil {
		t.Fatalf("Accept() = %v, want a connection", a.err)
	}
	t.Cleanup(func() { a.conn.Close() })
	return a.conn.(*fdrecv.Conn)
}

// front passes the connections to an address on to the queue until the test's end, as
// fdkit listen does.
func front(t *testing.T, to *fdtest.End, vars ...string) (address string) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			file, err := conn.(*net.TCPConn).File()
			conn.Close()
			if err != nil {
				t.Error(err)
				return
			}
			payload := scm.Begin + strings.Join(append(vars, ""), "\x00")
			if err := unix.Sendmsg(to.FD, []byte(payload), unix.UnixRights(int(file.Fd())), nil, unix.MSG_NOSIGNAL); err != nil {
				t.Errorf("sendmsg: %v", err)
			}
			file.Close()
		}
	})
	t.Cleanup(func() {
		l.Close()
		done.Wait()
	})
	return l.Addr().String()
}

// troubles collects what Trouble is told.
type troubles struct {
	mu   sync.Mutex
	list []string
}

func (c *troubles) add(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, err.Error())
}

func (c *troubles) all() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.list...)
}

// Who the ends are is told by the message, and where that does not, by the socket.
func TestListenerAddresses(t *testing.T) {
	fdtest.NoLeaks(t)
	const tcp, local = "TCP", "UNIX"
	for _, test := range []struct {
		socket        string
		vars          string
		remote, where string // "": what the socket says
	}{
		{tcp, "", "", ""},
		{tcp, "PROTO=TCP TCPREMOTEIP=192.0.2.1 TCPREMOTEPORT=5000 TCPLOCALIP=198.51.100.2 TCPLOCALPORT=80", "tcp 192.0.2.1:5000", "tcp 198.51.100.2:80"},
		{tcp, "PROTO=TCP TCPREMOTEIP=2001:db8::1 TCPREMOTEPORT=5000", "tcp [2001:db8::1]:5000", ""},
		{tcp, "PROTO=TCP TCPREMOTEIP=::ffff:192.0.2.1 TCPREMOTEPORT=5000", "tcp 192.0.2.1:5000", ""},
		{tcp, "PROTO=TCP TCPREMOTEIP=fe80::1%7 TCPREMOTEPORT=5000", "tcp [fe80::1%7]:5000", ""},
		{tcp, "PROTO=TCP TCPREMOTEIP=192.0.2.1 TCPREMOTEIP=192.0.2.9 TCPREMOTEPORT=5000", "tcp 192.0.2.1:5000", ""},
		{tcp, "TCPREMOTEIP=192.0.2.1 TCPREMOTEPORT=5000", "tcp 192.0.2.1:5000", ""},
		{tcp, "PROTO=TCP TCPREMOTEIP=192.0.2.1", "", ""},
		{tcp, "PROTO=TCP TCPREMOTEIP=192.0.2.1 TCPREMOTEPORT=65536", "", ""},
		{tcp, "PROTO=TCP TCPREMOTEIP=example.org TCPREMOTEPORT=80", "", ""},
		{tcp, "PROTO=UNIX UNIXREMOTEPATH=/run/c UNIXLOCALPATH=/run/s", "unix /run/c", "unix /run/s"},
		{tcp, "PROTO=UNIX", "unix @", "unix @"},
		{local, "", "", ""},
		{local, "PROTO=UNIX", "", ""},
		{local, "PROTO=UNIX UNIXLOCALPATH=/run/s UNIXREMOTEEUID=0", "", "unix /run/s"},
		{local, "PROTO=TCP TCPREMOTEIP=192.0.2.1 TCPREMOTEPORT=5000 TCPLOCALIP=198.51.100.2 TCPLOCALPORT=80 UNIXPROXYLOCALPATH=/x", "tcp 192.0.2.1:5000", "tcp 198.51.100.2:80"},
	} {
		send, q := newQueue(t)
		client, server := fdtest.TCPPair(t)
		if test.socket == local {
			client, server = fdtest.Pair(t, unix.SOCK_STREAM)
		}
		give(t, send, strings.Fields(test.vars), server)
		conn := accept(t, fdrecv.Listener(q))
		name := func(a net.Addr) string { return a.Network() + " " + a.String() }
		want := func(told string, own net.Addr) string {
			if told == "" {
				return name(own)
			}
			return told
		}
		inner := conn.NetConn()
		if got, want := name(conn.RemoteAddr()), want(test.remote, inner.RemoteAddr()); got != want {
			t.Errorf("%s socket with %q: RemoteAddr() = %q, want %q", test.socket, test.vars, got, want)
		}
		if got, want := name(conn.LocalAddr()), want(test.where, inner.LocalAddr()); got != want {
			t.Errorf("%s socket with %q: LocalAddr() = %q, want %q", test.socket, test.vars, got, want)
		}
		client.Close()
	}
}

// The variables are those of the message or, if it has none, of the socket; a client that
// has gone has an address too.
func TestListenerVars(t *testing.T) {
	fdtest.NoLeaks(t)
	send, q := newQueue(t)
	l := fdrecv.Listener(q)
	_, server := fdtest.TCPPair(t)
	give(t, send, []string{"FDKIT_KEY=a b", "SSL_PROTOCOL=TLSv1.3", "FDKIT_KEY=second"}, server)
	conn := accept(t, l)
	var got []string
	for name, value := range conn.Vars() {
		got = append(got, name+"="+value)
	}
	if want := "FDKIT_KEY=a b|SSL_PROTOCOL=TLSv1.3|FDKIT_KEY=second"; strings.Join(got, "|") != want {
		t.Errorf("Vars() = %q, want %q", got, want)
	}
	if v, ok := conn.Var("FDKIT_KEY"); v != "a b" || !ok {
		t.Errorf("Var(FDKIT_KEY) = %q, %v; want the first", v, ok)
	}
	if v, ok := conn.Var("TCPREMOTEIP"); v != "" || ok {
		t.Errorf("Var(TCPREMOTEIP) = %q, %v; want none", v, ok)
	}

	_, server = fdtest.TCPPair(t)
	giveRaw(t, send, []byte("!"), server)
	if v, ok := accept(t, l).Var("TCPREMOTEIP"); v != "127.0.0.1" || !ok {
		t.Errorf("Var(TCPREMOTEIP) of a message without variables = %q, %v; want 127.0.0.1", v, ok)
	}

	client, server := fdtest.TCPPair(t)
	client.Reset()
	give(t, send, nil, server)
	if a := accept(t, l).RemoteAddr(); a == nil || a.Network() != "tcp" {
		t.Errorf("RemoteAddr() of a client that has gone = %v, want an address", a)
	}
}

// What is no connection is closed, told and passed over.
func TestListenerBadMessages(t *testing.T) {
	fdtest.NoLeaks(t)
	send, q := newQueue(t)
	var told troubles
	l := fdrecv.Listener(q, fdrecv.Trouble(told.add))

	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	udp, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(udp)
	listening, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listening.Close()
	socket, err := listening.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	received := make(chan net.Conn, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			t.Errorf("Accept() = %v, want a connection", err)
		}
		received <- conn
	}()
	var want []string
	for _, bad := range []struct {
		fd   int
		want string
	}{
		{int(file.Fd()), "a connection is lost: what came is no connection: "},
		{udp, "a connection is lost: what came is no connection: "},
		{int(socket.Fd()), "a connection is lost: what came is no connection: "},
		{-1, "a connection is lost: a message came without a descriptor"},
	} {
		if bad.fd < 0 {
			give(t, send, nil)
		} else {
			_, other := fdtest.Pipe(t)
			give(t, send, nil, fdtest.Dup(t, bad.fd), other)
		}
		want = append(want, bad.want)
	}
	_, server := fdtest.Pair(t, unix.SOCK_STREAM)
	give(t, send, nil, server)
	fdtest.Soon(t, "the connection", received).Close()
	got := told.all()
	if len(got) != len(want) {
		t.Fatalf("Trouble is told %q, want %q", got, want)
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("Trouble is told %q, want %q", got[i], want[i])
		}
	}
}

// A process without free descriptors waits, and nothing is lost; what is lost because there
// were not enough of them is told.
func TestListenerFewFiles(t *testing.T) {
	fdtest.NoLeaks(t)
	send, q := newQueue(t)
	var told troubles
	l := fdrecv.Listener(q, fdrecv.Trouble(told.add))
	client, server := fdtest.Pair(t, unix.SOCK_STREAM)
	give(t, send, nil, server)
	_, a := fdtest.Pipe(t)
	_, b := fdtest.Pipe(t)
	_, server = fdtest.Pair(t, unix.SOCK_STREAM)
	give(t, send, nil, server, a, b)

	restore := fdtest.FewFiles(t, 0)
	conns := make(chan net.Conn, 2)
	go func() {
		for range 2 {
			conn, err := l.Accept()
			if err != nil {
				t.Errorf("Accept() = %v, want a connection", err)
				return
			}
			conns <- conn
		}
	}()
	fdtest.Eventually(t, "Trouble is told of the shortage", func() bool { return len(told.all()) == 1 })
	restore()
	conn := fdtest.Soon(t, "the connection", conns)
	if _, err := unix.Write(client.FD, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 10)); n != 1 || err != nil {
		t.Errorf("Read() = %d, %v; want 1 byte", n, err)
	}
	conn.Close()
	fdtest.Soon(t, "the connection with further descriptors", conns).Close()

	_, a = fdtest.Pipe(t)
	_, b = fdtest.Pipe(t)
	_, c := fdtest.Pair(t, unix.SOCK_STREAM)
	_, server = fdtest.Pair(t, unix.SOCK_STREAM)
	give(t, send, nil, c, a, b)
	give(t, send, nil, server)
	restore = fdtest.FewFiles(t, 2) // the other ends are still open
	accept(t, l).Close()
	restore()
	got := told.all()
	if len(got) != 2 || !strings.Contains(got[0], "until a descriptor is free") || !strings.Contains(got[1], "MSG_CTRUNC") {
		t.Errorf("Trouble is told %q, want of the shortage and of MSG_CTRUNC", got)
	}
}

// Close ends Accept also while that waits for a descriptor to be free.
func TestListenerCloseInShortage(t *testing.T) {
	fdtest.NoLeaks(t)
	_, q := newQueue(t)
	var told troubles
	l := fdrecv.Listener(q, fdrecv.Trouble(told.add))
	restore := fdtest.FewFiles(t, 0)
	defer restore()
	ended := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		ended <- err
	}()
	fdtest.Eventually(t, "Trouble is told of the shortage", func() bool { return len(told.all()) == 1 })
	if err := l.Close(); err != nil {
		t.Errorf("Close() = %v", err)
	}
	if err := fdtest.Soon(t, "the end of Accept", ended); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept() = %v after Close, want net.ErrClosed", err)
	}
}

// The end of the queue is io.EOF; Close, once, and Stop end Accept with net.ErrClosed.
func TestListenerEnd(t *testing.T) {
	fdtest.NoLeaks(t)
	send, q := newQueue(t)
	l := fdrecv.Listener(q)
	if got := l.Addr().Network() + " " + l.Addr().String(); !strings.HasPrefix(got, "fdkit fd:") {
		t.Errorf("Addr() is %q, want the queue's name", got)
	}
	send.Close()
	if _, err := l.Accept(); err != io.EOF {
		t.Errorf("Accept() = %v at the end of the queue, want io.EOF", err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("Close() = %v", err)
	}
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Close() = %v the second time, want net.ErrClosed", err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept() = %v after Close, want net.ErrClosed", err)
	}

	for _, end := range []func(*fdrecv.Queue, net.Listener){
		func(_ *fdrecv.Queue, l net.Listener) { l.Close() },
		func(q *fdrecv.Queue, _ net.Listener) { q.Stop() },
	} {
		_, q := newQueue(t)
		l := fdrecv.Listener(q)
		ended := make(chan error, 1)
		go func() {
			_, err := l.Accept()
			ended <- err
		}()
		fdtest.Eventually(t, "Accept waits", func() bool { return fdtest.Blocked(unix.SYS_RECVMSG, q.FD()) })
		end(q, l)
		if err := fdtest.Soon(t, "the end of Accept", ended); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept() = %v, want net.ErrClosed", err)
		}
	}
}

// Nothing leaks and nothing is received twice when Close comes at any time.
func TestListenerCloseRaces(t *testing.T) {
	fdtest.NoLeaks(t)
	for i := range 200 {
		send, q := newQueue(t)
		l := fdrecv.Listener(q, fdrecv.Trouble(func(error) {}), fdrecv.Leases(3))
		var group sync.WaitGroup
		for range 3 {
			_, server := fdtest.Pair(t, unix.SOCK_STREAM)
			give(t, send, nil, server)
			group.Go(func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						if !errors.Is(err, net.ErrClosed) {
							t.Errorf("Accept() = %v, want net.ErrClosed", err)
						}
						return
					}
					group.Go(func() { conn.Close() })
					conn.Close()
				}
			})
		}
		time.Sleep(time.Duration(i) * 5 * time.Microsecond)
		l.Close()
		group.Wait()
		send.Close()
	}
}

// The further descriptors have their names, and are closed unless they are taken.
func TestListenerFiles(t *testing.T) {
	fdtest.NoLeaks(t)
	send, q := newQueue(t)
	l := fdrecv.Listener(q)
	for _, test := range []struct {
		names string
		want  string
		take  bool
	}{
		{"FDNAMES=conn:log:state", "log state", true},
		{"FDNAMES=conn:log", "unknown unknown", true},
		{"FDKIT_NOTE=x", "unknown unknown", true},
		{"FDNAMES=conn:log:", "log unknown", true},
		{"FDNAMES=conn:log:state", "", false},
	} {
		readA, a := fdtest.Pipe(t)
		_, b := fdtest.Pipe(t)
		_, server := fdtest.Pair(t, unix.SOCK_STREAM)
		give(t, send, []string{test.names}, server, a, b)
		conn := accept(t, l)
		if test.take {
			files := conn.TakeFiles()
			var names []string
			for _, f := range files {
				names = append(names, f.Name())
			}
			if got := strings.Join(names, " "); got != test.want {
				t.Errorf("with %s the files are %q, want %q", test.names, got, test.want)
			}
			conn.Close()
			if _, err := files[0].WriteString("x"); err != nil {
				t.Errorf("a file that was taken does not outlive its Conn: %v", err)
			}
			for _, f := range files {
				f.Close()
			}
		}
		conn.Close()
		if files := conn.TakeFiles(); files != nil {
			t.Errorf("TakeFiles() = %v after Close, want none", files)
		}
		buf := make([]byte, 10)
		for n := 1; n > 0; {
			var err error
			if n, err = unix.Read(readA.FD, buf); err != nil {
				t.Fatal(err)
			} // until the end, which comes when all copies are closed
		}
	}
}
