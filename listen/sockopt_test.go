//go:build linux

package listen_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
	"fdkit/internal/hint"
	"fdkit/listen"
)

// with listens on an address with options, which gives one Listener.
func with(t *testing.T, address string, o listen.Options) *listen.Listener {
	t.Helper()
	a, err := listen.ParseAddress(address)
	if err != nil {
		t.Fatalf("ParseAddress(%q) = %v", address, err)
	}
	ls, err := listen.Listen(a, o)
	if err != nil {
		t.Fatalf("Listen(%s, %+v) = %v, want nil", address, o, err)
	}
	for _, l := range ls {
		t.Cleanup(l.Close)
	}
	if len(ls) != 1 {
		t.Fatalf("Listen(%s) gives %v, want one Listener", address, ls)
	}
	return ls[0]
}

// has returns the number of a socket option.
func has(t *testing.T, fd, level, name int) int {
	t.Helper()
	n, err := unix.GetsockoptInt(fd, level, name)
	if err != nil {
		t.Fatalf("getsockopt(%d, %d, %d): %v", fd, level, name, err)
	}
	return n
}

type sockoptTest struct {
	name        string
	o           listen.Options
	level, opt  int
	want        int  // on the listening socket
	notInherits bool // connections do not have it
	late        bool // an inherited socket can get it
	root, only6 bool
}

var sockoptTests = []sockoptTest{
	{name: "nodelay", o: listen.Options{NoDelay: true}, level: unix.SOL_TCP, opt: unix.TCP_NODELAY, want: 1, late: true},
	{name: "keepalive", o: listen.Options{KeepAlive: true}, level: unix.SOL_SOCKET, opt: unix.SO_KEEPALIVE, want: 1, late: true},
	{name: "keepalive by its times", o: listen.Options{KeepAliveIdle: time.Minute}, level: unix.SOL_SOCKET, opt: unix.SO_KEEPALIVE, want: 1, late: true},
	{name: "keepalive-idle", o: listen.Options{KeepAliveIdle: time.Minute}, level: unix.SOL_TCP, opt: unix.TCP_KEEPIDLE, want: 60, late: true},
	{name: "keepalive-idle at its most", o: listen.Options{KeepAliveIdle: 32767 * time.Second}, level: unix.SOL_TCP, opt: unix.TCP_KEEPIDLE, want: 32767, late: true},
	{name: "keepalive-interval, rounded up", o: listen.Options{KeepAliveInterval: 6500 * time.Millisecond}, level: unix.SOL_TCP, opt: unix.TCP_KEEPINTVL, want: 7, late: true},
	{name: "keepalive-count", o: listen.Options{KeepAliveCount: 127}, level: unix.SOL_TCP, opt: unix.TCP_KEEPCNT, want: 127, late: true},
	{name: "defer-accept", o: listen.Options{DeferAccept: 5 * time.Second}, level: unix.SOL_TCP, opt: unix.TCP_DEFER_ACCEPT, want: 7, notInherits: true, late: true},
	{name: "fastopen", o: listen.Options{FastOpen: 17}, level: unix.SOL_TCP, opt: unix.TCP_FASTOPEN, want: 17, notInherits: true, late: true},
	{name: "reuseport", o: listen.Options{ReusePort: true}, level: unix.SOL_SOCKET, opt: unix.SO_REUSEPORT, want: 1},
	{name: "freebind", o: listen.Options{FreeBind: true}, level: unix.SOL_IP, opt: unix.IP_FREEBIND, want: 1},
	{name: "transparent", o: listen.Options{Transparent: true}, level: unix.SOL_IP, opt: unix.IP_TRANSPARENT, want: 1, root: true},
	{name: "mark", o: listen.Options{Mark: 0x12}, level: unix.SOL_SOCKET, opt: unix.SO_MARK, want: 0x12, late: true, root: true},
	{name: "bind-to-device", o: listen.Options{BindToDevice: "lo"}, level: unix.SOL_SOCKET, opt: unix.SO_BINDTOIFINDEX, want: 1},
	{name: "v6only", o: listen.Options{V6Only: true}, level: unix.SOL_IPV6, opt: unix.IPV6_V6ONLY, want: 1, only6: true},
	{name: "rcvbuf", o: listen.Options{RecvBuffer: 10000}, level: unix.SOL_SOCKET, opt: unix.SO_RCVBUF, want: 20000, late: true}, // socket(7): doubled
	{name: "sndbuf", o: listen.Options{SendBuffer: 10000}, level: unix.SOL_SOCKET, opt: unix.SO_SNDBUF, want: 20000, late: true},
	{name: "sockopt tcp", o: sockopts("tcp:TCP_USER_TIMEOUT:5000"), level: unix.SOL_TCP, opt: unix.TCP_USER_TIMEOUT, want: 5000, late: true},
	{name: "sockopt socket", o: sockopts("socket:SO_PRIORITY:6"), level: unix.SOL_SOCKET, opt: unix.SO_PRIORITY, want: 6, notInherits: true, late: true},
	{name: "sockopt ip", o: sockopts("ip:IP_TOS:16"), level: unix.SOL_IP, opt: unix.IP_TOS, want: 16, late: true},
	{name: "sockopt ipv6", o: sockopts("ipv6:IPV6_TCLASS:32"), level: unix.SOL_IPV6, opt: unix.IPV6_TCLASS, want: 32, late: true, only6: true},
	{name: "sockopt by number", o: sockopts("6:18:5001"), level: unix.SOL_TCP, opt: unix.TCP_USER_TIMEOUT, want: 5001, late: true},
	{name: "sockopt reuseport", o: sockopts("socket:SO_REUSEPORT:1"), level: unix.SOL_SOCKET, opt: unix.SO_REUSEPORT, want: 1},
	{name: "sockopt after nodelay", o: listen.Options{NoDelay: true, Sockopts: sockopts("tcp:nodelay:0").Sockopts}, level: unix.SOL_TCP, opt: unix.TCP_NODELAY, want: 0, late: true},
}

