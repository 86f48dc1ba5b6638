//go:build linux

package fdinfo_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdinfo"
	"fdkit/internal/fdtest"
	"fdkit/internal/scm"
)

// ipv4, ipv6 and local make addresses as the kernel writes them.
func ipv4(ip [4]byte, port uint16) (s fdinfo.Sockaddr) {
	sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(&s.Any))
	sa.Family, sa.Addr, sa.Port = unix.AF_INET, ip, port>>8|port<<8
	s.Len = unix.SizeofSockaddrInet4
	return s
}

func ipv6(ip string, port uint16, scope uint32) (s fdinfo.Sockaddr) {
	sa := (*unix.RawSockaddrInet6)(unsafe.Pointer(&s.Any))
	sa.Family, sa.Addr, sa.Port, sa.Scope_id = unix.AF_INET6, netip.MustParseAddr(ip).As16(), port>>8|port<<8, scope
	s.Len = unix.SizeofSockaddrInet6
	return s
}

func local(path string) (s fdinfo.Sockaddr) {
	sa := (*unix.RawSockaddrUnix)(unsafe.Pointer(&s.Any))
	sa.Family = unix.AF_UNIX
	for i, c := range []byte(path) {
		sa.Path[i] = int8(c)
	}
	s.Len = uint32(2 + len(path))
	return s
}

func TestAddress(t *testing.T) {
	longest := "/" + strings.Repeat("x", 107) // without a final NUL: 108 bytes
	for _, test := range []struct {
		about string
		from  fdinfo.Sockaddr
		want  string
	}{
		{"IPv4", ipv4([4]byte{192, 0, 2, 1}, 80), "192.0.2.1:80"},
		{"IPv4, byte order of the port", ipv4([4]byte{0, 0, 0, 0}, 0x1234), "0.0.0.0:4660"},
		{"IPv6", ipv6("2001:db8::1", 443, 0), "[2001:db8::1]:443"},
		{"IPv6, all", ipv6("::", 0, 0), "[::]:0"},
		{"IPv4-mapped", ipv6("::ffff:192.0.2.1", 65535, 0), "192.0.2.1:65535"},
		{"IPv4-mapped, with a zone", ipv6("::ffff:192.0.2.1", 1, 7), "192.0.2.1:1"},
		{"link-local", ipv6("fe80::1", 80, 3), "[fe80::1%3]:80"},
		{"path with its NUL", local("/run/a.sock\x00"), "unix:/run/a.sock"},
		{"path without a NUL", local("/run/a.sock"), "unix:/run/a.sock"},
		{"longest path", local(longest), "unix:" + longest},
		{"path with leftovers", local("/run/a\x00.sock"), "unix:/run/a"},
		{"abstract", local("\x00name"), "unix:@name"},
		{"abstract, one byte", local("\x00"), "unix:@"},
		{"abstract with NULs", local("\x00a\x00PROTO=TCP\x00"), "unix:@a@PROTO=TCP@"},
		{"unnamed", local(""), "unix:"},
		{"unknown family", fdinfo.Sockaddr{Any: unix.RawSockaddrAny{Addr: unix.RawSockaddr{Family: unix.AF_NETLINK}}, Len: 12}, "unknown"},
		{"nothing", fdinfo.Sockaddr{}, "unknown"},
	} {
		t.Run(test.about, func(t *testing.T) {
			if got := test.from.Address().String(); got != test.want {
				t.Errorf("Address() = %q, want %q", got, test.want)
			}
		})
	}
}

func address(text string) fdinfo.Address { return fdinfo.Address{IP: netip.MustParseAddrPort(text)} }

