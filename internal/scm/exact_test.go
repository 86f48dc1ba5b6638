//go:build linux

package scm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
)

// received receives all that there is, each message as its length and how many
// descriptors came with it.
func received(t *testing.T, r *ExactReceiver) (all []string) {
	t.Helper()
	for {
		var m Message
		came, err := r.Receive(&m)
		switch {
		case err == io.EOF:
			return append(all, "end")
		case err != nil:
			t.Fatalf("Receive: %v", err)
		case !came:
			return all
		}
		all = append(all, fmt.Sprintf("%d+%d", len(m.Payload), len(m.FDs)))
		m.Close()
	}
}

func TestExactReceiver(t *testing.T) {
	const large = 100_000
	for _, c := range []struct {
		name string
		typ  int
		sent string // each LENGTH+DESCRIPTORS, or end
		want string
	}{
		{"bytes of a stream are one", unix.SOCK_STREAM, "4+0 3+0", "7+0"},
		{"descriptors stay apart from what is before", unix.SOCK_STREAM, "4+0 2+1 3+0", "4+0 2+1 3+0"},
		{"and from one another", unix.SOCK_STREAM, "1+1 1+2 1+3", "1+1 1+2 1+3"},
		{"several pieces before", unix.SOCK_STREAM, "4+0 5+0 2+1 9+0 1+253 end", "9+0 2+1 9+0 1+253 end"},
		{"one byte before", unix.SOCK_STREAM, "1+0 1+1", "1+0 1+1"},
		{"larger than a piece", unix.SOCK_STREAM, "60000+0 2+1 end", "60000+0 2+1 end"},
		{"the end of a stream", unix.SOCK_STREAM, "end", "end"},
		{"packets", unix.SOCK_SEQPACKET, "4+0 2+1 100000+2 1+0", "4+0 2+1 100000+2 1+0"},
		{"packets of no bytes", unix.SOCK_SEQPACKET, "0+0 0+1 0+0 end", "0+0 0+1 0+0 end"},
		{"a packet larger than the room", unix.SOCK_SEQPACKET, "200000+1 3+0 end", "200000+1 3+0 end"},
		{"datagrams", unix.SOCK_DGRAM, "0+0 200000+253 0+0", "0+0 200000+253 0+0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			fdtest.NoLeaks(t)
			a, b := fdtest.Pair(t, c.typ)
			r, err := NewExactReceiver(b.FD)
			if err != nil {
				t.Fatal(err)
			}
			if err := unix.SetsockoptInt(a.FD, unix.SOL_SOCKET, unix.SO_SNDBUF, 4*large); err != nil {
				t.Fatal(err)
			}
			s := NewSender(a.FD, nil)
			for message := range strings.FieldsSeq(c.sent) {
				if message == "end" {
					a.Close()
					continue
				}
				var size, fds int
				if _, err := fmt.Sscanf(message, "%d+%d", &size, &fds); err != nil {
					t.Fatal(err)
				}
				if err := s.Transmit(bytes.Repeat([]byte("x"), size), make([]int, fds), nil); err != nil {
					t.Fatalf("Transmit of %s: %v", message, err)
				}
			}
			if got := strings.Join(received(t, r), " "); got != c.want {
				t.Errorf("sent %s, received %s; want %s", c.sent, got, c.want)
			}
		})
	}
}

func TestExactReceiverLost(t *testing.T) {
	fdtest.NoLeaks(t)
	a, b := fdtest.Pair(t, unix.SOCK_STREAM)
	r, err := NewExactReceiver(b.FD)
	if err != nil {
		t.Fatal(err)
	}
	s := NewSender(a.FD, nil)
	for range 2 {
		if err := s.Send([]byte("xyz"), 0, 1, 2); err != nil {
			t.Fatal(err)
		}
	}
	restore := fdtest.FewFiles(t, 1)
	var m Message
	_, err = r.Receive(&m)
	if _, lost := errors.AsType[*LostError](err); !lost {
		t.Fatalf("Receive of 3 descriptors with room for 1: %v; want a LostError", err)
	}
	restore()
	if got := received(t, r); len(got) != 1 || got[0] != "3+3" {
		t.Errorf("after that, received %v; want 3+3", got)
	}
}

func TestSource(t *testing.T) {
	fdtest.NoLeaks(t)
	dir := t.TempDir()
	sockets := map[string]int{}
	for _, name := range []string{"server", "client", ""} {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if name != "" {
			if err := unix.Bind(fd, &unix.SockaddrUnix{Name: dir + "/" + name}); err != nil {
				t.Fatal(err)
			}
		}
		sockets[name] = fd
	}
	r, err := NewExactReceiver(sockets["server"])
	if err != nil {
		t.Fatal(err)
	}
	var m Message
	for _, name := range []string{"client", "", "client"} {
		s := NewSender(sockets[name], nil)
		s.To(dir + "/server")
		if err := s.Transmit([]byte("hello"), nil, nil); err != nil {
			t.Fatalf("Transmit to the server: %v", err)
		}
		if came, err := r.Receive(&m); !came || err != nil {
			t.Fatalf("Receive = %t, %v", came, err)
		}
		switch source := strings.TrimSuffix(r.Source(), "\x00"); {
		case name == "" && source != "", name != "" && source != dir+"/"+name:
			t.Errorf("Source = %q; want that of %q", source, name)
		}
	}
	s := NewSender(sockets["server"], nil)
	s.To(r.Source())
	if err := s.Transmit([]byte("answer"), nil, nil); err != nil {
		t.Fatalf("Transmit to the source: %v", err)
	}
	if n, err := unix.Read(sockets["client"], make([]byte, 100)); n != len("answer") {
		t.Errorf("the client reads %d bytes (%v); want the answer", n, err)
	}
}

func TestTransmitNow(t *testing.T) {
	fdtest.NoLeaks(t)
	a, b := fdtest.Pair(t, unix.SOCK_STREAM)
	s := NewSender(a.FD, nil)
	total := 0
	for {
		n, err := s.TransmitNow(make([]byte, 1<<20), []int{0}, nil)
		if total += n; errors.Is(err, unix.EAGAIN) {
			break
		} else if err != nil || total > 1<<24 {
			t.Fatalf("TransmitNow = %d, %v after %d bytes; want EAGAIN in the end", n, err, total)
		}
	}
	b.Close()
	if _, err := s.TransmitNow([]byte("x"), nil, nil); err != ErrGone {
		t.Errorf("TransmitNow without a receiver: %v; want ErrGone", err)
	}
}