func sockopts(texts ...string) (o listen.Options) {
	for _, text := range texts {
		s, err := listen.ParseSockopt(text)
		if err != nil {
			panic(err)
		}
		o.Sockopts = append(o.Sockopts, s)
	}
	return o
}

// Each option is in force on the listening socket, and on connections or not, as
// the documentation says.
func TestSockopts(t *testing.T) {
	for _, test := range sockoptTests {
		for _, address := range []string{"127.0.0.1:0", "[::1]:0", ":0"} {
			if test.only6 && address == "127.0.0.1:0" {
				continue
			}
			t.Run(test.name+" at "+address, func(t *testing.T) {
				if test.root {
					fdtest.NeedsRoot(t)
				}
				if address != "127.0.0.1:0" {
					needsIPv6(t)
				}
				fdtest.NoLeaks(t)
				l := with(t, address, test.o)
				checkSockopt(t, &test, l)
			})
		}
	}
}

func checkSockopt(t *testing.T, test *sockoptTest, l *listen.Listener) {
	t.Helper()
	if got := has(t, socketOf(t, l), test.level, test.opt); got != test.want {
		t.Errorf("the listening socket has %d; want %d", got, test.want)
	}
	at := netip.MustParseAddrPort(l.String())
	if at.Addr().IsUnspecified() {
		at = netip.AddrPortFrom(netip.IPv6Loopback(), at.Port())
	}
	from := client(t, at.String())
	if _, err := unix.Write(from.FD, []byte("x")); err != nil { // for defer-accept
		t.Fatal(err)
	}
	c := accept(t, l)
	got := has(t, c.FD, test.level, test.opt)
	if inherits := got == test.want; inherits == test.notInherits {
		t.Errorf("a connection has %d; want %d: %t", got, test.want, !test.notInherits)
	}
}

