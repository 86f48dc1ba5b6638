//go:build linux

package listen_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
	"fdkit/internal/hint"
	"fdkit/internal/scm"
	"fdkit/listen"
)

// on listens on an address, which gives one Listener.
func on(t *testing.T, address string) *listen.Listener {
	t.Helper()
	ls := all(t, address)
	if len(ls) != 1 {
		t.Fatalf("Listen(%s) gives %v, want one Listener", address, ls)
	}
	return ls[0]
}

func all(t *testing.T, address string) []*listen.Listener {
	t.Helper()
	a, err := listen.ParseAddress(address)
	if err != nil {
		t.Fatalf("ParseAddress(%q) = %v", address, err)
	}
	ls, err := listen.Listen(a, listen.Options{})
	if err != nil {
		t.Fatalf("Listen(%s) = %v, want nil", address, err)
	}
	for _, l := range ls {
		t.Cleanup(l.Close)
	}
	return ls
}

// failing listens on an address and returns the error.
func failing(t *testing.T, address string) error {
	t.Helper()
	a, err := listen.ParseAddress(address)
	if err != nil {
		t.Fatalf("ParseAddress(%q) = %v", address, err)
	}
	ls, err := listen.Listen(a, listen.Options{})
	if err == nil {
		for _, l := range ls {
			l.Close()
		}
		t.Fatalf("Listen(%s) = %v, nil; want an error", address, ls)
	}
	return err
}

// client connects to an address.
func client(t *testing.T, address string) *fdtest.End {
	t.Helper()
	c, sa := unconnected(t, address)
	if err := unix.Connect(c.FD, sa); err != nil {
		t.Fatalf("connect(%s): %v", address, err)
	}
	return c
}

func unconnected(t *testing.T, address string) (*fdtest.End, unix.Sockaddr) {
	t.Helper()
	domain := unix.AF_UNIX
	var sa unix.Sockaddr
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		sa = &unix.SockaddrUnix{Name: path}
	} else if ap := netip.MustParseAddrPort(address); ap.Addr().Is4() {
		domain, sa = unix.AF_INET, &unix.SockaddrInet4{Addr: ap.Addr().As4(), Port: int(ap.Port())}
	} else {
		domain, sa = unix.AF_INET6, &unix.SockaddrInet6{Addr: ap.Addr().As16(), Port: int(ap.Port())}
	}
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("socket: %v", err)
	}
	e := &fdtest.End{FD: fd}
	t.Cleanup(e.Close)
	return e, sa
}

// accept accepts a connection, which the test's end closes.
func accept(t *testing.T, l *listen.Listener) *listen.Conn {
	t.Helper()
	var c listen.Conn
	if err := l.Accept(&c); err != nil {
		t.Fatalf("Accept() = %v, want nil", err)
	}
	t.Cleanup((&fdtest.End{FD: c.FD}).Close)
	return &c
}

// needsIPv6 skips the test on a machine without IPv6.
func needsIPv6(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		fdtest.Lacks(t, "this machine has no IPv6: %v", err)
	}
	l.Close()
}

func payloadOf(c *listen.Conn) string {
	return strings.ReplaceAll(string(c.AppendPayload(nil)), "\x00", "|")
}

