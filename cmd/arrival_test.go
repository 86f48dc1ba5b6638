//go:build linux

package cmd

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"unicode"

	"golang.org/x/sys/unix"

	"fdkit/fdrecv"
	"fdkit/internal/fdinfo"
	"fdkit/internal/fdtest"
)

func TestPayloadLines(t *testing.T) {
	long := strings.Repeat("é", shownText)
	for _, test := range []struct {
		payload string
		all     bool
		want    []string
	}{
		{"", false, nil},
		{"\x00", false, []string{"hex 00"}},
		{"a\tb\r\n", false, []string{`"a\tb\r\n"`}},
		{"a\x1b[31m", false, []string{"hex 61 1b 5b 33 31 6d"}},
		{"FDKIT=1\x00", false, []string{"FDKIT=1"}},
		{"FDKIT=1", false, []string{`"FDKIT=1"`}},
		{"FDKIT=1\x00A=\x1b\x00A=b\x00", false, []string{"FDKIT=1", `A=\x1b`, "A=b"}},
		{"FDKIT=1\x00A=b\x00\x00C", false, []string{"FDKIT=1", "A=b", "and 2 bytes that are no variable"}},
		{long, true, []string{`"` + long + `"`}},
		{"a" + long, false, []string{`"a` + long[:shownText-2] + `"`, "and 3778 bytes more; -v shows them"}},
	} {
		a := arrival{payload: []byte(test.payload)}
		if got := a.payloadLines(test.all); !slices.Equal(got, test.want) {
			t.Errorf("payloadLines(%t) of %.40q = %.200q; want %.200q", test.all, test.payload, got, test.want)
		}
	}
}

// Whatever comes, what is printed is printable and has its lines.
func FuzzPrinter(f *testing.F) {
	f.Add([]byte("FDKIT=1\x00FDNAMES=a:b\x00A=\x1b[31m\x00"), "name", "command")
	f.Add([]byte("text\n"), "\n", "\x1b")
	f.Add([]byte("\xff\x00"), "\u202e", "\xff")
	f.Fuzz(func(t *testing.T, payload []byte, name, command string) {
		a := &arrival{
			number: 1, payload: payload, names: []string{name, name},
			sender: &identity{PID: 1, Command: command}, descriptors: []fdinfo.Description{{Kind: fdinfo.File, Name: name}},
		}
		for _, p := range []*arrivalPrinter{{}, {all: true, explain: true, stream: true}} {
			block := p.block(a)
			object := fdinfo.JSON(p.object(a))
			if i := bytes.IndexFunc(bytes.ReplaceAll(block, []byte("\n"), nil), func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
				t.Errorf("block is not printable: %q", block)
			}
			if i := bytes.IndexFunc(object, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
				t.Errorf("object is not printable: %q", object)
			}
			for line := range strings.Lines(string(block)) {
				if !strings.HasPrefix(line, "message 1:") && !strings.HasPrefix(line, "  ") {
					t.Errorf("%q begins a line that is no message: %q", line, block)
				}
			}
		}
	})
}

func TestArrivalSender(t *testing.T) {
	for _, test := range []struct {
		sender *fdrecv.Credentials
		want   string
	}{
		{nil, "message 1: 1 byte, 0 descriptors, sender not known"},
		{&fdrecv.Credentials{PID: 0, UID: 65534, GID: 65534}, "message 1: 1 byte, 0 descriptors, sender not known"},
		{&fdrecv.Credentials{PID: 0, UID: 7, GID: 65534}, "message 1: 1 byte, 0 descriptors, from a process of another PID namespace uid 7 gid 65534"},
		{&fdrecv.Credentials{PID: 1 << 30, UID: 7, GID: 8}, "message 1: 1 byte, 0 descriptors, from pid 1073741824 uid 7 gid 8"},
	} {
		m := fdrecv.Message{Payload: []byte("x"), Sender: test.sender}
		if got := arrivalOf(1, &m, nil, queuePeer{}).header(); got != test.want {
			t.Errorf("header of sender %v = %q; want %q", test.sender, got, test.want)
		}
	}
}

// A descriptor is described by its place in the message, and stays open.
func TestArrivalDescriptors(t *testing.T) {
	fdtest.NoLeaks(t)
	read, write := fdtest.Pipe(t)
	m := fdrecv.Message{Payload: []byte("FDKIT=1\x00FDNAMES=in:out\x00"), FDs: []int{read.FD, write.FD}}
	a := arrivalOf(1, &m, nil, queuePeer{})
	var got []string
	for i, d := range a.descriptors {
		got = append(got, strings.Join(strings.Fields(d.Line())[:3], " ")+" "+a.name(i))
	}
	if want := []string{"0 r pipe in", "1 w pipe out"}; !slices.Equal(got, want) {
		t.Errorf("the descriptors are %q; want %q", got, want)
	}
	for _, end := range []*fdtest.End{read, write} {
		if _, err := unix.FcntlInt(uintptr(end.FD), unix.F_GETFD, 0); err != nil {
			t.Errorf("descriptor %d after arrivalOf: %v; want it open", end.FD, err)
		}
	}
}

func TestAwaited(t *testing.T) {
	pending := func(bytes, fds int) func() (int, int) { return func() (int, int) { return bytes, fds } }
	python := queuePeer{&identity{PID: 1 << 30, UID: 1, GID: 2, Command: "python"}}
	for _, test := range []struct {
		r    *receiving
		want string
	}{
		{&receiving{from: "./q"}, "queue ./q is not open yet"},
		{&receiving{from: "unix:q"}, "nobody listens at unix:q"},
		{&receiving{from: "unix-seqpacket-listen:q"}, "nobody has connected to unix-seqpacket-listen:q"},
		{&receiving{from: "unix:q", open: true, dialect: "haproxy", peer: python}, "unix:q, connected with pid 1073741824 (python) uid 1 gid 2 does not answer in dialect haproxy"},
		{&receiving{from: "q", open: true, asked: true, pending: pending(3, 1)}, "of message 1 only 3 bytes and 1 descriptor have come from q"},
		{&receiving{from: "q", open: true, asked: true, pending: pending(0, 0)}, "nothing has come from q"},
		{&receiving{from: "q", open: true, asked: true, pending: pending(0, 0), came: 1, count: 2}, "1 of 2 messages have come from q"},
		{&receiving{from: "q", open: true, asked: true, pending: pending(0, 0), came: 2}, "q has not ended after 2 messages"},
	} {
		if got := test.r.awaited(); got != test.want {
			t.Errorf("awaited() = %q; want %q", got, test.want)
		}
	}
}

func TestPassedEnv(t *testing.T) {
	for _, test := range []struct {
		places []int
		names  []string
		want   string
	}{
		{[]int{3, 4}, nil, "LISTEN_FDS=2 LISTEN_FDNAMES=unknown:unknown"},
		{[]int{3, 4}, []string{"a", "b", "c"}, "LISTEN_FDS=2 LISTEN_FDNAMES=a:b"},
		{[]int{3, 4, 5}, []string{"a:b", "\n", ""}, "LISTEN_FDS=3 LISTEN_FDNAMES=unknown:unknown:unknown"},
		{[]int{4, 3}, nil, ""},
		{[]int{0}, nil, ""},
	} {
		env := passedEnv(test.places, test.names)
		if got := strings.Join(env[min(1, len(env)):], " "); got != test.want {
			t.Errorf("passedEnv(%v, %q) = %q; want %q", test.places, test.names, got, test.want)
		}
	}
}