// socketOf finds the listening socket of a Listener, of any family.
func socketOf(t *testing.T, l *listen.Listener) int {
	t.Helper()
	for fd := 3; fd < 1000; fd++ {
		listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		if err == nil && listening == 1 && localName(fd) == l.String() {
			return fd
		}
	}
	t.Fatalf("no descriptor listens at %v", l)
	return -1
}

func localName(fd int) string {
	switch sa, _ := unix.Getsockname(fd); sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)).String()
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)).String()
	case *unix.SockaddrUnix:
		return "unix:" + sa.Name
	}
	return ""
}

// An inherited socket gets what bind(2) does not depend on.
func TestSockoptsInherited(t *testing.T) {
	for _, test := range sockoptTests {
		t.Run(test.name, func(t *testing.T) {
			if test.root {
				fdtest.NeedsRoot(t)
			}
			needsIPv6(t)
			fdtest.NoLeaks(t)
			given := on(t, "[::1]:0")
			copied := fdtest.Dup(t, socketOf(t, given))
			address := fmt.Sprintf("fd:%d", copied.FD)
			if test.late {
				l := with(t, address, test.o)
				copied.Take()
				checkSockopt(t, &test, l)
				return
			}
			err := notApplying(t, address, test.o)
			if cure := hint.Of(err); !strings.Contains(cure, "whoever binds the socket") {
				t.Errorf("%v has the hint %q; want it to say who can set it", err, cure)
			}
		})
	}
}

// Connections of an MPTCP socket, which is what net.Listen makes, would not have
// them.
func TestSockoptsMPTCP(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_MPTCP)
	if err != nil {
		fdtest.Lacks(t, "no MPTCP: %v", err)
	}
	t.Cleanup((&fdtest.End{FD: fd}).Close)
	if err := unix.Listen(fd, 1); err != nil {
		t.Fatal(err)
	}
	err = notApplying(t, fmt.Sprintf("fd:%d", fd), listen.Options{NoDelay: true})
	if !strings.Contains(hint.Of(err), "MPTCP") {
		t.Errorf("%v has the hint %q; want it to say that it is an MPTCP socket", err, hint.Of(err))
	}
}

// notApplying returns the error with which Check and Listen refuse, both.
func notApplying(t *testing.T, address string, o listen.Options) error {
	t.Helper()
	a, err := listen.ParseAddress(address)
	if err != nil {
		t.Fatal(err)
	}
	checked := o.Check(a)
	ls, err := listen.Listen(a, o)
	if err == nil {
		ls[0].Close()
	}
	refused, ok := errors.AsType[*listen.OptionError](err)
	if !ok || refused.Err != nil || checked == nil || checked.Error() != err.Error() {
		t.Fatalf("Check(%s) = %v, Listen() = %v; want the same OptionError with no cause", address, checked, err)
	}
	return err
}

func TestSockoptsUnix(t *testing.T) {
	address := "unix:" + filepath.Join(t.TempDir(), "s")
	for _, test := range sockoptTests {
		t.Run(test.name, func(t *testing.T) {
			fdtest.NoLeaks(t)
			if test.name == "sockopt socket" {
				l := with(t, address, test.o)
				if got := has(t, socketOf(t, l), test.level, test.opt); got != test.want {
					t.Errorf("the listening socket has %d; want %d", got, test.want)
				}
				return
			}
			if err := notApplying(t, address, test.o); !strings.HasSuffix(err.Error(), " does not apply to "+address) {
				t.Errorf("Listen(%s, %s) = %v; want it to say that it does not apply to %[1]s", address, test.name, err)
			}
			if _, err := os.Lstat(strings.TrimPrefix(address, "unix:")); err == nil {
				t.Errorf("%s is left behind", address)
			}
		})
	}
}

