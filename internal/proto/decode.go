//go:build linux

package proto

import (
	"bytes"
	"fmt"

	"fdkit/internal/fdinfo"
)

// Direction is where a message of a connection comes from.
type Direction bool

// Which of the two has sent a message: the one that connected, who also sends where
// there is one sender only, or the one that listens.
const (
	FromClient Direction = false
	FromServer Direction = true
)

// Decoder explains what is said on one connection, in both directions, as it goes by.
// It is for one goroutine at a time.
type Decoder interface {
	// Decode takes what came next in one direction, and how many descriptors came
	// with it. Of a stream that may be any piece; a packet comes whole. It returns a
	// line, without its end, for each thing said that is complete now. What is not
	// of the dialect is told in a line too. Text in it that comes from the wire is
	// printable, as fdinfo.Printable makes it. No input makes it fail, or keep more than
	// decodeLimit bytes.
	Decode(from Direction, data []byte, fds int) []string
}

// decodeLimit is how many bytes a decoder keeps at most of something that is not
// complete.
const decodeLimit = 1 << 20

// streams are what a decoder has of the two directions.
type streams struct{ client, server stream }

// add adds what came next in one direction, and returns that one.
func (s *streams) add(from Direction, data []byte, fds int) *stream {
	one := &s.client
	if from == FromServer {
		one = &s.server
	}
	one.kept = append(one.kept, data...)
	one.fds += fds
	return one
}

// stream is one direction of a connection: what came and is not complete.
type stream struct {
	kept    []byte
	scanned int  // so many of them are known not to end it
	lost    bool // it cannot be told any more what is what
	fds     int  // came, and nothing said has claimed them
	nested  nesting
}

// line takes the bytes up to the next byte end, without it. It returns false if that
// is yet to come. Of what is longer than decodeLimit the first bytes are a line.
func (s *stream) line(end byte) ([]byte, bool) {
	if i := bytes.IndexByte(s.kept[s.scanned:], end); i >= 0 {
		line, _ := s.take(s.scanned + i + 1)
		return line[:len(line)-1], true
	}
	s.scanned = len(s.kept)
	return s.take(decodeLimit)
}

// take takes n bytes. It returns false if some are yet to come.
func (s *stream) take(n int) ([]byte, bool) {
	if len(s.kept) < n {
		return nil, false
	}
	b := s.kept[:n:n]
	s.kept, s.scanned, s.nested = s.kept[n:], 0, nesting{}
	return b, true
}

// lose gives up: from here on it cannot be known where something begins. It returns the
// line that tells so, and why.
func (s *stream) lose(why string) string {
	s.lost = true
	return fmt.Sprintf("%s: %s; what follows is not explained", why, excerpt(s.kept))
}

// isLost tells whether it was given up, and forgets what came since.
func (s *stream) isLost() bool {
	if s.lost {
		*s = stream{lost: true}
	}
	return s.lost
}

// claim takes at most that many of the descriptors that came and that nothing said has
// claimed yet, and returns how many those are.
func (s *stream) claim(most int) int {
	n := min(s.fds, most)
	s.fds -= n
	return n
}

// excerpt is the beginning of what came, for a line or an error.
func excerpt(b []byte) string {
	const most = 64
	if len(b) > most {
		return fmt.Sprintf("%s... (%d bytes)", fdinfo.Printable(string(b[:most])), len(b))
	}
	return fdinfo.Printable(string(b))
}

// count is a number of things, each of which is one.
func count(n int, one string) string {
	if n != 1 {
		one += "s"
	}
	return fmt.Sprintf("%d %s", n, one)
}
