//go:build linux

package sockdiag

import (
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
)

func open(t *testing.T) *Conn {
	t.Helper()
	c, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestInet(t *testing.T) {
	fdtest.NoLeaks(t)
	c := open(t)
	client, server := fdtest.TCPPair(t)
	all, err := c.Inet(unix.IPPROTO_TCP, false)
	if err != nil {
		t.Fatal(err)
	}
	by := func(fd int) Inet {
		var s unix.Stat_t
		if err := unix.Fstat(fd, &s); err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(all, func(a Inet) bool { return a.Inode == s.Ino })
		if i < 0 {
			t.Fatalf("the socket of inode %d is not among %d", s.Ino, len(all))
		}
		return all[i]
	}
	a, b := by(client.FD), by(server.FD)
	if a.Local != b.Remote || a.Remote != b.Local || !a.Local.Addr().Is4() || a.Listening || a.Family != unix.AF_INET {
		t.Errorf("the ends are %+v and %+v; want each other's", a, b)
	}
}

func TestInetListening(t *testing.T) {
	c := open(t)
	for address, want := range map[string]Inet{
		"127.0.0.1:0": {Family: unix.AF_INET, Listening: true},
		"[::1]:0":     {Family: unix.AF_INET6, Listening: true, OnlyIPv6: true},
		"[::]:0":      {Family: unix.AF_INET6, Listening: true},
	} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			fdtest.Lacks(t, "%v", err)
		}
		defer l.Close()
		at := netip.MustParseAddrPort(l.Addr().String())
		all, err := c.Inet(unix.IPPROTO_TCP, true)
		i := slices.IndexFunc(all, func(s Inet) bool { return s.Local == at })
		if err != nil || i < 0 {
			t.Fatalf("of %d sockets none listens at %v (%v)", len(all), at, err)
		}
		if got := all[i]; got.Family != want.Family || !got.Listening || got.Inode == 0 || address == "[::]:0" && got.OnlyIPv6 {
			t.Errorf("at %s listens %+v; want %+v", address, got, want)
		}
	}
	u, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	all, err := c.Inet(unix.IPPROTO_UDP, true)
	at := netip.MustParseAddrPort(u.LocalAddr().String())
	if err != nil || !slices.ContainsFunc(all, func(s Inet) bool { return s.Local == at }) {
		t.Errorf("of %d UDP sockets none is at %v (%v)", len(all), at, err)
	}
}

func TestUnix(t *testing.T) {
	fdtest.NoLeaks(t)
	c := open(t)
	path := filepath.Join(t.TempDir(), "s")
	for _, name := range []string{path, "@fdkit-sockdiag\x00test"} {
		l, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(l)
		if err := unix.Bind(l, &unix.SockaddrUnix{Name: name}); err != nil {
			t.Fatal(err)
		}
		if err := unix.Listen(l, 1); err != nil {
			t.Fatal(err)
		}
		var s, file unix.Stat_t
		if err := unix.Fstat(l, &s); err != nil {
			t.Fatal(err)
		}
		got, err := c.UnixSocket(s.Ino)
		want := Unix{Type: unix.SOCK_SEQPACKET, Name: name, Listening: true, Inode: s.Ino}
		if name == path {
			if err := unix.Stat(path, &file); err != nil {
				t.Fatal(err)
			}
			want.Dev, want.Ino = file.Dev, file.Ino
		} else {
			want.Name = "@fdkit-sockdiag@test"
		}
		if err != nil || got != want {
			t.Errorf("UnixSocket = %+v, %v; want %+v", got, err, want)
		}
		all, err := c.Unix()
		if err != nil || !slices.Contains(all, want) {
			t.Errorf("%+v is not among %d sockets (%v)", want, len(all), err)
		}
	}
	if _, err := c.UnixSocket(1<<32 - 2); !errors.Is(err, ErrNoSocket) {
		t.Errorf("UnixSocket of no socket = %v; want ErrNoSocket", err)
	}
}

// A socket that is none has no network namespace.
func TestOpenOf(t *testing.T) {
	fdtest.NoLeaks(t)
	r, _ := fdtest.Pipe(t)
	if c, err := OpenOf(r.FD); err == nil {
		c.Close()
		t.Error("OpenOf of a pipe succeeds")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte{1, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 'a'})
	f.Add(make([]byte, 80))
	f.Fuzz(func(t *testing.T, data []byte) {
		parseUnix(data)
		parseInet(data)
	})
}
