//go:build linux

package fdinfo

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
)

var loopback = [4]byte{127, 0, 0, 1}

func TestDescribeSocket(t *testing.T) {
	here := fmt.Sprintf(`peer is pid %d \(\S+\) uid %d`, os.Getpid(), os.Getuid())
	for _, test := range []struct {
		about, line, json string
		open              func(t *testing.T) int
	}{
		{
			about: "TCP, listening", line: `rw   tcp             listening at 127.0.0.1:\d+, backlog 1 of 7 \[cloexec nonblock\]`,
			json: `"listening":true,"local":"127.0.0.1:\d+","state":"listening","backlog":1,"backlog_limit":7`,
			open: func(t *testing.T) int {
				fd := listening(t, socket(t, unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0), &unix.SockaddrInet4{Addr: loopback}, 7)
				address, err := unix.Getsockname(fd)
				if err != nil {
					t.Fatal(err)
				}
				if err := unix.Connect(socket(t, unix.AF_INET, unix.SOCK_STREAM, 0), address); err != nil {
					t.Fatal(err)
				}
				return fd
			},
		},
		{
			about: "TCP, connected", line: `rw   tcp             127.0.0.1:\d+->127.0.0.1:\d+ established, 5 bytes unread \[cloexec\]`,
			json: `"protocol":"tcp","connected":true,"local":"127.0.0.1:\d+","peer":"127.0.0.1:\d+","state":"established","unread":5,"send_queue":0,"unsent":0,"rtt":[0-9.]+,"retransmits":0`,
			open: func(t *testing.T) int {
				client, server := fdtest.TCPPair(t)
				write(t, client.FD, "hello")
				fdtest.Eventually(t, "data has come", func() bool { return *ioctl(server.FD, unix.SIOCINQ) == 5 })
				return server.FD
			},
		},
		{
			about: "TCP, half closed", line: `rw   tcp             \S+->\S+ close-wait, receiving has ended \[cloexec\]`,
			json: `"ended":"receiving"`,
			open: func(t *testing.T) int {
				client, server := fdtest.TCPPair(t)
				if err := unix.Shutdown(client.FD, unix.SHUT_WR); err != nil {
					t.Fatal(err)
				}
				fdtest.Eventually(t, "the end has come", func() bool { return poll(server.FD) != 0 })
				return server.FD
			},
		},
		{
			about: "TCP that does nothing", line: `rw   tcp             0.0.0.0:0 closed \[cloexec\]`, json: `"state":"closed"`,
			open: func(t *testing.T) int { return socket(t, unix.AF_INET, unix.SOCK_STREAM, 0) },
		},
		{
			about: "IPv6", line: `rw   tcp6            listening at \[::1\]:\d+, backlog 0 of 7 \[cloexec\]`, json: `"family":"inet6"`,
			open: func(t *testing.T) int {
				fd := socket(t, unix.AF_INET6, unix.SOCK_STREAM, 0)
				return listening(t, fd, &unix.SockaddrInet6{Addr: [16]byte{15: 1}}, 7)
			},
		},
		{
			about: "UDP", line: `rw   udp             127.0.0.1:\d+, 3 bytes unread \[cloexec\]`, json: `"type":"dgram","protocol":"udp","local"`,
			open: func(t *testing.T) int {
				fd := socket(t, unix.AF_INET, unix.SOCK_DGRAM, 0)
				if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: loopback}); err != nil {
					t.Fatal(err)
				}
				address, err := unix.Getsockname(fd)
				if err != nil {
					t.Fatal(err)
				}
				other := socket(t, unix.AF_INET, unix.SOCK_DGRAM, 0)
				for _, text := range []string{"one", "second"} {
					if err := unix.Sendto(other, []byte(text), 0, address); err != nil {
						t.Fatal(err)
					}
				}
				fdtest.Eventually(t, "data has come", func() bool { return *ioctl(fd, unix.SIOCINQ) == 3 })
				return fd
			},
		},
		{
			about: "MPTCP", line: `rw   mptcp           0.0.0.0:0( closed)? \[cloexec\]`, json: `"protocol":"mptcp"`,
			open: func(t *testing.T) int { return socket(t, unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP) },
		},
		{
			about: "raw", line: `rw   raw-icmp        0.0.0.0:1 \[cloexec\]`, json: `"type":"raw","protocol":"icmp"`,
			open: func(t *testing.T) int { return socket(t, unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP) },
		},
		{
			about: "Unix, listening at a path with a line end", line: `rw   unix-stream     listening at unix:/.*/a\\nb \[cloexec\]`,
			json: `"listening":true,"local":"unix:/.*/a\\nb"`,
			open: func(t *testing.T) int {
				path := filepath.Join(t.TempDir(), "a\nb")
				return listening(t, socket(t, unix.AF_UNIX, unix.SOCK_STREAM, 0), &unix.SockaddrUnix{Name: path}, 7)
			},
		},
		{
			about: "Unix, abstract", line: `rw   unix-dgram      unix:@fdkit-\d+\\x1b@x \[cloexec\]`, json: `"local":"unix:@fdkit-\d+\\u001b@x"`,
			open: func(t *testing.T) int {
				fd := socket(t, unix.AF_UNIX, unix.SOCK_DGRAM, 0)
				if err := unix.Bind(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("@fdkit-%d\x1b\x00x", os.Getpid())}); err != nil {
					t.Fatal(err)
				}
				return fd
			},
		},
		{
			about: "Unix, a pair with a message and descriptors", line: `rw   unix-seqpacket  unnamed, ` + here + `, 2 bytes unread, 3 descriptors in the queue \[cloexec\]`,
			json: fmt.Sprintf(`"type":"seqpacket","connected":true,"peer_process":{"pid":%d,"uid":%d,"gid":%d,.*"unread":2,.*"descriptors":3`, os.Getpid(), os.Getuid(), os.Getgid()),
			open: func(t *testing.T) int {
				a, b := fdtest.Pair(t, unix.SOCK_SEQPACKET)
				if err := unix.Sendmsg(b.FD, []byte("hi"), unix.UnixRights(0, 0, 0), nil, 0); err != nil {
					t.Fatal(err)
				}
				return a.FD
			},
		},
		{
			about: "Unix, the other end", line: `rw   unix-stream     unnamed, ` + here + `, peer has not read all \[cloexec\]`, json: `"send_queue":\d+`,
			open: func(t *testing.T) int {
				a, _ := fdtest.Pair(t, unix.SOCK_STREAM)
				write(t, a.FD, "hi")
				return a.FD
			},
		},
		{
			about: "Unix, the peer has gone", line: `rw   unix-stream     unnamed, ` + here + `, has ended \[cloexec\]`, json: `"ended":"both"`,
			open: func(t *testing.T) int {
				a, b := fdtest.Pair(t, unix.SOCK_STREAM)
				b.Close()
				return a.FD
			},
		},
		{
			about: "netlink", line: `rw   netlink         route pid \d+ \[cloexec\]`, json: `"family":"netlink","type":"raw","protocol":"route"`,
			open: func(t *testing.T) int {
				fd := socket(t, unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
				if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
					t.Fatal(err)
				}
				return fd
			},
		},
		{
			about: "packet", line: `rw   packet-dgram    interface 0 protocol 0x0000 \[cloexec\]`, json: `"family":"packet"`,
			open: func(t *testing.T) int { return socket(t, unix.AF_PACKET, unix.SOCK_DGRAM, 0) },
		},
		{
			about: "vsock", line: `rw   vsock-stream    \*:\* \[cloexec\]`, json: `"family":"vsock"`,
			open: func(t *testing.T) int { return socket(t, unix.AF_VSOCK, unix.SOCK_STREAM, 0) },
		},
	} {
		t.Run(test.about, func(t *testing.T) {
			fdtest.NoLeaks(t)
			d, err := Describe(test.open(t))
			if err != nil {
				t.Fatalf("Describe() = %v; want no error", err)
			}
			if d.Kind != Socket {
				t.Errorf("Kind = %s; want socket", d.Kind)
			}
			check(t, d, test.line, test.json)
		})
	}
}

