//go:build linux

package listen

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	proxyproto "github.com/pires/go-proxyproto"
	"golang.org/x/sys/unix"

	"fdkit/internal/fdinfo"
	"fdkit/internal/fdtest"
	"fdkit/internal/hint"
)

// v2 makes a header of version 2.
func v2(command, family byte, body ...string) string {
	further := strings.Join(body, "")
	b := append([]byte(proxyV2), command, family)
	return string(binary.BigEndian.AppendUint16(b, uint16(len(further)))) + further
}

func tlv(typ byte, value string) string {
	return string(binary.BigEndian.AppendUint16([]byte{typ}, uint16(len(value)))) + value
}

func unixName(path string) string { return path + strings.Repeat("\x00", 108-len(path)) }

const (
	addresses4 = "\xc0\x00\x02\x01\xc6\x33\x64\x02\x13\x88\x00\x50" // 192.0.2.1:5000 to 198.51.100.2:80
	addresses6 = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01" +
		"\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x13\x88\x00\x50"
	mapped6 = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc0\x00\x02\x01" +
		"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc6\x33\x64\x02\x13\x88\x00\x50"
	tcp4Vars = "PROTO=TCP|TCPLOCALIP=198.51.100.2|TCPLOCALPORT=80|TCPREMOTEIP=192.0.2.1|TCPREMOTEPORT=5000|REMOTE_ADDR=192.0.2.1|REMOTE_PORT=5000|"
	tcp6Vars = "PROTO=TCP|TCPLOCALIP=2001:db8::2|TCPLOCALPORT=80|TCPREMOTEIP=2001:db8::1|TCPREMOTEPORT=5000|REMOTE_ADDR=2001:db8::1|REMOTE_PORT=5000|"
	ownVars  = "PROTO=TCP|TCPLOCALIP=10.0.0.2|TCPLOCALPORT=8080|TCPREMOTEIP=10.0.0.1|TCPREMOTEPORT=4000|REMOTE_ADDR=10.0.0.1|REMOTE_PORT=4000|"
	byTCP    = "TCPPROXYIP=10.0.0.1|TCPPROXYPORT=4000|TCPPROXYLOCALIP=10.0.0.2|TCPPROXYLOCALPORT=8080|"
)

func ssl(client byte, verify string, values ...string) string {
	return tlv(0x20, string(client)+verify+strings.Join(values, ""))
}

const verified, unverified = "\x00\x00\x00\x00", "\x00\x00\x00\x01"

