//go:build linux

package cmd

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/fdrecv"
	"fdkit/internal/fdtest"
	"fdkit/internal/proto"
	"fdkit/internal/relay"
	"fdkit/internal/scm"
)

// counting is a decoder that says what it was given.
type counting struct{ bytes [2]int }

func (c *counting) Decode(from proto.Direction, data []byte, fds int) []string {
	i := map[proto.Direction]int{proto.FromClient: 0, proto.FromServer: 1}[from]
	c.bytes[i] += len(data)
	return []string{fmt.Sprintf("%d bytes by now, %d descriptors", c.bytes[i], fds)}
}

// recorded returns a recorder, and what makes it return all that it has written, without
// the times.
func recorded(t *testing.T, rec *recorder) func() []string {
	t.Helper()
	var mu sync.Mutex
	var lines []string
	rec.journal = newJournalTo(func(text string) {
		mu.Lock()
		defer mu.Unlock()
		for line := range strings.Lines(text) {
			if line = strings.TrimSuffix(line, "\n"); !strings.HasPrefix(line, " ") {
				_, line, _ = strings.Cut(line, " ")
			}
			lines = append(lines, strings.Join(strings.Fields(line), " "))
		}
	}, func(int) {})
	return func() []string {
		rec.journal.end()
		mu.Lock()
		defer mu.Unlock()
		return lines
	}
}

// TestRecordDecoder holds that each connection has a decoder of its own, for both
// directions.
func TestRecordDecoder(t *testing.T) {
	dialect := &proto.Dialect{Name: "counting", Decoder: func() proto.Decoder { return &counting{} }}
	rec := &recorder{bytes: 256, dialect: dialect}
	end := recorded(t, rec)
	on := rec.events()
	one, two := &relay.Conn{ID: 1}, &relay.Conn{ID: 2}
	on.Opened(one)
	on.Opened(two)
	for _, m := range []struct {
		conn *relay.Conn
		from proto.Direction
		text string
	}{{one, proto.FromClient, "abc"}, {two, proto.FromClient, "d"}, {one, proto.FromServer, "ef"}, {one, proto.FromClient, "g"}} {
		on.Message(m.conn, m.from, &scm.Message{Payload: []byte(m.text)})
	}
	on.Failed(one, &relay.UndeliveredError{From: proto.FromServer, Bytes: 1, Err: scm.ErrGone})
	on.Closed(one)
	want := []string{
		"#1 connected: datagrams of those who have no address", "#2 connected: datagrams of those who have no address",
		"#1 > 3 bytes, 0 descriptors", `"abc"`, "3 bytes by now, 0 descriptors",
		"#2 > 1 byte, 0 descriptors", `"d"`, "1 bytes by now, 0 descriptors",
		"#1 < 2 bytes, 0 descriptors", `"ef"`, "2 bytes by now, 0 descriptors",
		"#1 > 1 byte, 0 descriptors", `"g"`, "4 bytes by now, 0 descriptors",
		"#1 < failed: 1 bytes with 0 descriptors are not delivered: no receiver is left", "#1 closed",
	}
	if got := end(); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("recorded\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestRecordHarmless holds that nothing of what passes breaks out of its line.
func TestRecordHarmless(t *testing.T) {
	nasty := "FDKIT=1\x00A=\x1b[2J\nB\u202e\x00" + "rest"
	for _, rec := range []*recorder{{}, {hex: true}, {json: true}, {json: true, hex: true}} {
		rec.bytes = 1000
		end := recorded(t, rec)
		rec.passed(&fdrecv.Message{Payload: []byte(nasty)})
		rec.passed(&fdrecv.Message{Payload: []byte(strings.TrimPrefix(nasty, "FDKIT"))})
		for _, line := range end() {
			if strings.ContainsAny(line, "\x1b\x00\u202e\n") {
				t.Errorf("json %t, hex %t: the line %q", rec.json, rec.hex, line)
			}
		}
	}
}

// TestRecordUntouched holds that what is shown is not touched: nothing is read, no flag
// changes.
func TestRecordUntouched(t *testing.T) {
	fdtest.NoLeaks(t)
	read, write := fdtest.Pipe(t)
	if _, err := unix.Write(write.FD, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	rec := &recorder{bytes: 10}
	end := recorded(t, rec)
	before, _ := unix.FcntlInt(uintptr(read.FD), unix.F_GETFL, 0)
	rec.passed(&fdrecv.Message{Payload: []byte("x"), FDs: []int{read.FD}})
	after, _ := unix.FcntlInt(uintptr(read.FD), unix.F_GETFL, 0)
	if n, err := unix.IoctlGetInt(read.FD, unix.TIOCINQ); n != 5 || err != nil || before != after {
		t.Errorf("%d bytes are left (%v), flags %#x; want 5, %#x", n, err, after, before)
	}
	if got := end(); len(got) != 3 || !strings.Contains(got[2], "read end, 5 of") {
		t.Errorf("recorded %q; want a line for the pipe", got)
	}
}