func TestListenTCP(t *testing.T) {
	for _, test := range []struct{ address, bound, dial, local string }{
		{"127.0.0.1:0", "127.0.0.1", "127.0.0.1", "127.0.0.1"},
		{"tcp4:127.0.0.1:0", "127.0.0.1", "127.0.0.1", "127.0.0.1"},
		{"tcp4:localhost:0", "127.0.0.1", "127.0.0.1", "127.0.0.1"},
		{"tcp4::0", "0.0.0.0", "127.0.0.1", "127.0.0.1"},
		{"0.0.0.0:0", "0.0.0.0", "127.0.0.2", "127.0.0.2"},
		{"[::1]:0", "::1", "::1", "::1"},
		{"tcp6::0", "::", "::1", "::1"},
		{"[::ffff:127.0.0.1]:0", "127.0.0.1", "127.0.0.1", "127.0.0.1"},
		{":0", "::", "127.0.0.1", "127.0.0.1"},
		{":0", "::", "::1", "::1"},
	} {
		t.Run(test.address+" from "+test.dial, func(t *testing.T) {
			if strings.Contains(test.bound+test.dial, ":") {
				needsIPv6(t)
			}
			fdtest.NoLeaks(t)
			l := on(t, test.address)
			if want := netip.AddrPortFrom(netip.MustParseAddr(test.bound), l.Port()).String(); l.Port() == 0 || l.String() != want {
				t.Errorf("Listen(%s) is at %v, port %d; want %s", test.address, l, l.Port(), want)
			}
			dial := netip.AddrPortFrom(netip.MustParseAddr(test.dial), l.Port())
			local := netip.AddrPortFrom(netip.MustParseAddr(test.local), l.Port())
			from := client(t, dial.String())
			c := accept(t, l)
			if c.Local() != local.String() {
				t.Errorf("Local() = %s, want %s", c.Local(), local)
			}
			remote := localAddress(t, from.FD)
			if c.Remote() != remote.String() {
				t.Errorf("Remote() = %s, want %s", c.Remote(), remote)
			}
			want := fmt.Sprintf("FDKIT=1|PROTO=TCP|TCPLOCALIP=%s|TCPLOCALPORT=%d|TCPREMOTEIP=%s|TCPREMOTEPORT=%d|"+
				"REMOTE_ADDR=%[3]s|REMOTE_PORT=%[4]d|FDKIT_ACCEPTED=%d.%06d|",
				local.Addr(), local.Port(), remote.Addr(), remote.Port(), c.Accepted.Unix(), c.Accepted.Nanosecond()/1000)
			if got := payloadOf(c); got != want {
				t.Errorf("AppendPayload:\n got %s\nwant %s", got, want)
			}
			checkFlags(t, c.FD)
		})
	}
}

func localAddress(t *testing.T, fd int) netip.AddrPort {
	t.Helper()
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatalf("getsockname: %v", err)
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	t.Fatalf("getsockname gives %T", sa)
	return netip.AddrPort{}
}

// checkFlags fails the test unless fd is blocking and close-on-exec.
func checkFlags(t *testing.T, fd int) {
	t.Helper()
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
		t.Errorf("the connection has flags %#x (%v), want it blocking", flags, err)
	}
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("the connection has descriptor flags %#x (%v), want close-on-exec", flags, err)
	}
}

func TestListenOneVersion(t *testing.T) {
	needsIPv6(t)
	for address, other := range map[string]string{"tcp4::0": "::1", "tcp6::0": "127.0.0.1", "[::]:0": "127.0.0.1"} {
		l := on(t, address)
		c, sa := unconnected(t, netip.AddrPortFrom(netip.MustParseAddr(other), l.Port()).String())
		if err := unix.Connect(c.FD, sa); err != unix.ECONNREFUSED {
			t.Errorf("connect(%s) to %s = %v, want ECONNREFUSED", other, address, err)
		}
	}
}

func TestListenName(t *testing.T) {
	ips, err := net.LookupIP("localhost")
	if err != nil {
		t.Fatalf("localhost: %v", err)
	}
	want := map[string]bool{}
	for _, ip := range ips {
		addr, _ := netip.AddrFromSlice(ip)
		want[addr.Unmap().String()] = true
	}
	ls := all(t, "localhost:0")
	if len(ls) != len(want) {
		t.Errorf("Listen(localhost:0) gives %v, want one each for %v", ls, want)
	}
	for _, l := range ls {
		host, _, _ := net.SplitHostPort(l.String())
		if !want[host] || l.Port() != ls[0].Port() || l.Port() == 0 {
			t.Errorf("Listen(localhost:0) gives %v, want all of %v with the same port", ls, want)
		}
		client(t, l.String())
		accept(t, l)
	}
}