func TestAppendVars(t *testing.T) {
	peer := &unix.Ucred{Pid: 12, Uid: 1000, Gid: 100}
	for _, test := range []struct {
		about string
		conn  fdinfo.Conn
		want  string
	}{
		{
			"IPv4",
			fdinfo.Conn{Local: address("127.0.0.1:80"), Remote: address("192.0.2.1:5000")},
			"PROTO=TCP|TCPLOCALIP=127.0.0.1|TCPLOCALPORT=80|TCPREMOTEIP=192.0.2.1|TCPREMOTEPORT=5000|REMOTE_ADDR=192.0.2.1|REMOTE_PORT=5000|",
		},
		{
			"IPv6",
			fdinfo.Conn{Local: address("[::1]:80"), Remote: address("[2001:db8::1]:5000")},
			"PROTO=TCP|TCPLOCALIP=::1|TCPLOCALPORT=80|TCPREMOTEIP=2001:db8::1|TCPREMOTEPORT=5000|REMOTE_ADDR=2001:db8::1|REMOTE_PORT=5000|",
		},
		{
			"reset meanwhile",
			fdinfo.Conn{Local: address("127.0.0.1:80")},
			"PROTO=TCP|TCPLOCALIP=127.0.0.1|TCPLOCALPORT=80|",
		},
		{
			"Unix",
			fdinfo.Conn{Local: fdinfo.Address{Unix: true, Path: "/run/a"}, Remote: fdinfo.Address{Unix: true}, Peer: peer},
			"PROTO=UNIX|UNIXLOCALPATH=/run/a|UNIXREMOTEEUID=1000|UNIXREMOTEEGID=100|UNIXREMOTEPID=12|",
		},
		{
			"Unix, the client bound",
			fdinfo.Conn{Local: fdinfo.Address{Unix: true, Path: "@a"}, Remote: fdinfo.Address{Unix: true, Path: "/tmp/c"}},
			"PROTO=UNIX|UNIXLOCALPATH=@a|UNIXREMOTEPATH=/tmp/c|",
		},
		{
			"Unix, another PID namespace",
			fdinfo.Conn{Local: fdinfo.Address{Unix: true}, Peer: &unix.Ucred{Uid: 0, Gid: 0}},
			"PROTO=UNIX|UNIXREMOTEEUID=0|UNIXREMOTEEGID=0|",
		},
		{"nothing is known", fdinfo.Conn{}, ""},
	} {
		t.Run(test.about, func(t *testing.T) {
			got := strings.ReplaceAll(string(test.conn.AppendVars(nil)), "\x00", "|")
			if got != test.want {
				t.Errorf("AppendVars of %+v\n got %s\nwant %s", test.conn, got, test.want)
			}
		})
	}
}

// raw returns the descriptor of a Go connection, for as long as the test runs.
func raw(t *testing.T, c interface{ File() (*os.File, error) }) int {
	t.Helper()
	f, err := c.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return int(f.Fd())
}

func TestConnectionTCP(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	c, ok := fdinfo.Connection(raw(t, server.(*net.TCPConn)))
	if !ok || c.Local.String() != l.Addr().String() || c.Remote.String() != client.LocalAddr().String() || c.Peer != nil {
		t.Errorf("Connection() = %+v, %v; want from %v to %v, true", c, ok, client.LocalAddr(), l.Addr())
	}
}

func TestConnectionUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	// A client that would like to be taken for another one.
	evil := fmt.Sprintf("@fdkit-%d\x00UNIXREMOTEEUID=4242\x00TCPREMOTEIP=127.0.0.1", os.Getpid())
	client, err := net.DialUnix("unix", &net.UnixAddr{Name: evil}, &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	c, ok := fdinfo.Connection(raw(t, server))
	if !ok || c.Local.Path != path || c.Peer == nil || int(c.Peer.Pid) != os.Getpid() || int(c.Peer.Uid) != os.Geteuid() {
		t.Errorf("Connection() = %+v, %v; want from this process to %s, true", c, ok, path)
	}
	vars := map[string]string{}
	for name, value := range scm.Vars(c.AppendVars([]byte(scm.Begin))) {
		if _, twice := vars[name]; twice {
			t.Errorf("variable %s comes twice", name)
		}
		vars[name] = value
	}
	if vars["UNIXREMOTEEUID"] != fmt.Sprint(os.Geteuid()) || vars["TCPREMOTEIP"] != "" {
		t.Errorf("the variables are %q, want none that the client's name smuggles in", vars)
	}
}

func TestConnectionPair(t *testing.T) {
	a, _ := fdtest.Pair(t, unix.SOCK_STREAM)
	c, ok := fdinfo.Connection(a.FD)
	if !ok || c.Local.String() != "unix:" || c.Remote.String() != "unix:" || c.Peer == nil || int(c.Peer.Pid) != os.Getpid() {
		t.Errorf("Connection of a socket pair = %+v, %v; want unnamed ends and this process as the peer", c, ok)
	}
}

func TestConnectionOfDatagrams(t *testing.T) {
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if c, ok := fdinfo.Connection(raw(t, conn.(*net.UDPConn))); ok {
		t.Errorf("Connection of a UDP socket = %+v, true; want false", c)
	}
}

func TestConnectionOfNone(t *testing.T) {
	r, _ := fdtest.Pipe(t)
	if c, ok := fdinfo.Connection(r.FD); ok {
		t.Errorf("Connection of a pipe = %+v, true; want false", c)
	}
	if c, ok := fdinfo.Connection(-1); ok {
		t.Errorf("Connection of -1 = %+v, true; want false", c)
	}
}

func TestNothingIsAllocated(t *testing.T) {
	conn := fdinfo.Conn{Local: address("127.0.0.1:80"), Remote: address("[2001:db8::1]:5000")}
	buf := make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(100, func() { buf = conn.AppendVars(buf[:0]) }); n != 0 {
		t.Errorf("AppendVars allocates %v times, want 0", n)
	}
}
