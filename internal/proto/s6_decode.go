//go:build linux

package proto

import (
	"encoding/binary"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdinfo"
)

type s6Decoder struct {
	streams
	asked []byte // the letters of the commands that are not answered yet
	dumps uint32 // messages of a dump that are yet to come
}

// s6Ahead is how many commands may be without an answer. Clients send one at a time.
const s6Ahead = 1000

func (d *s6Decoder) Decode(from Direction, data []byte, fds int) (lines []string) {
	s := d.add(from, data, fds)
	for !s.isLost() && len(s.kept) >= unixMessageHead {
		size, n := cutUnixMessage(s.kept)
		if size > decodeLimit-unixMessageHead {
			return append(lines, s.lose(fmt.Sprintf("a message of %d bytes", size)))
		}
		message, ok := s.take(unixMessageHead + size)
		if !ok {
			return lines
		}
		body := message[unixMessageHead:]
		line := ""
		if from == FromClient {
			if len(d.asked) == s6Ahead {
				return append(lines, s.lose("commands without an answer: too many"))
			}
			line = d.command(body)
		} else {
			line = d.answer(body)
		}
		if has := s.claim(n); has < n {
			line += fmt.Sprintf(", descriptors: %d of %d", has, n)
		} else if n > 0 {
			line += fmt.Sprintf(", descriptors: %d", n)
		}
		lines = append(lines, line)
	}
	return lines
}

func (d *s6Decoder) command(body []byte) string {
	if len(body) == 0 {
		return "an empty message"
	}
	letter, rest := body[0], body[1:]
	d.asked = append(d.asked, letter)
	named := func(verb string) (string, bool) {
		name, end, ok := cutShort(rest)
		return verb + " " + fdinfo.Printable(string(name)), ok && string(end) == "\x00"
	}
	line, ok := "", false
	switch {
	case letter == 'S' && len(rest) > s6Time:
		never := string(rest[:s6Time]) == s6Never
		rest = rest[s6Time:]
		if line, ok = named("store"); !never {
			line += ", with an end"
		}
	case letter == 'D':
		line, ok = named("delete")
	case letter == 'R' && len(rest) > 1:
		deletes := rest[0] != 0
		rest = rest[1:]
		if line, ok = named("retrieve"); deletes {
			line += ", and delete it"
		}
	case letter == 'L' && len(rest) == 0:
		return "list"
	case letter == '?' && len(rest) == 0:
		return "dump"
	case letter == '!' && len(rest) == 4:
		return fmt.Sprintf("store a dump, descriptors in all: %d", binary.BigEndian.Uint32(rest))
	case letter == '.':
		return s6Dump(rest)
	}
	if !ok {
		return "a command that there is not: " + excerpt(body)
	}
	return line
}

// s6Dump tells what a message of a dump has.
func s6Dump(body []byte) string {
	names, ok := s6Dumped(body)
	if !ok {
		return "no message of a dump: " + excerpt(body)
	}
	for i, name := range names {
		names[i] = fdinfo.Printable(name)
	}
	return "dumped: " + strings.Join(names, ", ")
}

func (d *s6Decoder) answer(body []byte) string {
	if d.dumps > 0 {
		d.dumps--
		return s6Dump(body)
	}
	if len(d.asked) == 0 {
		return "an answer to nothing: " + excerpt(body)
	}
	letter := d.asked[0]
	d.asked = d.asked[1:]
	switch {
	case len(body) == 0:
		return "an empty answer"
	case letter == '.' && body[0] == byte(unix.EAGAIN):
		return "done, more is to come"
	case body[0] != 0:
		return "no: " + unix.Errno(body[0]).Error()
	case letter == 'L':
		names, ok := s6Names(body[1:])
		if !ok {
			return "no list: " + excerpt(body)
		}
		for i, name := range names {
			names[i] = fdinfo.Printable(name)
		}
		return "it holds: " + strings.Join(names, ", ")
	case letter == '?' && len(body) == 9:
		d.dumps = binary.BigEndian.Uint32(body[1:])
		return fmt.Sprintf("it holds: %d, messages to come: %d", binary.BigEndian.Uint32(body[5:]), d.dumps)
	}
	return "done"
}