func TestListenErrors(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	live := on(t, "unix:"+filepath.Join(dir, "live"))
	_ = live
	taken := on(t, "127.0.0.1:0")
	pipe, _ := fdtest.Pipe(t)
	pair, _ := fdtest.Pair(t, unix.SOCK_STREAM)
	datagrams, _ := fdtest.Pair(t, unix.SOCK_DGRAM)
	unbound, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(unbound)
	for _, test := range []struct {
		address string
		is      error
		want    string
		hinted  bool
	}{
		{taken.String(), unix.EADDRINUSE, "address already in use", true},
		{fmt.Sprintf(":%d", taken.Port()), unix.EADDRINUSE, "address already in use", true},
		{"192.0.2.1:0", unix.EADDRNOTAVAIL, "cannot assign requested address", true},
		{"no-such-host.invalid:80", nil, "", false},
		{"[fe80::1%no-such-if]:80", nil, `no interface "no-such-if"`, false},
		{"unix:" + dir + "/live", nil, "address already in use", true},
		{"unix:" + dir + "/file", nil, "exists and is not a socket", true},
		{"unix:" + dir + "/no/s", fs.ErrNotExist, "no such file or directory", true},
		{fmt.Sprintf("fd:%d", pipe.FD), nil, "it is no socket", false},
		{fmt.Sprintf("fd:%d", pair.FD), nil, "it is a connection, not a listening socket", true},
		{fmt.Sprintf("fd:%d", datagrams.FD), nil, "it is a datagram socket", true},
		{fmt.Sprintf("fd:%d", unbound), nil, "it is a socket that does not listen", false},
		{"fd:999999", nil, "it is not open", false},
	} {
		t.Run(test.address, func(t *testing.T) {
			fdtest.NoLeaks(t)
			err := failing(t, test.address)
			if test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("Listen(%s) = %v, want one that is %q", test.address, err, test.is)
			}
			if begin := "cannot bind " + test.address + ": "; !strings.HasPrefix(err.Error(), begin) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Listen(%s) = %v, want it to begin %q and to say %q", test.address, err, begin, test.want)
			}
			if got := hint.Of(err); (got != "") != test.hinted {
				t.Errorf("Listen(%s) has the hint %q, want one: %v", test.address, got, test.hinted)
			}
		})
	}
}

