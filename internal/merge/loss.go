//go:build linux

package merge

import (
	"errors"
	"fmt"
)

// Loss is something that came and is not written.
type Loss struct {
	Client string // "": it is none
	Reason string // in a word
	Bytes  int    // that were read
	Err    error  // for people
}

var (
	errConcluded = errors.New("all has ended before its frame")
	errCrowded   = errors.New("its unfinished frame takes the memory that others wait for")
	errUnwritten = errors.New("whole frames could not be written")
)

var reasons = map[error]string{
	errTooLong: "too-long", errUnfinished: "unfinished", errEnd: "after-end",
	errConcluded: "ended", errCrowded: "crowded", errUnwritten: "unwritten",
}

// lose counts and tells what is lost: so many bytes of a client, which may be nil.
func (m *Merger) lose(c *Client, bytes int, reason error) {
	l := Loss{Bytes: bytes, Reason: reasons[reason], Err: reason}
	if c != nil {
		l.Client = c.Name
	}
	switch reason {
	case errTooLong:
		l.Err = fmt.Errorf("a frame has more than %d bytes", m.Framing.Max)
	case errEnd:
		l.Err = errors.New("it comes behind the frame that ends all")
	}
	if l.Reason == "" {
		l.Reason = "failed"
	}
	m.tell(l)
}

func (m *Merger) tell(l Loss) {
	m.Total.Lost++
	m.Total.LostBytes += int64(l.Bytes)
	m.Lost(l)
}
