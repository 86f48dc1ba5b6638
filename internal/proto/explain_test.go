//go:build linux

package proto

import (
	"fmt"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
	"fdkit/internal/interrupt"
	"fdkit/internal/scm"
)

// quoter is a decoder that quotes what it is given.
type quoter struct{}

func (quoter) Decode(from Direction, data []byte, fds int) []string {
	return []string{fmt.Sprintf("server %t: %q with %d", from, data, fds)}
}

// A decoder is told what goes over the socket, both ways, and what is not taken of it is
// pending.
func TestExplain(t *testing.T) {
	fdtest.NoLeaks(t)
	ours, its := fdtest.Pair(t, unix.SOCK_STREAM)
	var calls interrupt.Calls
	c := NewConn(ours.FD, &calls)
	defer c.Close()
	var said []string
	c.Explain(quoter{}, FromServer, func(line string) { said = append(said, line) })
	if err := c.Send([]byte("ask")); err != nil {
		t.Fatal(err)
	}
	other := NewConn(its.FD, &calls)
	if err := other.Send([]byte("answer"), its.FD); err != nil {
		t.Fatal(err)
	}
	if got, err := c.ReadFull(2); string(got) != "an" || err != nil {
		t.Errorf("ReadFull(2) = %q, %v; want an, nil", got, err)
	}
	if bytes, fds := c.Pending(); bytes != 4 || fds != 1 {
		t.Errorf("Pending() = %d, %d; want 4, 1", bytes, fds)
	}
	if err := other.Send([]byte("more")); err != nil {
		t.Fatal(err)
	}
	var m scm.Message
	if err := c.Receive(&m); err != nil {
		t.Fatal(err)
	}
	want := []string{`server false: "ask" with 0`, `server true: "answer" with 1`, `server true: "more" with 0`}
	if !slices.Equal(said, want) {
		t.Errorf("the decoder was told\n%q\nwant\n%q", said, want)
	}
}