func TestListenUnix(t *testing.T) {
	fdtest.NoLeaks(t)
	path := filepath.Join(t.TempDir(), "s")
	for range 3 { // a stale file is replaced
		l := on(t, "unix:"+path)
		if l.String() != "unix:"+path || l.Port() != 0 {
			t.Errorf("the Listener is at %v, port %d; want unix:%s, 0", l, l.Port(), path)
		}
		client(t, "unix:"+path)
		c := accept(t, l)
		checkFlags(t, c.FD)
		want := regexp.MustCompile(fmt.Sprintf(`^FDKIT=1\|PROTO=UNIX\|UNIXLOCALPATH=%s\|UNIXREMOTEEUID=%d\|UNIXREMOTEEGID=%d\|`+
			`UNIXREMOTEPID=%d\|FDKIT_ACCEPTED=\d+\.\d{6}\|$`, regexp.QuoteMeta(path), os.Geteuid(), os.Getegid(), os.Getpid()))
		if got := payloadOf(c); !want.MatchString(got) {
			t.Errorf("AppendPayload = %s, want %s", got, want)
		}
		if err := os.Link(path, path+".kept"); err != nil {
			t.Fatal(err)
		}
		l.Close()
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Lstat after Close = %v, want that the socket file is gone", err)
		}
		l.Close()
		// As if it had been killed.
		if err := os.Rename(path+".kept", path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestListenAbstract(t *testing.T) {
	fdtest.NoLeaks(t)
	name := fmt.Sprintf("unix:@fdkit-test-%d", os.Getpid())
	l := on(t, name)
	client(t, name)
	if c := accept(t, l); c.Local() != name {
		t.Errorf("Local() = %s, want %s", c.Local(), name)
	}
	if err := failing(t, name); !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("Listen on a name in use = %v, want address already in use", err)
	}
}

// Close leaves a socket file alone that is another's by now.
func TestCloseOfReplacedPath(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	first := on(t, "unix:"+path)
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	second := on(t, "unix:"+path)
	first.Close()
	client(t, "unix:"+path)
	accept(t, second)
}

func TestListenInherited(t *testing.T) {
	fdtest.NoLeaks(t)
	given := on(t, "127.0.0.1:0")
	copied := fdtest.Dup(t, descriptor(t, given))
	if err := unix.SetNonblock(copied.FD, true); err != nil { // as systemd and Go programs have it
		t.Fatal(err)
	}
	l := on(t, fmt.Sprintf("fd:%d", copied.Take()))
	if l.String() != given.String() {
		t.Errorf("the inherited Listener is at %v, want %v", l, given)
	}
	var c listen.Conn
	ended := make(chan error, 1)
	go func() { ended <- l.Accept(&c) }()
	fdtest.Eventually(t, "Accept waits in poll", func() bool { return fdtest.Blocked(unix.SYS_PPOLL, -1) })
	client(t, l.String())
	if err := fdtest.Soon(t, "Accept returns", ended); err != nil {
		t.Fatalf("Accept() = %v, want nil", err)
	}
	checkFlags(t, c.FD)
	_ = unix.Close(c.FD)
}

// descriptor finds the descriptor of a Listener.
func descriptor(t *testing.T, l *listen.Listener) int {
	t.Helper()
	for fd := 3; fd < 1000; fd++ {
		listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		if domain, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err == nil && listening == 1 && domain == unix.AF_INET &&
			localAddress(t, fd).String() == l.String() {
			return fd
		}
	}
	t.Fatalf("no descriptor listens at %v", l)
	return -1
}

// After Stop the socket goes on listening: its backlog is for the next process.
func TestStop(t *testing.T) {
	fdtest.NoLeaks(t)
	l := on(t, "127.0.0.1:0")
	other := on(t, fmt.Sprintf("fd:%d", fdtest.Dup(t, descriptor(t, l)).Take()))
	ended := make(chan error, 1)
	go func() { ended <- l.Accept(new(listen.Conn)) }()
	fdtest.Eventually(t, "Accept waits", func() bool { return fdtest.Blocked(unix.SYS_ACCEPT4, -1) })
	l.Stop()
	if err := fdtest.Soon(t, "Accept ends with Stop", ended); err != listen.ErrStopped {
		t.Errorf("Accept() = %v, want ErrStopped", err)
	}
	if err := l.Accept(new(listen.Conn)); err != listen.ErrStopped {
		t.Errorf("Accept() after Stop = %v, want ErrStopped", err)
	}
	from := client(t, l.String())
	l.Close()
	if c := accept(t, other); c.Remote() != localAddress(t, from.FD).String() {
		t.Errorf("the next process accepts %s, want %v", c.Remote(), localAddress(t, from.FD))
	}
}

func TestBacklog(t *testing.T) {
	a, _ := listen.ParseAddress("127.0.0.1:0")
	ls, err := listen.Listen(a, listen.Options{Backlog: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer ls[0].Close()
	info, err := unix.GetsockoptTCPInfo(descriptor(t, ls[0]), unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil || info.Sacked != 3 { // of a listening socket: the backlog, tcp_get_info() in net/ipv4/tcp.c
		t.Errorf("the backlog is %d (%v), want 3", info.Sacked, err)
	}
}

func TestAllocations(t *testing.T) {
	path := "unix:" + filepath.Join(t.TempDir(), "s")
	for address, want := range map[string]float64{
		"127.0.0.1:0": 0, ":0": 0,
		path: 1, // what SO_PEERCRED says
	} {
		l := on(t, address)
		dial := l.String()
		if address == ":0" {
			dial = fmt.Sprintf("127.0.0.1:%d", l.Port())
		}
		const runs = 50
		for range runs + 1 { // AllocsPerRun warms up with one
			client(t, dial)
		}
		var c listen.Conn
		payload := make([]byte, 0, scm.MaxPayload)
		got := testing.AllocsPerRun(runs, func() {
			if err := l.Accept(&c); err != nil {
				t.Fatalf("Accept() = %v", err)
			}
			payload = c.AppendPayload(payload[:0])
			_ = unix.Close(c.FD)
		})
		if got > want {
			t.Errorf("Accept and AppendPayload at %s allocate %v times for a connection, want %v", address, got, want)
		}
	}
}

func TestTake(t *testing.T) {
	fdtest.NoLeaks(t)
	path := filepath.Join(t.TempDir(), "s")
	l := on(t, "unix:"+path)
	if got, want := string(l.AppendPayload(nil)), "FDKIT=1\x00PROTO=UNIX\x00UNIXLOCALPATH="+path+"\x00"; got != want {
		t.Errorf("AppendPayload = %q, want %q", got, want)
	}
	fd := l.FD()
	if taken := l.Take(); taken != fd {
		t.Errorf("Take() = %d, want FD(), which is %d", taken, fd)
	}
	if again := l.Take(); again != -1 {
		t.Errorf("Take() for the second time = %d, want -1", again)
	}
	l.Close()
	client(t, "unix:"+path) // neither the socket nor its file is gone
	_ = unix.Close(fd)
	tcp := on(t, "127.0.0.1:0")
	want := fmt.Sprintf("FDKIT=1\x00PROTO=TCP\x00TCPLOCALIP=127.0.0.1\x00TCPLOCALPORT=%d\x00", tcp.Port())
	if got := string(tcp.AppendPayload(nil)); got != want {
		t.Errorf("AppendPayload = %q, want %q", got, want)
	}
}
