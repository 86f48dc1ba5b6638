//go:build linux

package proto

import (
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdinfo"
	"fdkit/internal/fdtest"
	"fdkit/internal/interrupt"
	"fdkit/internal/scm"
)

// connected returns a Conn and the other end of its socket.
func connected(t testing.TB) (*Conn, *fdtest.End, *interrupt.Calls) {
	a, b := fdtest.Pair(t, unix.SOCK_STREAM)
	calls := &interrupt.Calls{}
	c := NewConn(a.FD, calls)
	t.Cleanup(c.Close)
	return c, b, calls
}

// say sends text, with descriptors, from the other end.
func say(t testing.TB, end *fdtest.End, text string, fds ...int) {
	t.Helper()
	if err := scm.NewSender(end.FD, nil).Transmit([]byte(text), fds, nil); err != nil {
		t.Fatalf("Transmit(%q): %v", text, err)
	}
}

// heard returns what came to the other end, and how many descriptors with it.
func heard(t testing.TB, end *fdtest.End) (text string, fds int) {
	t.Helper()
	r := scm.NewReceiverSize(end.FD, &interrupt.Calls{}, 1<<16)
	for {
		var m scm.Message
		if ok, err := r.ReceiveNow(&m); !ok {
			if err != nil && err != io.EOF {
				t.Fatalf("ReceiveNow: %v", err)
			}
			return text, fds
		}
		text += string(m.Payload)
		fds += len(m.FDs)
		m.Close()
	}
}

const (
	greeting = `{"QMP": {"version": {}, "capabilities": ["oob"]}}` + "\r\n"
	returned = `{"return": {}}` + "\r\n"
	event    = `{"timestamp": {}, "event": "SHUTDOWN", "data": {}}` + "\r\n"
	ack      = `{"cmd":"NODE_HANDLE_ACK"}` + "\n"
	nack     = `{"cmd":"NODE_HANDLE_NACK"}` + "\n"
)

