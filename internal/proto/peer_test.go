//go:build linux

package proto

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
	"fdkit/internal/hint"
	"fdkit/internal/interrupt"
	"fdkit/internal/scm"
)

// conversation returns the two ends of a connection of type typ. The calls are those of
// ours.
func conversation(t testing.TB, typ int) (ours, theirs *Conn, calls *interrupt.Calls) {
	t.Helper()
	a, b := fdtest.Pair(t, typ)
	calls = &interrupt.Calls{}
	ours, theirs = NewConn(a.FD, calls), NewConn(b.FD, nil)
	t.Cleanup(ours.Close)
	t.Cleanup(theirs.Close)
	return ours, theirs, calls
}

// said is a message that a test's other end sends, with copies of a descriptor.
type said struct {
	text string
	fds  int
}

// say sends the messages and then no more, unless the last one is empty.
func (c *Conn) say(t testing.TB, all ...said) {
	t.Helper()
	pipe, _ := fdtest.Pipe(t)
	for _, one := range all {
		if one.text == "" {
			return
		}
		if err := c.Send([]byte(one.text), slices.Repeat([]int{pipe.FD}, one.fds)...); err != nil {
			t.Fatalf("the other end's Send(%q) = %v", one.text, err)
		}
	}
	_ = unix.Shutdown(c.FD, unix.SHUT_WR)
}

// received is a message whose descriptors are counted and closed.
type received struct {
	payload string
	fds     int
	names   []string
}

// receiveAll receives all that comes in the dialect, as fdkit recv does. The error is nil at
// the end of it all.
func receiveAll(c *Conn, d *Dialect, want Want) (all []received, err error) {
	next, err := d.Receive(c, want)
	for err == nil {
		var m scm.Message
		if err = next(&m); err == nil {
			all = append(all, received{string(m.Payload), len(m.FDs), m.Names})
			m.Close()
		}
	}
	c.Close()
	if err == io.EOF {
		err = nil
	}
	return all, err
}

func equalReceived(a, b []received) bool {
	return slices.EqualFunc(a, b, func(a, b received) bool {
		return a.payload == b.payload && a.fds == b.fds && slices.Equal(a.names, b.names)
	})
}

// answered is what the other end says to a dialect's questions, and what becomes of it.
type answered struct {
	about  string
	want   Want
	say    []said
	result []received
	err    string // contained in the error; "": none
	hint   string // contained in the hint
}

// testReceive tests what a dialect makes of answers. None leaks, and none hangs: if the
// other end says no more and stays, the calls are stopped.
func testReceive(t *testing.T, d *Dialect, tests []answered) {
	for _, test := range tests {
		t.Run(test.about, func(t *testing.T) {
			fdtest.NoLeaks(t)
			ours, theirs, calls := conversation(t, unix.SOCK_STREAM)
			theirs.say(t, test.say...)
			if n := len(test.say); n > 0 && test.say[n-1].text == "" {
				defer time.AfterFunc(20*time.Millisecond, calls.Stop).Stop()
			}
			got, err := receiveAll(ours, d, test.want)
			if !equalReceived(got, test.result) {
				t.Errorf("received %+v, want %+v", got, test.result)
			}
			switch {
			case test.err == "" && err != nil, test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)):
				t.Errorf("the error is %v, want one with %q", err, test.err)
			case test.err != "" && test.err != interrupt.ErrStopped.Error() && errors.Is(err, io.EOF):
				t.Errorf("the error %v is io.EOF, as if all were well", err)
			case !strings.Contains(hint.Of(err), test.hint):
				t.Errorf("the hint is %q, want one with %q", hint.Of(err), test.hint)
			}
		})
	}
}

// utterance is what goes by a decoder, and the lines that it makes of it.
type utterance struct {
	from  Direction
	data  string
	fds   int
	lines []string
}

// testDecode decodes a conversation, whole and, of a stream, byte for byte.
func testDecode(t *testing.T, d *Dialect, stream bool, all []utterance) {
	whole, bytewise := d.Decoder(), d.Decoder()
	for _, one := range all {
		if got := whole.Decode(one.from, []byte(one.data), one.fds); !slices.Equal(got, one.lines) {
			t.Errorf("Decode(%q, %d) = %q, want %q", one.data, one.fds, got, one.lines)
		}
		if !stream {
			continue
		}
		var got []string
		for i, b := range []byte(one.data) {
			fds := one.fds // they come with the first byte
			if i > 0 {
				fds = 0
			}
			got = append(got, bytewise.Decode(one.from, []byte{b}, fds)...)
		}
		if !slices.Equal(got, one.lines) {
			t.Errorf("Decode(%q, %d) byte for byte = %q, want %q", one.data, one.fds, got, one.lines)
		}
	}
}

// fuzzDecode feeds a decoder with anything, in two pieces: its lines can be printed.
func fuzzDecode(f *testing.F, d *Dialect, seeds ...string) {
	for _, seed := range seeds {
		f.Add([]byte(seed), []byte(seed), 1)
	}
	f.Fuzz(func(t *testing.T, client, server []byte, fds int) {
		decoder := d.Decoder()
		for _, half := range [][2][]byte{{client[:len(client)/2], server[:len(server)/2]}, {client[len(client)/2:], server[len(server)/2:]}} {
			lines := decoder.Decode(FromClient, half[0], fds&0xff)
			for _, line := range append(lines, decoder.Decode(FromServer, half[1], fds&0xff)...) {
				if line == "" || strings.IndexFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0 {
					t.Errorf("of %q and %q Decode makes the line %q, which cannot be printed", client, server, line)
				}
			}
		}
	})
}

// fuzzReceive answers a dialect's questions with anything: what comes is an error or
// messages, and no descriptor remains.
func fuzzReceive(f *testing.F, d *Dialect, want Want, seeds ...string) {
	for _, seed := range seeds {
		f.Add([]byte(seed), 1)
	}
	f.Fuzz(func(t *testing.T, answer []byte, fds int) {
		fdtest.NoLeaks(t)
		ours, theirs, _ := conversation(t, unix.SOCK_STREAM)
		half := answer[:min(len(answer), 16<<10)] // which fits into the socket
		theirs.say(t, said{string(half[:len(half)/2]) + "\x00", fds & 0x0f}, said{string(half[len(half)/2:]) + "\x00", fds >> 4 & 0x0f})
		all, err := receiveAll(ours, d, want)
		for _, m := range all {
			if m.names != nil && len(m.names) != m.fds {
				t.Errorf("of %q there are %d names for %d descriptors, and %v", answer, len(m.names), m.fds, err)
			}
		}
	})
}

// Descriptors that come with a message that never ends are not kept without end.
func TestManyPending(t *testing.T) {
	fdtest.NoLeaks(t)
	ours, theirs := fdtest.Pair(t, unix.SOCK_STREAM)
	c := NewConn(ours.FD, nil)
	defer c.Close()
	for _, n := range []int{scm.MaxFDs, scm.MaxFDs, 1} {
		if err := NewConn(theirs.FD, nil).Send([]byte("{"), slices.Repeat([]int{2}, n)...); err != nil {
			t.Fatal(err)
		}
	}
	err := c.receiveNode(&scm.Message{})
	if _, pending := c.Pending(); !errors.Is(err, ErrAnswer) || pending != 0 {
		t.Errorf("receiving half a message with %d descriptors: %v, %d kept; want an error, and none", mostPending+1, err, pending)
	}
}
