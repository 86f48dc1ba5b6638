//go:build linux

package proto

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
	"fdkit/internal/scm"
)

// number is an int as HAProxy sends it.
func number(n int) string { return string(binary.NativeEndian.AppendUint32(nil, uint32(n))) }

// bare is what HAProxy says of a socket with neither namespace nor interface.
const bare = "\x00\x00\x00\x00\x00\x00"

func TestHAProxyReceive(t *testing.T) {
	const named = "\x04blue\x02lo\x00\x00\x00\x00"
	notice := "it has closed the connection"
	testReceive(t, haproxy, []answered{
		{about: "none", say: []said{{number(0), 0}}},
		{about: "one", say: []said{{number(1), 0}, {bare, 1}}, result: []received{{fds: 1}}},
		{
			about: "with names", say: []said{{number(3), 0}, {bare + named + bare, 3}},
			result: []received{{fds: 3, names: []string{"", "blue", ""}}},
		},
		{
			about: "two messages", say: []said{{number(3), 0}, {bare + bare, 2}, {bare, 1}},
			result: []received{{fds: 2}, {fds: 1}},
		},
		{
			about: "in pieces", say: []said{{number(2)[:1], 0}, {number(2)[1:], 0}, {bare[:1], 2}, {bare[1:] + bare[:3], 0}, {bare[3:], 0}},
			result: []received{{fds: 2}},
		},
		{about: "nothing", say: nil, err: notice, hint: "expose-fd listeners"},
		{about: "half a number", say: []said{{"\x01\x00", 0}}, err: notice},
		{about: "text", say: []said{{"Unknown command", 0}}, err: `"Unkn", which is no number`},
		{about: "a negative number", say: []said{{number(-1), 0}}, err: "no number"},
		{about: "no sockets", say: []said{{number(1), 0}}, err: notice},
		{about: "half a socket", say: []said{{number(1), 0}, {bare[:4], 1}}, err: notice},
		{about: "half a name", say: []said{{number(1), 0}, {"\xffx", 1}}, err: notice},
		{about: "no descriptor", say: []said{{number(1), 0}, {bare, 0}}, err: "0 sockets came"},
		{about: "one of two", say: []said{{number(2), 0}, {bare, 1}}, result: []received{{fds: 1}}, err: notice},
		{about: "two of one", say: []said{{number(1), 0}, {bare + bare, 2}}, err: "2 sockets came"},
		{about: "silence", say: []said{{"", 0}}, err: "stopped"},
		{about: "silence after the number", say: []said{{number(1), 0}, {"", 0}}, err: "stopped"},
		{about: "silence within a socket", say: []said{{number(1), 0}, {"\x00", 1}, {"", 0}}, err: "stopped"},
	})
}

// TestHAProxyGone receives from a HAProxy that does not wait for the last acknowledgement.
func TestHAProxyGone(t *testing.T) {
	fdtest.NoLeaks(t)
	ours, theirs, _ := conversation(t, unix.SOCK_STREAM)
	result := make(chan error, 1)
	go func() {
		all, err := receiveAll(ours, haproxy, Want{})
		if err == nil && len(all) != 1 {
			err = fmt.Errorf("%d messages", len(all))
		}
		result <- err
	}()
	if line, err := theirs.ReadLine('\n', 100); err != nil || string(line) != "_getsocks" {
		t.Fatalf("the question is %q, %v; want _getsocks", line, err)
	}
	theirs.say(t, said{number(1), 0}, said{bare, 1})
	_ = unix.Shutdown(theirs.FD, unix.SHUT_RDWR)
	if err := fdtest.Soon(t, "the answer", result); err != nil {
		t.Errorf("receiving from one who goes = %v, want one message", err)
	}
}

// TestHAProxyBoth hands sockets over, from one end to the other.
func TestHAProxyBoth(t *testing.T) {
	for _, n := range []int{1, 2, scm.MaxFDs} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			fdtest.NoLeaks(t)
			ours, theirs, _ := conversation(t, unix.SOCK_STREAM)
			socket, _ := fdtest.Pair(t, unix.SOCK_STREAM)
			names := slices.Repeat([]string{strings.Repeat("n", 255)}, n)
			sent := make(chan error, 1)
			go func() {
				send, err := haproxy.Send(theirs)
				if err == nil {
					err = send(Parcel{FDs: slices.Repeat([]int{socket.FD}, n), Names: names})
				}
				if err == nil && send(Parcel{FDs: []int{socket.FD}}) == nil {
					err = fmt.Errorf("a second message is sent")
				}
				sent <- err
			}()
			all, err := receiveAll(ours, haproxy, Want{})
			if err != nil || !equalReceived(all, []received{{fds: n, names: names}}) {
				t.Errorf("received %+v, %v; want %d sockets", all, err, n)
			}
			if err := fdtest.Soon(t, "send", sent); err != nil {
				t.Errorf("send = %v, want nil", err)
			}
		})
	}
}