func TestSockoptsOfIPv6(t *testing.T) {
	for _, o := range []listen.Options{{V6Only: true}, sockopts("ipv6:IPV6_TCLASS:32"), sockopts("41:67:32")} {
		for _, address := range []string{"127.0.0.1:0", "tcp4::0", "[::ffff:127.0.0.1]:0", "0.0.0.0:0"} {
			if err := notApplying(t, address, o); !strings.Contains(hint.Of(err), "tcp6:") {
				t.Errorf("%v has the hint %q; want it to name tcp6:", err, hint.Of(err))
			}
		}
	}
	// A name's addresses are known late.
	a, _ := listen.ParseAddress("tcp4:localhost:0")
	if err := (listen.Options{V6Only: true}).Check(a); err == nil {
		t.Errorf("Check(%v) = nil, want an error", a)
	}
	a, _ = listen.ParseAddress("localhost:0")
	if err := (listen.Options{V6Only: true}).Check(a); err != nil {
		t.Errorf("Check(%v) = %v, want nil", a, err)
	}
}

func TestV6Only(t *testing.T) {
	needsIPv6(t)
	l := with(t, ":0", listen.Options{V6Only: true})
	client(t, fmt.Sprintf("[::1]:%d", l.Port()))
	accept(t, l)
	c, sa := unconnected(t, fmt.Sprintf("127.0.0.1:%d", l.Port()))
	if err := unix.Connect(c.FD, sa); err != unix.ECONNREFUSED {
		t.Errorf("connect by IPv4: %v, want %v", err, unix.ECONNREFUSED)
	}
	with(t, fmt.Sprintf("tcp4::%d", l.Port()), listen.Options{}) // free for another
}

func TestReusePort(t *testing.T) {
	fdtest.NoLeaks(t)
	o := listen.Options{ReusePort: true}
	one := with(t, "127.0.0.1:0", o)
	two := with(t, one.String(), o)
	if err := failing(t, one.String()); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("Listen(%v) without the option = %v, want %v", one, err, unix.EADDRINUSE)
	}
	three := on(t, "127.0.0.1:0")
	a, _ := listen.ParseAddress(three.String())
	if _, err := listen.Listen(a, o); !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(hint.Of(err), "SO_REUSEPORT") {
		t.Errorf("Listen(%v) = %v with hint %q; want %v and a hint to SO_REUSEPORT", three, err, hint.Of(err), unix.EADDRINUSE)
	}
	// The kernel shares connections out by a hash: with 64, each gets some.
	var counts [2]int
	for range 64 {
		client(t, one.String())
	}
	for i, l := range []*listen.Listener{one, two} {
		fd := socketOf(t, l)
		// Both have the same name: the first descriptor found is one's.
		if i == 1 {
			fd = after(t, fd, l.String())
		}
		for {
			ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			if n, err := unix.Poll(ready, 0); n == 0 || err != nil {
				break
			}
			c := new(listen.Conn)
			if err := l.Accept(c); err != nil {
				t.Fatalf("Accept() = %v", err)
			}
			_ = unix.Close(c.FD)
			counts[i]++
		}
	}
	if counts[0] == 0 || counts[1] == 0 || counts[0]+counts[1] != 64 {
		t.Errorf("two Listeners at one port have accepted %v of 64; want some each, and all", counts)
	}
}

// after finds the next listening socket of the same name.
func after(t *testing.T, fd int, name string) int {
	t.Helper()
	for fd++; fd < 1000; fd++ {
		if localName(fd) == name {
			if listening, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); listening == 1 {
				return fd
			}
		}
	}
	t.Fatalf("no other descriptor listens at %s", name)
	return -1
}

// The addresses are those of RFC 5737 and RFC 3849: nobody has them.
func TestFreeBind(t *testing.T) {
	for _, address := range []string{"192.0.2.1:0", "[2001:db8::1]:0"} {
		if strings.Contains(address, "::") {
			needsIPv6(t)
		}
		with(t, address, listen.Options{FreeBind: true})
		if os.Getuid() == 0 {
			with(t, address, listen.Options{Transparent: true})
		}
		if err := failing(t, address); !errors.Is(err, unix.EADDRNOTAVAIL) {
			t.Errorf("Listen(%s) = %v, want %v", address, err, unix.EADDRNOTAVAIL)
		}
	}
}