// The process at the other end may have ended, and its number be another's.
func TestPeerProcessEnded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	listener := listening(t, socket(t, unix.AF_UNIX, unix.SOCK_STREAM, 0), &unix.SockaddrUnix{Name: path}, 1)
	c := fdtest.Program(t, "look", "connect", path)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	closeLater(t, fd, err)
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	d, err := Describe(fd)
	if err != nil || d.Socket.PeerProcess == nil {
		t.Fatalf("Describe() = %+v, %v; want to hear of the peer", d, err)
	}
	p := d.Socket.PeerProcess
	// The kernel is asked, and not the code that is tested.
	pidfd, err := unix.GetsockoptInt(listener, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if err == unix.ENOPROTOOPT {
		t.Skip("this kernel has no SO_PEERPIDFD")
	}
	closeLater(t, pidfd, err)
	if p.Running == nil {
		t.Fatalf("the peer is %+v; want to hear whether it runs", p)
	}
	if p.PID != c.Process.Pid || *p.Running || p.Command != "" {
		t.Errorf("the peer is %+v, running %t; want process %d, which has ended", p, *p.Running, c.Process.Pid)
	}
	if line := d.Line(); !regexp.MustCompile(`peer is pid \d+ \(ended\)`).MatchString(line) {
		t.Errorf("Line() = %q; want it to tell that the peer has ended", line)
	}
}
