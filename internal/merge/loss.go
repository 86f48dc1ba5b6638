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
	what := "line"
	if m.Framing.Prefix > 0 {
		what = "frame"
	}
	switch reason {
	case errTooLong:
		l.Err = fmt.Errorf("a %s has more than %d bytes", what, m.Framing.Max)
	case errEnd:
		l.Err = fmt.Errorf("it comes behind the %s that ends all", what)
	case errConcluded:
		l.Err = fmt.Errorf("all has ended before its %s", what)
	case errCrowded:
		l.Err = fmt.Errorf("its unfinished %s takes the memory that others wait for", what)
	case errUnwritten:
		l.Err = fmt.Errorf("whole %ss could not be written", what)
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