// headers are whole headers, and the variables that come of each where the balancer
// is 10.0.0.1:4000 and has connected to 10.0.0.2:8080.
var headers = []struct{ about, header, want string }{
	{"v1 TCP4", "PROXY TCP4 192.0.2.1 198.51.100.2 5000 80\r\n", tcp4Vars + byTCP},
	{"v1 TCP6", "PROXY TCP6 2001:db8::1 2001:db8::2 5000 80\r\n", tcp6Vars + byTCP},
	{"v1 TCP6, mapped", "PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.2 5000 80\r\n", tcp4Vars + byTCP},
	{"v1 UNKNOWN", "PROXY UNKNOWN\r\n", ownVars},
	{"v1 UNKNOWN with addresses", "PROXY UNKNOWN ::1 ::2 1 2\r\n", ownVars},
	{"v1 UNKNOWN, longest", "PROXY UNKNOWN " + strings.Repeat("f", 91) + "\r\n", ownVars},
	{"v2 TCP4", v2(0x21, 0x11, addresses4), tcp4Vars + byTCP},
	{"v2 TCP6", v2(0x21, 0x21, addresses6), tcp6Vars + byTCP},
	{"v2 TCP6, mapped", v2(0x21, 0x21, mapped6), tcp4Vars + byTCP},
	{"v2 UDP4", v2(0x21, 0x12, addresses4), tcp4Vars + byTCP},
	{"v2 Unix", v2(0x21, 0x31, unixName("/tmp/c"), unixName("/run/s")), "PROTO=UNIX|UNIXLOCALPATH=/run/s|UNIXREMOTEPATH=/tmp/c|" + byTCP},
	{"v2 Unix, unnamed client", v2(0x21, 0x31, unixName(""), unixName("/run/s")), "PROTO=UNIX|UNIXLOCALPATH=/run/s|" + byTCP},
	{"v2 Unix, a path with a newline", v2(0x21, 0x31, unixName("/a\nb"), unixName("/run/s")), "PROTO=UNIX|UNIXLOCALPATH=/run/s|" + byTCP},
	{"v2 LOCAL", v2(0x20, 0x00), ownVars},
	{"v2 LOCAL with addresses", v2(0x20, 0x11, addresses4, tlv(2, "example.org")), ownVars},
	{"v2 LOCAL of a length of its own", v2(0x20, 0x11, "abc"), ownVars},
	{"v2 with padding", v2(0x21, 0x11, addresses4, tlv(4, strings.Repeat("\x00", 4000))), tcp4Vars + byTCP},
	{"v2, longest", v2(0x21, 0x11, addresses4, tlv(4, strings.Repeat("\x00", 4096-12-3))), tcp4Vars + byTCP},
	{"v2 with an unknown TLV", v2(0x21, 0x11, addresses4, tlv(0xea, "\x01vpce-1")), tcp4Vars + byTCP},
	{
		"v2 with TLS", v2(0x21, 0x11, addresses4, tlv(2, "www.example.org"), ssl(1, unverified, tlv(0x21, "TLSv1.3"), tlv(0x23, "TLS_AES_256_GCM_SHA384"))),
		tcp4Vars + byTCP + "SSL_PROTOCOL=TLSv1.3|SSL_CIPHER=TLS_AES_256_GCM_SHA384|SSL_TLS_SNI_SERVERNAME=www.example.org|",
	},
	{
		"v2 with a verified client", v2(0x21, 0x11, addresses4, ssl(7, verified, tlv(0x21, "TLSv1.3"), tlv(0x22, "Jörg Müller"))),
		tcp4Vars + byTCP + "SSL_PROTOCOL=TLSv1.3|SSL_CLIENT_S_DN_CN=Jörg Müller|",
	},
	{
		"v2 with a client that is not verified", v2(0x21, 0x11, addresses4, ssl(7, unverified, tlv(0x21, "TLSv1.3"), tlv(0x22, "root"))),
		tcp4Vars + byTCP + "SSL_PROTOCOL=TLSv1.3|",
	},
	{
		"v2 with a name and no certificate", v2(0x21, 0x11, addresses4, ssl(1, verified, tlv(0x21, "TLSv1.3"), tlv(0x22, "root"))),
		tcp4Vars + byTCP + "SSL_PROTOCOL=TLSv1.3|",
	},
	{
		"v2 with TLS that is none", v2(0x21, 0x11, addresses4, ssl(0, verified, tlv(0x23, "x"))),
		tcp4Vars + byTCP,
	},
	{
		"v2 with values that smuggle", v2(0x21, 0x11, addresses4, tlv(2, "a\x00PATH=/tmp"), ssl(7, verified, tlv(0x21, "TLS\nv1"), tlv(0x23, "\x1b[2J"), tlv(0x22, "x\x00IFS=x"))),
		tcp4Vars + byTCP,
	},
	{
		"v2 with values that are too long", v2(0x21, 0x11, addresses4, tlv(2, strings.Repeat("a", 256)), ssl(7, verified, tlv(0x21, "TLSv1.3"), tlv(0x22, strings.Repeat("a", 256)))),
		tcp4Vars + byTCP + "SSL_PROTOCOL=TLSv1.3|",
	},
	{"v2 with a name that is a path", v2(0x21, 0x11, addresses4, tlv(2, "../etc")), tcp4Vars + byTCP},
	{"v2 with a name that is an option", v2(0x21, 0x11, addresses4, tlv(2, "-rf")), tcp4Vars + byTCP},
}

var own = fdinfo.Conn{
	Local:  fdinfo.Address{IP: netip.MustParseAddrPort("10.0.0.2:8080")},
	Remote: fdinfo.Address{IP: netip.MustParseAddrPort("10.0.0.1:4000")},
}

func varsOf(h proxyHeader, own fdinfo.Conn) string {
	conn := h.conn(own)
	return strings.ReplaceAll(string(h.appendVars(conn.AppendVars(nil), own)), "\x00", "|")
}