func TestHAProxySendFails(t *testing.T) {
	pipe, _ := fdtest.Pipe(t)
	socket, _ := fdtest.Pair(t, unix.SOCK_STREAM)
	for _, test := range []struct {
		about, question string
		fd              int
		want            string
	}{
		{"nothing is asked", "", socket.FD, "it has closed the connection"},
		{"another question", "show info\n", socket.FD, `it says "show info"`},
		{"no question at all", strings.Repeat("x", haproxyLine), socket.FD, "more than 16384 bytes"},
		{"no acknowledgement", "_getsocks\n", socket.FD, "it has closed the connection"},
		{"no socket", "_getsocks\n", pipe.FD, "another descriptor"},
	} {
		t.Run(test.about, func(t *testing.T) {
			fdtest.NoLeaks(t)
			ours, theirs, _ := conversation(t, unix.SOCK_STREAM)
			if test.question != "" {
				theirs.say(t, said{test.question, 1})
			} else {
				theirs.say(t)
			}
			send, err := haproxy.Send(ours)
			if err == nil {
				err = send(Parcel{FDs: []int{test.fd}})
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("send = %v, want an error with %q", err, test.want)
			}
		})
	}
}

// TestHAProxyInterface holds that a socket's interface goes with it.
func TestHAProxyInterface(t *testing.T) {
	fdtest.NeedsRoot(t)
	ours, theirs, _ := conversation(t, unix.SOCK_STREAM)
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(socket)
	if err := unix.SetsockoptString(socket, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, "lo"); err != nil {
		t.Fatal(err)
	}
	theirs.say(t, said{"_getsocks\n" + number(0), 0})
	send, err := haproxy.Send(ours)
	if err == nil {
		err = send(Parcel{FDs: []int{socket}})
	}
	if err != nil {
		t.Fatalf("send = %v", err)
	}
	want := number(1) + "\x00\x02lo\x00\x00\x00\x00"
	if got, err := theirs.ReadFull(len(want)); err != nil || string(got) != want {
		t.Errorf("sent is %q, %v; want %q", got, err, want)
	}
}

func TestHAProxyDecode(t *testing.T) {
	testDecode(t, haproxy, true, []utterance{
		{FromClient, "show\x1b\n", 0, []string{`asks something else: show\x1b`}},
		{FromClient, "_getsocks\n", 0, []string{"asks for the sockets"}},
		{FromServer, number(3), 0, []string{"sockets: 3"}},
		{FromServer, bare + "\x04blue\x02l\n\x00\x00\x00\x00", 2, []string{"a socket", `a socket, network namespace blue, interface l\n`}},
		{FromClient, number(0), 0, []string{"acknowledges a message, sockets before it: 0"}},
		{FromServer, "\x00\x00\x00\x00\x00", 0, nil},
		{FromServer, "\x00", 0, []string{"a socket, and no descriptor"}},
		{FromServer, "x", 0, []string{"more than the sockets: x; what follows is not explained"}},
		{FromServer, "y", 0, nil},
	})
	d := haproxy.Decoder()
	d.Decode(FromClient, []byte("_getsocks\n"), 0)
	if got := d.Decode(FromServer, []byte("HTTP"), 0); len(got) != 1 || !strings.Contains(got[0], "no number of sockets") {
		t.Errorf("Decode of text = %q, want it to be no number", got)
	}
	got := haproxy.Decoder().Decode(FromServer, []byte("hello"), 0)
	if want := []string{"answers that: hello"}; !slices.Equal(got, want) {
		t.Errorf("Decode of what is not asked for = %q, want %q", got, want)
	}
}

func FuzzHAProxyDecode(f *testing.F) {
	fuzzDecode(f, haproxy, "_getsocks\n"+number(1)+bare, number(1)+"\xff"+strings.Repeat("n", 255)+"\x00\x00\x00\x00\x00", number(2)+bare+"\x01a\x02bc\x00\x00\x00\x00", "\xff\xff")
}

func FuzzHAProxyReceive(f *testing.F) {
	fuzzReceive(f, haproxy, Want{}, number(1)+bare, number(2)+bare+"\x01a\x02bc\x00\x00\x00\x00", number(0), "\xff\xff")
}