func TestCongestion(t *testing.T) {
	l := with(t, "127.0.0.1:0", sockopts("tcp:TCP_CONGESTION:reno"))
	client(t, l.String())
	c := accept(t, l)
	for _, fd := range []int{socketOf(t, l), c.FD} {
		if got, err := unix.GetsockoptString(fd, unix.SOL_TCP, unix.TCP_CONGESTION); got != "reno" {
			t.Errorf("descriptor %d has TCP_CONGESTION %q (%v), want reno", fd, got, err)
		}
	}
}

func TestSockoptErrors(t *testing.T) {
	for _, test := range []struct {
		o          listen.Options
		is         error
		want, hint string
		nobody     bool
	}{
		{listen.Options{Mark: 0x12}, unix.EPERM, "cannot set mark 0x12 at 127.0.0.1:0: operation not permitted", "CAP_NET_ADMIN", true},
		{listen.Options{Transparent: true}, unix.EPERM, "cannot set transparent at 127.0.0.1:0: operation not permitted", "CAP_NET_ADMIN", true},
		{sockopts("socket:SO_PRIORITY:7"), unix.EPERM, "cannot set sockopt socket:SO_PRIORITY:7 at 127.0.0.1:0: operation not permitted", "CAP_NET_ADMIN", true},
		{listen.Options{BindToDevice: "no-such-if"}, unix.ENODEV, "cannot set bind-to-device no-such-if at 127.0.0.1:0: no such device", "ip link", false},
		{listen.Options{BindToDevice: "lo" + strings.Repeat("\x00", 14)}, unix.ENODEV, "no such device", "ip link", false},
		{sockopts("tcp:TCP_CONGESTION:nosuch"), unix.ENOENT, "cannot set sockopt tcp:TCP_CONGESTION:nosuch at 127.0.0.1:0: no such file", "tcp_available_congestion_control", false},
		{sockopts("tcp:9999:1"), unix.ENOPROTOOPT, "cannot set sockopt 6:9999:1", "no such option", false},
		{listen.Options{KeepAliveCount: 128}, unix.EINVAL, "cannot set keepalive-count at 127.0.0.1:0: invalid argument", "out of range", false},
		{listen.Options{KeepAliveIdle: 32768 * time.Second}, unix.EINVAL, "cannot set keepalive-idle at", "out of range", false},
	} {
		t.Run(test.want, func(t *testing.T) {
			fdtest.NoLeaks(t)
			a, _ := listen.ParseAddress("127.0.0.1:0")
			listenNow := func() error {
				ls, err := listen.Listen(a, test.o)
				if err == nil {
					ls[0].Close()
				}
				return err
			}
			var err error
			if test.nobody {
				err = asNobody(t, listenNow)
			} else {
				err = listenNow()
			}
			if err == nil || !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.want) ||
				!strings.Contains(hint.Of(err), test.hint) {
				t.Errorf("Listen(%+v) = %v with hint %q; want %q with a hint that says %q", test.o, err, hint.Of(err), test.want, test.hint)
			}
		})
	}
}

// asNobody calls f in a thread that is not root's any more; the thread ends with it.
func asNobody(t *testing.T, f func() error) error {
	t.Helper()
	ended := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if os.Getuid() == 0 {
			// Not unix.Setresuid, which would do it to all threads.
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, fdtest.Nobody, fdtest.Nobody, fdtest.Nobody); errno != 0 {
				ended <- errno
				return
			}
		}
		ended <- f()
	}()
	return fdtest.Soon(t, "a thread of nobody's ends", ended)
}