// What is sent, to a peer that has said its part already.
func TestSend(t *testing.T) {
	fdtest.NoLeaks(t)
	file, _ := fdtest.Pipe(t)
	_, stream := fdtest.TCPPair(t)
	listener := socket(t, unix.AF_INET, unix.SOCK_STREAM)
	datagrams := socket(t, unix.AF_INET6, unix.SOCK_DGRAM)
	packets, _ := fdtest.Pair(t, unix.SOCK_SEQPACKET)
	if err := unix.Listen(listener, 1); err != nil {
		t.Fatal(err)
	}
	regular, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer regular.Close()
	two := []int{file.FD, file.FD}
	tests := []struct {
		dialect string
		peer    string
		parcel  Parcel
		want    string // what the peer gets
		fds     int
		err     string
	}{
		{"raw", "", Parcel{FDs: two}, "\x00", 2, ""},
		{"raw", "", Parcel{FDs: two, Payload: []byte("xy")}, "xy", 2, ""},
		{"openssh", "", Parcel{FDs: two[:1]}, "\x00", 1, ""},
		{"util-linux", "", Parcel{FDs: two[:1]}, " ", 1, ""},
		{"util-linux", "", Parcel{FDs: two}, "", 0, "it has one descriptor in a message, not 2"},
		{"python-multiprocessing", "", Parcel{FDs: two}, "\x02", 2, ""},
		{"python-multiprocessing", "", Parcel{FDs: slices.Repeat(two, 126)}, "\xfc", 252, ""},

		{"node", ack, Parcel{FDs: []int{listener}}, `{"cmd":"NODE_HANDLE","type":"net.Server","msg":null}` + "\n", 1, ""},
		{"node", `"hi"` + "\n" + `{"cmd":"NODE_CLUSTER"}` + "\n[]\n" + ack, Parcel{FDs: []int{stream.FD}, Payload: []byte("{\n\"a\": 1}")}, `{"cmd":"NODE_HANDLE","type":"net.Socket","msg":{"a":1}}` + "\n", 1, ""},
		{"node", ack, Parcel{FDs: []int{datagrams}, Payload: []byte("a\nb")}, `{"cmd":"NODE_HANDLE","type":"dgram.Socket","msg":"a\nb","dgramType":"udp6"}` + "\n", 1, ""},
		{"node", ack, Parcel{FDs: two[:1]}, `{"cmd":"NODE_HANDLE","type":"net.Socket","msg":null}` + "\n", 1, ""},
		{"node", nack, Parcel{FDs: two[:1]}, `{"cmd":"NODE_HANDLE","type":"net.Socket","msg":null}` + "\n", 1, "the descriptor has not come to Node (NODE_HANDLE_NACK)"},
		{"node", "", Parcel{FDs: []int{packets.FD}}, "", 0, "the descriptor is neither a stream socket nor a UDP socket nor a pipe, and Node takes no others"},
		{"node", "", Parcel{FDs: []int{int(regular.Fd())}}, "", 0, "the descriptor is neither a stream socket nor a UDP socket nor a pipe, and Node takes no others"},
		{"node", "", Parcel{FDs: two}, "", 0, "a message to Node has one descriptor, not 2"},
		{"node", "", Parcel{FDs: two[:1], Payload: []byte{0xff}}, "", 0, "the payload is no text (UTF-8)"},
		{
			"node", "\x00\x00\x00\x0f\xff\x0f\n",
			Parcel{FDs: two[:1]},
			`{"cmd":"NODE_HANDLE","type":"net.Socket","msg":null}` + "\n", 1,
			`not the answer that the dialect has, it is no JSON: \x00\x00\x00\x0f\xff\x0f`,
		},
		{
			"node", `{"cmd":"NODE_HA`,
			Parcel{FDs: two[:1]},
			`{"cmd":"NODE_HANDLE","type":"net.Socket","msg":null}` + "\n", 1,
			`not the answer that the dialect has: it has closed the connection in the middle of one: {"cmd":"NODE_HA`,
		},

		{
			"qmp", greeting + returned + event + returned + returned,
			Parcel{FDs: two, Names: []string{"web", "b\"c"}},
			`{"execute":"qmp_capabilities"}` + "\n" + `{"execute":"getfd","arguments":{"fdname":"web"}}` + "\n" +
				`{"execute":"getfd","arguments":{"fdname":"b\"c"}}` + "\n", 2, "",
		},
		{
			"qmp", greeting + returned + `{"error": {"class": "GenericError", "desc": "no\u001b"}}` + "\n",
			Parcel{FDs: two[:1], Names: []string{"web"}},
			`{"execute":"qmp_capabilities"}` + "\n" + `{"execute":"getfd","arguments":{"fdname":"web"}}` + "\n", 1, `name web: QEMU refuses getfd: no\x1b`,
		},
		{"qmp", greeting + returned, Parcel{FDs: two[:1]}, `{"execute":"qmp_capabilities"}` + "\n", 0, "QEMU wants a name for each descriptor"},
		{
			"qmp", greeting + returned,
			Parcel{FDs: two[:1], Names: []string{"web"}},
			`{"execute":"qmp_capabilities"}` + "\n" + `{"execute":"getfd","arguments":{"fdname":"web"}}` + "\n", 1,
			"name web: not the answer that the dialect has: it has closed the connection",
		},
		{"qmp", greeting + "{}\n", Parcel{}, `{"execute":"qmp_capabilities"}` + "\n", 0, "not the answer that the dialect has to qmp_capabilities"},
		{"qmp", returned, Parcel{}, "", 0, "not the answer that the dialect has: no greeting of QMP"},
		{"qmp", "[]\n", Parcel{}, "", 0, "not the answer that the dialect has: []"},
		{"qmp", "", Parcel{}, "", 0, "not the answer that the dialect has: it has closed the connection"},
		{"qmp", "SSH-2.0-OpenSSH_9.2\r\n", Parcel{}, "", 0, `not the answer that the dialect has, it is no JSON: SSH-2.0-OpenSSH_9.2\r`},
		{"qmp", strings.Repeat("[", 20000), Parcel{}, "", 0, "not the answer that the dialect has: it has closed the connection in the middle of one: " + strings.Repeat("[", 64) + "... (20000 bytes)"},
	}
	for _, test := range tests {
		c, peer, _ := connected(t)
		if test.peer != "" {
			say(t, peer, test.peer, two...) // a peer may send descriptors too
		}
		if err := unix.Shutdown(peer.FD, unix.SHUT_WR); err != nil {
			t.Fatal(err)
		}
		d, err := Find(test.dialect)
		if err != nil {
			t.Fatal(err)
		}
		send, err := d.Send(c)
		if err == nil {
			err = send(test.parcel)
		}
		if got := message(err); got != test.err {
			t.Errorf("%s to %q: send(%+v) = %q, want %q", test.dialect, test.peer, test.parcel, got, test.err)
		}
		if got, fds := heard(t, peer); got != test.want || fds != test.fds {
			t.Errorf("%s to %q: sent %q with %d descriptors, want %q with %d", test.dialect, test.peer, got, fds, test.want, test.fds)
		}
		c.Close()
	}
}

