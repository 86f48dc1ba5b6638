//go:build linux

package proto

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"fdkit/internal/fdinfo"
)

// lineLimit is how long a line of JSON may be, in bytes.
const lineLimit = 1 << 20

// readJSON reads the next line, which is a value in JSON. The error is io.EOF if the
// stream has ended before it.
func (c *Conn) readJSON() ([]byte, error) {
	line, err := c.ReadLine('\n', lineLimit)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fmt.Errorf("%w: it has closed the connection in the middle of one: %s", ErrAnswer, excerpt(c.read))
	case err != nil:
		return nil, err
	case !json.Valid(line):
		return nil, fmt.Errorf("%w, it is no JSON: %s", ErrAnswer, excerpt(line))
	}
	return line, nil
}

// answer is readJSON where the stream must not end.
func (c *Conn) answer() ([]byte, error) {
	line, err := c.readJSON()
	if err == io.EOF {
		err = fmt.Errorf("%w: it has closed the connection", ErrAnswer)
	}
	return line, err
}

// jsonDecoder tells each value in JSON in a line. Most programs end one with a line end,
// but QEMU does not want that.
type jsonDecoder struct{ streams }

func (d *jsonDecoder) Decode(from Direction, data []byte, fds int) []string {
	s := d.add(from, data, fds)
	var lines []string
	for {
		value, ok := s.value()
		if !ok {
			break
		}
		if value = bytes.TrimSpace(value); len(value) == 0 {
			continue
		}
		var compact bytes.Buffer
		if json.Compact(&compact, value) != nil {
			lines = append(lines, "no JSON: "+excerpt(value))
			continue
		}
		lines = append(lines, string(fdinfo.PrintableJSON(compact.Bytes())))
	}
	// Bytes that came without descriptors may be received together with those after
	// them that have some, never the other way round: unix_stream_read_generic() in
	// net/unix/af_unix.c. So they belong to the last value.
	if len(lines) > 0 && s.fds > 0 && len(bytes.TrimSpace(s.kept)) == 0 {
		lines[len(lines)-1] += ", with " + count(s.claim(s.fds), "descriptor")
	}
	return lines
}

// nesting is where in a value in JSON the end of what was scanned is.
type nesting struct {
	depth           int // of brackets
	quoted, escaped bool
}

// value takes the bytes up to the end of an object or an array or, as other values do
// not show where they end, of a line. It returns false if that is yet to come. Of what
// is longer than decodeLimit the first bytes are a value.
func (s *stream) value() ([]byte, bool) {
	for i, b := range s.kept[s.scanned:] {
		n, ends := &s.nested, false
		switch {
		case b == '\n': // never in a string
			ends = n.quoted || n.depth == 0
		case n.escaped:
			n.escaped = false
		case n.quoted:
			n.escaped, n.quoted = b == '\\', b != '"'
		case b == '"':
			n.quoted = true
		case b == '{', b == '[':
			n.depth++
		case b == '}', b == ']':
			n.depth--
			ends = n.depth <= 0
		}
		if ends {
			return s.take(s.scanned + i + 1)
		}
	}
	s.scanned = len(s.kept)
	return s.take(decodeLimit)
}