func TestParseSockopt(t *testing.T) {
	for _, test := range []struct {
		text   string
		want   listen.Sockopt
		string string // "": text
	}{
		{"socket:SO_PRIORITY:6", listen.Sockopt{Level: 1, Name: 12, Value: 6}, ""},
		{"SOL_SOCKET:priority:6", listen.Sockopt{Level: 1, Name: 12, Value: 6}, "socket:SO_PRIORITY:6"},
		{"tcp:TCP_USER_TIMEOUT:5000", listen.Sockopt{Level: 6, Name: 18, Value: 5000}, ""},
		{"IPPROTO_TCP:USER_TIMEOUT:0", listen.Sockopt{Level: 6, Name: 18}, "tcp:TCP_USER_TIMEOUT:0"},
		{"ip:IP_TOS:16", listen.Sockopt{Level: 0, Name: 1, Value: 16}, ""},
		{"ipv6:IPV6_TCLASS:-1", listen.Sockopt{Level: 41, Name: 67, Value: -1}, ""},
		{"socket:SO_MARK:4294967295", listen.Sockopt{Level: 1, Name: 36, Value: -1}, "socket:SO_MARK:-1"},
		{"tcp:TCP_CONGESTION:bbr", listen.Sockopt{Level: 6, Name: 13, Text: "bbr"}, ""},
		{"tcp:13:0", listen.Sockopt{Level: 6, Name: 13, Text: "0"}, "tcp:TCP_CONGESTION:0"},
		{"socket:SO_BINDTODEVICE:a:b", listen.Sockopt{Level: 1, Name: 25, Text: "a:b"}, ""},
		{"6:31:tls", listen.Sockopt{Level: 6, Name: 31, Text: "tls"}, ""},
		{"263:1:2", listen.Sockopt{Level: 263, Name: 1, Value: 2}, ""},
	} {
		got, err := listen.ParseSockopt(test.text)
		want := test.string
		if want == "" {
			want = test.text
		}
		if err != nil || got != test.want || got.String() != want {
			t.Errorf("ParseSockopt(%q) = %+v, %v, written %v; want %+v, nil, written %s", test.text, got, err, got, test.want, want)
		}
	}
	for _, test := range []struct{ text, want string }{
		{"", "LEVEL:NAME:VALUE"},
		{"tcp:1", "LEVEL:NAME:VALUE"},
		{"udp:1:1", `there is no level "udp"`},
		{":1:1", `there is no level ""`},
		{"-1:1:1", `there is no level "-1"`},
		{"tcp:SO_PRIORITY:1", `no option "SO_PRIORITY" is known at level tcp`},
		{"6:NODELAY:1", `no option "NODELAY" is known at level 6`},
		{"tcp::1", `no option "" is known`},
		{"socket:SO_LINGER:1", `no option "SO_LINGER" is known`},
		{"tcp:nodelay:", "the value is missing"},
		{"tcp:nodelay:yes", `"yes" is no number of 32 bits`},
		{"tcp:nodelay:+1", `"+1" is no number of 32 bits`},
		{"tcp:nodelay:0x1", `"0x1" is no number of 32 bits`},
		{"tcp:nodelay: 1", `" 1" is no number of 32 bits`},
		{"6:1:yes", `"yes" is no number of 32 bits`},
		{"tcp:1:4294967296", `"4294967296" is no number of 32 bits`},
		{"tcp:1:-2147483649", `"-2147483649" is no number of 32 bits`},
		{"tcp:congestion:a\x00", "zero byte"},
	} {
		if got, err := listen.ParseSockopt(test.text); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("ParseSockopt(%q) = %+v, %v; want an error that says %q", test.text, got, err, test.want)
		}
	}
}

// FuzzParseSockopt parses what anybody may write: what is an option can be written,
// and is then the same.
func FuzzParseSockopt(f *testing.F) {
	for _, seed := range []string{"socket:SO_PRIORITY:6", "6:13:x", "tcp:nodelay:-1", "ip:1:" + strconv.Itoa(1<<32-1), "::", "0:0:a:b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := listen.ParseSockopt(text)
		if err != nil {
			return
		}
		if again, err := listen.ParseSockopt(s.String()); err != nil || again != s {
			t.Errorf("ParseSockopt(%q) = %+v, written %q it parses as %+v, %v; want the same", text, s, s.String(), again, err)
		}
	})
}