// connections makes the connections that headers are read from.
var connections = []struct {
	name string
	make func(t testing.TB) (balancer, ours *fdtest.End)
}{
	{"TCP", tcpPair},
	{"Unix", func(t testing.TB) (balancer, ours *fdtest.End) { return fdtest.Pair(t, unix.SOCK_STREAM) }},
}

func tcpPair(t testing.TB) (balancer, ours *fdtest.End) {
	t.Helper()
	ls, err := Listen(Address{Kind: TCP, Host: "127.0.0.1"}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer ls[0].Close()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	balancer = &fdtest.End{FD: fd}
	t.Cleanup(balancer.Close)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: int(ls[0].Port())}); err != nil {
		t.Fatal(err)
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	var c Conn
	if err := ls[0].Accept(&c); err != nil {
		t.Fatal(err)
	}
	ours = &fdtest.End{FD: c.FD}
	t.Cleanup(ours.Close)
	return balancer, ours
}

func write(t testing.TB, e *fdtest.End, text string) {
	t.Helper()
	for len(text) > 0 {
		n, err := unix.Write(e.FD, []byte(text))
		if err != nil {
			t.Fatalf("write: %v", err)
		}
		text = text[n:]
	}
}

// rest returns what is left in the connection, whose other end is closed.
func rest(t testing.TB, e *fdtest.End) string {
	t.Helper()
	var all []byte
	buf := make([]byte, 8192)
	for {
		n, err := unix.Read(e.FD, buf)
		if err != nil {
			t.Fatalf("read: %v", err)
		}
		if n == 0 {
			return string(all)
		}
		all = append(all, buf[:n]...)
	}
}

func isBlocking(t testing.TB, e *fdtest.End) {
	t.Helper()
	if flags, err := unix.FcntlInt(uintptr(e.FD), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
		t.Errorf("the flags of the connection are %#x, %v; want no O_NONBLOCK", flags, err)
	}
}

type result struct {
	header proxyHeader
	err    error
}

// reading calls readProxyHeader in the background.
func reading(ctx context.Context, e *fdtest.End, limit time.Duration) <-chan result {
	results := make(chan result, 1)
	go func() {
		h, err := readProxyHeader(ctx, e.FD, limit)
		results <- result{h, err}
	}()
	return results
}

// waiting waits until a goroutine waits for a header.
func waiting(t testing.TB) {
	t.Helper()
	fdtest.Eventually(t, "readProxyHeader waits", func() bool {
		return fdtest.Inside("listen.receiveProxyHeader", "runtime_pollWait") || fdtest.Inside("listen.receiveProxyHeader", "waitRead")
	})
}

func TestProxyHeader(t *testing.T) {
	fdtest.NoLeaks(t)
	const data = "data\r\nPROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n"
	for _, c := range connections {
		for _, test := range headers {
			t.Run(c.name+"/"+test.about, func(t *testing.T) {
				check := func(got result, ours *fdtest.End, wantRest string) {
					t.Helper()
					if got.err != nil {
						t.Fatalf("readProxyHeader(%q) = %v", test.header, got.err)
					}
					if vars := varsOf(got.header, own); vars != test.want {
						t.Errorf("readProxyHeader(%q)\n gives %s\nwant %s", test.header, vars, test.want)
					}
					isBlocking(t, ours)
					if left := rest(t, ours); left != wantRest {
						t.Errorf("readProxyHeader(%q) leaves %q in the socket, want %q", test.header, left, wantRest)
					}
				}
				balancer, ours := c.make(t)
				write(t, balancer, test.header) // at once, and no data
				got := <-reading(t.Context(), ours, fdtest.Limit)
				balancer.Close()
				check(got, ours, "")

				balancer, ours = c.make(t)
				write(t, balancer, test.header+data)
				balancer.Close()
				check(<-reading(t.Context(), ours, fdtest.Limit), ours, data)

				balancer, ours = c.make(t)
				results := reading(t.Context(), ours, fdtest.Limit)
				waiting(t)
				for i := range len(test.header) - 1 {
					write(t, balancer, test.header[i:i+1])
					if i%16 == 0 {
						runtime.Gosched()
					}
				}
				write(t, balancer, test.header[len(test.header)-1:]+data)
				got = fdtest.Soon(t, "the header's end", results)
				balancer.Close()
				check(got, ours, data)
			})
		}
	}
}