// What is received, from a peer that says it at once, or each in its turn.
func TestReceive(t *testing.T) {
	fdtest.NoLeaks(t)
	file, _ := fdtest.Pipe(t)
	type part struct {
		text string
		fds  int
	}
	tests := []struct {
		dialect string
		parts   []part
		want    []part
		answer  string
		err     string
	}{
		{"openssh", []part{{"\x00", 1}}, []part{{"\x00", 1}}, "", "EOF"},
		{"util-linux", []part{{" ", 1}}, []part{{" ", 1}}, "", "EOF"},
		{"util-linux", []part{{" ", 2}}, nil, "", "not the answer that the dialect has: 1 byte with 2 descriptors, not one with one:  "},
		{"util-linux", []part{{"hello", 0}}, nil, "", "not the answer that the dialect has: 5 bytes with 0 descriptors, not one with one: hello"},
		{"python-multiprocessing", []part{{"\x03", 3}, {"\x01", 1}}, []part{{"", 3}, {"", 1}}, "", "EOF"},
		{"python-multiprocessing", []part{{"\x02", 3}}, nil, "", `not the answer that the dialect has: 1 byte with 3 descriptors, not one byte that counts them: \x02`},
		{"node", []part{{`{"cmd":"NODE_HANDLE","type":"net.Socket","msg":{"a":1},"key":"4:0"}` + "\n", 1}}, []part{{`{"a":1}`, 1}}, ack, "EOF"},
		// Node's own is passed over, also with descriptors, and what has no descriptor is not.
		{
			"node",
			[]part{{`{"cmd":"NODE_CLUSTER"}` + "\n", 2}, {"\"x\"\n[1", 0}, {"]\n" + `{"cmd":"NODE_HANDLE","msg":2}` + "\n{}\n", 1}},
			[]part{{`"x"`, 0}, {"[1]", 0}, {"2", 1}, {"{}", 0}},
			ack, "EOF",
		},
		{"node", []part{{`{"cmd":"NODE_HANDLE","msg":2}` + "\n", 0}}, nil, nack, "not the answer that the dialect has: NODE_HANDLE with 0 descriptors, not one"},
		{"node", []part{{`{"cmd":"NODE_HANDLE","msg":2}` + "\n", 2}}, nil, nack, "not the answer that the dialect has: NODE_HANDLE with 2 descriptors, not one"},
		{"node", []part{{"{}\n", 2}}, []part{{"{}", 2}}, "", "EOF"},
		{"node", []part{{"x\n", 1}}, nil, "", "not the answer that the dialect has, it is no JSON: x"},
		{"node", []part{{"{", 1}}, nil, "", "not the answer that the dialect has: it has closed the connection in the middle of one: {"},
	}
	for _, test := range tests {
		c, peer, _ := connected(t)
		for _, p := range test.parts {
			say(t, peer, p.text, slices.Repeat([]int{file.FD}, p.fds)...)
		}
		if err := unix.Shutdown(peer.FD, unix.SHUT_WR); err != nil {
			t.Fatal(err)
		}
		d, err := Find(test.dialect)
		if err != nil {
			t.Fatal(err)
		}
		next, err := d.Receive(c, Want{})
		if err != nil {
			t.Fatalf("%s: Receive = %v", test.dialect, err)
		}
		var got []part
		for {
			var m scm.Message
			if err = next(&m); err != nil {
				break
			}
			got = append(got, part{string(m.Payload), len(m.FDs)})
			m.Close()
		}
		if !slices.Equal(got, test.want) || message(err) != test.err {
			t.Errorf("%s of %v: %v, then %q, want %v, then %q", test.dialect, test.parts, got, message(err), test.want, test.err)
		}
		if answer, _ := heard(t, peer); answer != test.answer {
			t.Errorf("%s of %v: answered %q, want %q", test.dialect, test.parts, answer, test.answer)
		}
		c.Close()
	}
}

