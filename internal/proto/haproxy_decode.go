//go:build linux

package proto

import (
	"encoding/binary"
	"fmt"

	"fdkit/internal/fdinfo"
)

type haproxyDecoder struct {
	streams
	asked   bool // for sockets; before that there may be other commands
	sockets int  // that are yet to come; negative: it is not known how many
}

func (d *haproxyDecoder) Decode(from Direction, data []byte, fds int) (lines []string) {
	s := d.add(from, data, fds)
	for !s.isLost() {
		line := ""
		if from == FromClient {
			line = d.question(s)
		} else {
			line = d.answer(s)
		}
		if line == "" {
			break
		}
		lines = append(lines, line)
	}
	return lines
}

func (d *haproxyDecoder) question(s *stream) string {
	if d.asked {
		if b, ok := s.take(4); ok {
			return fmt.Sprintf("acknowledges a message, sockets before it: %d", binary.NativeEndian.Uint32(b))
		}
		return ""
	}
	line, ok := s.line('\n')
	switch {
	case !ok:
		return ""
	case string(line) == haproxyQuestion:
		d.asked = true
		return "asks for the sockets"
	}
	return "asks something else: " + excerpt(line)
}

// answer takes what is said next. It returns "" if that is not complete.
func (d *haproxyDecoder) answer(s *stream) string {
	switch {
	case len(s.kept) == 0:
		return ""
	case !d.asked:
		b, _ := s.take(len(s.kept))
		return "answers that: " + excerpt(b)
	case d.sockets < 0:
		b, ok := s.take(4)
		if !ok {
			return ""
		}
		if total := binary.NativeEndian.Uint32(b); total <= haproxyMost {
			d.sockets = int(total)
			return fmt.Sprintf("sockets: %d", total)
		}
		return s.lose(fmt.Sprintf("%q is no number of sockets", b))
	case d.sockets == 0:
		return s.lose("more than the sockets")
	}
	namespace, rest, ok := cutShort(s.kept)
	if !ok {
		return ""
	}
	device, rest, ok := cutShort(rest)
	if !ok || len(rest) < 4 {
		return ""
	}
	s.take(len(s.kept) - len(rest) + 4)
	d.sockets--
	line := "a socket"
	if len(namespace) > 0 {
		line += ", network namespace " + fdinfo.Printable(string(namespace))
	}
	if len(device) > 0 {
		line += ", interface " + fdinfo.Printable(string(device))
	}
	if s.claim(1) == 0 {
		line += ", and no descriptor"
	}
	return line
}

// cutShort cuts off a text that comes after a byte with its length.
func cutShort(b []byte) (text, rest []byte, ok bool) {
	if len(b) == 0 || len(b) < 1+int(b[0]) {
		return nil, b, false
	}
	end := 1 + int(b[0])
	return b[1:end], b[end:], true
}