// TestProxyHeaderOfUnix is about balancers that come by a Unix socket.
func TestProxyHeaderOfUnix(t *testing.T) {
	h, err := parseProxyHeader([]byte("PROXY TCP4 192.0.2.1 198.51.100.2 5000 80\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	balancer := fdinfo.Conn{Local: fdinfo.Address{Unix: true, Path: "/run/s"}, Remote: fdinfo.Address{Unix: true}, Peer: &unix.Ucred{Pid: 1}}
	if got, want := varsOf(h, balancer), tcp4Vars+"UNIXPROXYLOCALPATH=/run/s|"; got != want {
		t.Errorf("the variables are %s, want %s", got, want)
	}
	balancer.Remote.Path = "@b"
	if got, want := varsOf(h, balancer), tcp4Vars+"UNIXPROXYPATH=@b|UNIXPROXYLOCALPATH=/run/s|"; got != want {
		t.Errorf("the variables are %s, want %s", got, want)
	}
	if got, want := varsOf(proxyHeader{}, balancer), "PROTO=UNIX|UNIXLOCALPATH=/run/s|UNIXREMOTEPATH=@b|UNIXREMOTEEUID=0|UNIXREMOTEEGID=0|UNIXREMOTEPID=1|"; got != want {
		t.Errorf("the variables without a client are %s, want %s", got, want)
	}
}

func TestProxyHeaderMalformed(t *testing.T) {
	fdtest.NoLeaks(t)
	for _, test := range []struct{ about, sent, want string }{
		{"HTTP", "GET / HTTP/1.1\r\n\r\n", `it begins with "GET / HTTP/1"`},
		{"one byte", "x", `it begins with "x"`},
		{"nearly v1", "PROXYTCP4", `it begins with "PROXYTCP4"`},
		{"nearly v2", proxyV2[:11] + "x", `it begins with "\r\n\r\n\x00\r\nQUITx"`},
		{"v1, 108 bytes", "PROXY UNKNOWN " + strings.Repeat("f", 92) + "\r\n", "no line of at most 107 bytes"},
		{"v1 without an end", "PROXY TCP4 " + strings.Repeat("1", 200), "no line of at most 107 bytes"},
		{"v1 without CR", "PROXY TCP4 192.0.2.1 198.51.100.2 5000 80\n", "the line does not end with CR LF"},
		{"v1, nothing known", "PROXY \r\n", "address family"},
		{"v1, another family", "PROXY UDP4 192.0.2.1 198.51.100.2 5000 80\r\n", "address family"},
		{"v1, wrong family", "PROXY TCP4 ::1 ::1 5000 80\r\n", "invalid address"},
		{"v1, wrong port", "PROXY TCP4 192.0.2.1 198.51.100.2 65536 80\r\n", "invalid port number"},
		{"v1, a name", "PROXY TCP4 localhost 198.51.100.2 1 80\r\n", "invalid address"},
		{"v1, a zone", "PROXY TCP6 fe80::1%eth0 ::1 1 80\r\n", "invalid address"},
		{"v2, version 3", v2(0x31, 0x11, addresses4), "version and command"},
		{"v2, another command", v2(0x22, 0x11, addresses4), "version and command"},
		{"v2, another family", v2(0x21, 0x41, addresses4), "address family"},
		{"v2, nothing known", v2(0x21, 0x00), "address family"},
		{"v2, too short", v2(0x21, 0x21, addresses4), "invalid length"},
		{"v2, too long", v2(0x21, 0x11, addresses4, tlv(4, strings.Repeat("\x00", 4096-12-2))), "it has 4097 bytes"},
		{"v2, a TLV cut off", v2(0x21, 0x11, addresses4, "\x02\x00\x05abc"), "truncated TLV"},
	} {
		t.Run(test.about, func(t *testing.T) {
			for _, c := range connections {
				balancer, ours := c.make(t)
				write(t, balancer, test.sent)
				// The other end stays open: nothing waits for more.
				got := fdtest.Soon(t, "an error", reading(t.Context(), ours, time.Hour))
				if !errors.Is(got.err, ErrProxyMalformed) || !strings.Contains(got.err.Error(), test.want) || strings.Contains(got.err.Error(), "strconv") {
					t.Errorf("%s: readProxyHeader(%q) = %+v, %v; want a malformed header: %s", c.name, test.sent, got.header, got.err, test.want)
				}
				isBlocking(t, ours)
			}
		})
	}
}

func TestProxyHeaderThatDoesNotCome(t *testing.T) {
	fdtest.NoLeaks(t)
	whole := v2(0x21, 0x11, addresses4)
	for _, c := range connections {
		for _, sent := range []string{"", "P", "PROXY TCP4 192.0.2.1", whole[:5], whole[:16], whole[:len(whole)-1]} {
			balancer, ours := c.make(t)
			write(t, balancer, sent)
			const limit = 20 * time.Millisecond
			begin := time.Now()
			_, err := readProxyHeader(t.Context(), ours.FD, limit)
			if took := time.Since(begin); !errors.Is(err, ErrProxyTimeout) || !strings.Contains(err.Error(), "within 20ms") || took < limit {
				t.Errorf("%s: readProxyHeader after %q = %v, after %v; want no header within %v", c.name, sent, err, took, limit)
			}
			isBlocking(t, ours)

			ctx, cancel := context.WithCancel(t.Context())
			balancer, ours = c.make(t)
			write(t, balancer, sent)
			results := reading(ctx, ours, time.Hour)
			waiting(t)
			cancel()
			if got := fdtest.Soon(t, "the end of waiting", results); !errors.Is(got.err, ErrStopped) {
				t.Errorf("%s: readProxyHeader after %q, stopped, = %v; want ErrStopped", c.name, sent, got.err)
			}
			isBlocking(t, ours)
			if _, err := readProxyHeader(ctx, ours.FD, time.Hour); !errors.Is(err, ErrStopped) {
				t.Errorf("%s: readProxyHeader after the end = %v; want ErrStopped", c.name, err)
			}

			balancer, ours = c.make(t)
			write(t, balancer, sent)
			results = reading(t.Context(), ours, time.Hour)
			waiting(t)
			balancer.Close()
			if got := fdtest.Soon(t, "the connection's end", results); !errors.Is(got.err, ErrProxyEnded) {
				t.Errorf("%s: readProxyHeader after %q and the end = %v; want ErrProxyEnded", c.name, sent, got.err)
			}
			isBlocking(t, ours)
		}
	}
}

func TestProxyHeaderReset(t *testing.T) {
	fdtest.NoLeaks(t)
	balancer, ours := tcpPair(t)
	write(t, balancer, "PROXY TCP4")
	results := reading(t.Context(), ours, time.Hour)
	waiting(t)
	if err := unix.SetsockoptLinger(balancer.FD, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		t.Fatal(err)
	}
	balancer.Close()
	got := fdtest.Soon(t, "the connection's end", results)
	if !errors.Is(got.err, ErrProxyEnded) || !errors.Is(got.err, unix.ECONNRESET) {
		t.Errorf("readProxyHeader of a connection that is reset = %v; want ErrProxyEnded and ECONNRESET", got.err)
	}
	isBlocking(t, ours)
}

func TestProxyHeaderOutOfDescriptors(t *testing.T) {
	balancer, ours := tcpPair(t)
	write(t, balancer, "PROXY UNKNOWN\r\n")
	<-reading(t.Context(), ours, time.Nanosecond) // the poller has opened what it needs
	restore := fdtest.FewFiles(t, 0)
	if _, err := readProxyHeader(t.Context(), ours.FD, time.Hour); !errors.Is(err, unix.EMFILE) || !isShortage(err) {
		t.Errorf("readProxyHeader = %v; want EMFILE, which is temporary", err)
	}
	restore()
	if _, err := readProxyHeader(t.Context(), ours.FD, time.Hour); err != nil {
		t.Errorf("readProxyHeader after that = %v, want the header that is still there", err)
	}
}

// TestProxyHeadersHoldNoThreads lets a thousand connections wait at once.
func TestProxyHeadersHoldNoThreads(t *testing.T) {
	fdtest.NoLeaks(t)
	const n = 1000
	threads := func() int {
		names, err := filepath.Glob("/proc/self/task/*")
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	before := threads()
	errs := make(chan error, n)
	var balancers, all []*fdtest.End
	for range n {
		balancer, ours := fdtest.Pair(t, unix.SOCK_STREAM)
		balancers, all = append(balancers, balancer), append(all, ours)
		write(t, balancer, "PROXY")
		go func() {
			_, err := readProxyHeader(ctx, ours.FD, time.Hour)
			errs <- err
		}()
	}
	fdtest.Eventually(t, "the beginnings of all headers are read", func() bool {
		return !slices.ContainsFunc(all, func(e *fdtest.End) bool {
			unread, err := unix.IoctlGetInt(e.FD, unix.SIOCINQ)
			return err != nil || unread > 0
		})
	})
	if now := threads(); now > before+n/4 {
		t.Errorf("%d threads run while %d headers are waited for, %d did before", now, n, before)
	}
	for _, b := range balancers[:n/2] {
		write(t, b, " UNKNOWN\r\n")
	}
	for range n / 2 {
		if err := fdtest.Soon(t, "a header", errs); err != nil {
			t.Fatalf("readProxyHeader = %v, want nil", err)
		}
	}
	cancel()
	for range n / 2 {
		if err := fdtest.Soon(t, "the end of waiting", errs); !errors.Is(err, ErrStopped) {
			t.Fatalf("readProxyHeader = %v, want ErrStopped", err)
		}
	}
}

// FuzzProxyHeader sends anything, at once and in two pieces. Whatever it is, reading
// ends, takes no byte behind the header, and agrees with the library that reads from a
// buffer.
func FuzzProxyHeader(f *testing.F) {
	for _, h := range headers {
		f.Add([]byte(h.header+"data"), uint16(len(h.header)/2))
	}
	f.Add([]byte("GET / HTTP/1.0\r\n\r\n"), uint16(3))
	f.Add([]byte("PROXY TCP4 1.1.1.1 1.1.1.1 1 1\n"), uint16(0))
	f.Fuzz(func(t *testing.T, sent []byte, pause uint16) {
		sent = sent[:min(len(sent), 10000)] // for which a socket's buffer has room
		balancer, ours := fdtest.Pair(t, unix.SOCK_STREAM)
		write(t, balancer, string(sent))
		balancer.Close()
		header, err := readProxyHeader(t.Context(), ours.FD, fdtest.Limit)
		isBlocking(t, ours)
		left := rest(t, ours)
		ours.Close()

		balancer, ours = fdtest.Pair(t, unix.SOCK_STREAM)
		r := headerReader{buf: make([]byte, 0, usual)}
		first := min(int(pause), len(sent))
		write(t, balancer, string(sent[:first]))
		done := r.read(ours.FD)
		write(t, balancer, string(sent[first:]))
		balancer.Close()
		if !done && !r.read(ours.FD) {
			t.Fatalf("reading %q, that after %d bytes waits, waits at the end", sent, first)
		}
		if again := rest(t, ours); err == nil && (r.err != nil || again != left) {
			t.Fatalf("reading %q leaves %q; in two pieces, of which the first has %d bytes, %q, %v", sent, left, first, again, r.err)
		}
		ours.Close()

		reader := bufio.NewReaderSize(bytes.NewReader(sent), 1<<14)
		want, libraryErr := proxyproto.Read(reader)
		if libraryErr == nil && want.Command.IsProxy() {
			_, libraryErr = want.TLVs()
		}
		switch {
		case (err == nil) != (libraryErr == nil):
			t.Fatalf("readProxyHeader(%q) = %v, the library says %v", sent, err, libraryErr)
		case err == nil:
		case errors.Is(err, ErrProxyMalformed), errors.Is(err, ErrProxyEnded):
			return
		default:
			t.Fatalf("readProxyHeader(%q) = %v; want ErrProxyMalformed or ErrProxyEnded", sent, err)
		}
		if behind, _ := io.ReadAll(reader); string(behind) != left {
			t.Fatalf("readProxyHeader(%q) leaves %q, the library %q", sent, left, behind)
		}
		if a, ok := want.SourceAddr.(*net.TCPAddr); ok && want.Command.IsProxy() && header.client.IP != netip.AddrPortFrom(a.AddrPort().Addr().Unmap(), a.AddrPort().Port()) {
			t.Fatalf("readProxyHeader(%q) gives the client %v, the library %v", sent, header.client, a)
		}
		if vars := varsOf(header, own); strings.ContainsAny(vars, "\n\r\x1b") || len(vars) > 2500 {
			t.Fatalf("readProxyHeader(%q) gives the variables %q", sent, vars)
		}
	})
}

func TestTrust(t *testing.T) {
	var trust Trust
	for _, text := range []string{"10.0.0.0/8", "192.0.2.1", "2001:db8::/32", "fe80::1", "192.0.2.1"} {
		if err := trust.Add(text); err != nil {
			t.Fatalf("Add(%q) = %v", text, err)
		}
	}
	if len(trust.Prefixes) != 4 {
		t.Errorf("the prefixes are %v, want 4 of them", trust.Prefixes)
	}
	unixClient, unknown := fdinfo.Address{Unix: true}, fdinfo.Address{}
	for _, test := range []struct {
		client fdinfo.Address
		want   bool
	}{
		{ip("10.255.255.255"), true},
		{ip("11.0.0.0"), false},
		{ip("192.0.2.1"), true},
		{ip("192.0.2.2"), false},
		{ip("2001:db8:1::1"), true},
		{ip("2001:db9::"), false},
		{ip("fe80::1%3"), true},
		{ip("::"), false},
		{unixClient, false},
		{unknown, false},
	} {
		if got := trust.Has(test.client); got != test.want {
			t.Errorf("Has(%v) = %v, want %v", test.client, got, test.want)
		}
	}
	if err := trust.Add("unix"); err != nil || !trust.Has(unixClient) || trust.Has(unknown) {
		t.Errorf("after Add(unix) = %v, Has of a Unix client = %v, of an unknown one %v; want nil, true, false", err, trust.Has(unixClient), trust.Has(unknown))
	}
	if err := trust.Add("0.0.0.0/0"); err != nil || !trust.Has(ip("11.0.0.0")) || trust.Has(ip("::")) || trust.Has(unknown) {
		t.Errorf("after Add(0.0.0.0/0) = %v the set %+v has not all of IPv4, or more", err, trust)
	}
	if (Trust{}).Has(unixClient) || (Trust{}).Has(ip("127.0.0.1")) {
		t.Error("the zero Trust has somebody")
	}
}

func ip(text string) fdinfo.Address {
	return fdinfo.Address{IP: netip.AddrPortFrom(netip.MustParseAddr(text), 1)}
}

func TestTrustErrors(t *testing.T) {
	for _, test := range []struct{ text, want, hint string }{
		{"", `"" is no IP address`, ""},
		{"localhost", `"localhost" is no IP address, no prefix such as 10.0.0.0/8, and not unix`, ""},
		{"10.0.0.0/33", "is no IP address", ""},
		{"10.0.0.0/08", "is no IP address", ""},
		{"10.0.0.0/8,127.0.0.1", "is no IP address", ""},
		{"10.0.0", "is no IP address", ""},
		{"127.0.0.1:80", "is no IP address", ""},
		{"Unix", "not unix", ""},
		{"10.1.2.3/8", `"10.1.2.3/8" has bits behind the prefix`, "the prefix is 10.0.0.0/8, the address alone 10.1.2.3"},
		{"::1/0", "has bits behind the prefix", "the prefix is ::/0, the address alone ::1"},
		{"fe80::1%eth0", `"fe80::1%eth0" has a zone`, "fe80::1 is that address"},
		{"::ffff:10.0.0.1", "is an IPv4 address in IPv6 form", "write it as 10.0.0.1"},
	} {
		var trust Trust
		err := trust.Add(test.text)
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(hint.Of(err), test.hint) || (hint.Of(err) == "") != (test.hint == "") {
			t.Errorf("Add(%q) = %v (hint %q); want an error that says %q (hint %q)", test.text, err, hint.Of(err), test.want, test.hint)
		}
		if len(trust.Prefixes) > 0 || trust.Unix {
			t.Errorf("Add(%q) fails and adds %+v", test.text, trust)
		}
	}
}