// A peer that says nothing does not hold up for longer than is wanted.
func TestStopped(t *testing.T) {
	fdtest.NoLeaks(t)
	file, _ := fdtest.Pipe(t)
	for _, d := range All() {
		if d.Send == nil || d.Name != "qmp" && d.Name != "node" {
			continue
		}
		c, _, calls := connected(t)
		ended := make(chan error)
		go func() {
			send, err := d.Send(c)
			if err == nil {
				err = send(Parcel{FDs: []int{file.FD}})
			}
			ended <- err
		}()
		fdtest.Eventually(t, "it waits for the answer", func() bool { return fdtest.Blocked(unix.SYS_RECVMSG, c.FD) })
		calls.Stop()
		if err := fdtest.Soon(t, "the end of "+d.Name, ended); !errors.Is(err, interrupt.ErrStopped) {
			t.Errorf("%s, stopped = %v, want ErrStopped", d.Name, err)
		}
	}
}

// A receiver that is out of descriptors tells so, and goes on.
func TestLost(t *testing.T) {
	fdtest.NoLeaks(t)
	file, _ := fdtest.Pipe(t)
	c, peer, _ := connected(t)
	say(t, peer, `{"cmd":"NODE_HANDLE","msg":1}`+"\n", file.FD)
	restore := fdtest.FewFiles(t, 0)
	var m scm.Message
	err := c.receiveNode(&m)
	if _, lost := errors.AsType[*scm.LostError](err); !lost {
		t.Errorf("receiveNode without room for a descriptor = %v, want a LostError", err)
	}
	restore()
	say(t, peer, `{"cmd":"NODE_HANDLE","msg":1}`+"\n", file.FD)
	if err := c.receiveNode(&m); !errors.Is(err, ErrAnswer) {
		t.Errorf("receiveNode of the message whose descriptor is lost = %v, want ErrAnswer", err)
	}
	if got, _ := heard(t, peer); got != nack {
		t.Errorf("answered %q, want %q", got, nack)
	}
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func socket(t testing.TB, domain, typ int) int {
	t.Helper()
	fd, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("socket: %v", err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// Whatever a peer says, with a descriptor, it ends in an error that can be printed, and
// nothing remains open.
func FuzzPeer(f *testing.F) {
	for _, text := range []string{"\x00", " ", "\x01", ack, nack, `{"cmd":"NODE_HANDLE","msg":[1]}` + "\n" + `{"cmd":5}` + "\n\"x\"\n", greeting + returned + event + returned, `{"error":{"desc":"x"}}` + "\n"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		fdtest.NoLeaks(t)
		file, _ := fdtest.Pipe(t)
		for _, d := range All() {
			var ended []error
			for _, sends := range []bool{true, false} {
				c, peer, _ := connected(t)
				if len(said) > 0 && len(said) < 1<<14 {
					say(t, peer, string(said), file.FD)
				}
				if err := unix.Shutdown(peer.FD, unix.SHUT_WR); err != nil {
					t.Fatal(err)
				}
				if sends && d.Send != nil && d != sdNotify { // which waits until the peer closes, and hears nothing
					send, err := d.Send(c)
					if err == nil {
						err = send(Parcel{FDs: []int{file.FD}, Names: []string{"x"}})
					}
					ended = append(ended, err)
				}
				if !sends && d.Receive != nil {
					next, err := d.Receive(c, Want{})
					for m := (scm.Message{}); err == nil; m.Close() {
						err = next(&m)
					}
					ended = append(ended, err)
				}
				c.Close()
				peer.Close()
			}
			for _, err := range ended {
				if text := message(err); text != fdinfo.Printable(text) && !strings.Contains(text, `\`) {
					t.Errorf("%s: %q has what is not printable", d.Name, text)
				}
			}
		}
	})
}
