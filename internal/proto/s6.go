//go:build linux

package proto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"

	"fdkit/internal/hint"
	"fdkit/internal/scm"
)

// s6 is how the clients of s6-fdholderd store descriptors and get them again, each under
// an identifier: src/fdholder/s6-fdholderd.c and src/libs6/s6_fdholder_*.c of s6. Each
// command is one message of unixmessage.go and gets another one as its answer, which
// begins with a byte: 0, or an errno.
//
//	S, time, identifier, and the descriptor: store it until then
//	R, a byte, identifier: retrieve it, and delete it there if the byte is 1
//	L: list; answered with a number of four bytes, and as many identifiers
//	?: dump all; answered with the number of messages that follow, and of all
//	   descriptors in them; these have a time and an identifier for each
//
// A time is a TAI64N label, 12 bytes. An identifier has a byte with its length before,
// but for those of the list, and a NUL behind it. No greetings are exchanged.
var s6 = &Dialect{
	Name: "s6-fdholder", About: "s6-fdholderd, which holds descriptors",
	Send: s6Send, Receive: s6Receive,
	Decoder: func() Decoder { return &s6Decoder{} },
	Names:   true, CheckName: s6CheckName,
	Asks: true,
}

const (
	s6Time = 12
	// s6Most is for the answers to L, of as many identifiers as there may be
	// descriptors, and ?, of 255 with their times: nr_open in proc(5) times 256.
	s6Most = 1 << 28
)

// s6Never is TAIN_INFINITE of skalibs: 2^61 seconds after 1970, and no nanoseconds.
const s6Never = "\x60\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

func s6CheckName(name string) error {
	if len(name) > 255 || strings.Contains(name, "\x00") {
		return errors.New("an identifier has at most 255 bytes, and no NUL")
	}
	return nil
}

func s6Send(c *Conn) (func(Parcel) error, error) {
	return func(p Parcel) error {
		if p.Names == nil {
			return hint.Wrap(errors.New("what is stored has an identifier, and none is given"), "--name ID, once for each descriptor")
		}
		for i, fd := range p.FDs {
			name := p.Names[i]
			body := append(appendShort([]byte("S"+s6Never), name), 0)
			if _, _, err := c.s6Command(body, 0, fd); err != nil {
				return fmt.Errorf("cannot store %q: %w", name, err)
			}
		}
		return nil
	}, nil
}

func s6Receive(c *Conn, want Want) (func(*scm.Message) error, error) {
	switch {
	case want.List && want.Names != nil:
		return nil, errors.New("either identifiers or the list of them are asked for")
	case want.List:
		return once(c.s6List), nil
	case want.Names == nil:
		return c.s6Dump()
	}
	left := want.Names
	return func(m *scm.Message) error {
		if len(left) == 0 {
			return io.EOF
		}
		name := left[0]
		left = left[1:]
		if err := s6CheckName(name); err != nil {
			return err
		}
		_, fds, err := c.s6Command(append(appendShort([]byte{'R', 0}, name), 0), 1)
		if err != nil {
			return fmt.Errorf("cannot retrieve %q: %w", name, err)
		}
		*m = scm.Message{FDs: fds, Names: []string{name}}
		return nil
	}, nil
}

// once returns a function that calls receive, and then returns io.EOF.
func once(receive func(*scm.Message) error) func(*scm.Message) error {
	called := false
	return func(m *scm.Message) error {
		if called {
			return io.EOF
		}
		called = true
		return receive(m)
	}
}

// s6List receives the identifiers as a payload, in which each is a line. There is no
// message if there are none.
func (c *Conn) s6List(m *scm.Message) error {
	answer, _, err := c.s6Command([]byte{'L'}, 0)
	if err != nil {
		return fmt.Errorf("cannot list: %w", err)
	}
	names, ok := s6Names(answer)
	switch {
	case !ok:
		return fmt.Errorf("cannot list: %w: %s", ErrAnswer, excerpt(answer))
	case len(names) == 0:
		return io.EOF
	}
	*m = scm.Message{Payload: []byte(strings.Join(names, "\n") + "\n")}
	return nil
}

// s6Names parses the answer to L, from the number on.
func s6Names(answer []byte) (names []string, ok bool) {
	if len(answer) < 4 {
		return nil, false
	}
	n, rest := binary.BigEndian.Uint32(answer), answer[4:]
	for len(rest) > 0 {
		name, after, found := bytes.Cut(rest, []byte{0})
		if !found {
			return nil, false
		}
		names, rest = append(names, string(name)), after
	}
	return names, len(names) == int(n)
}

// s6Dump asks for everything.
func (c *Conn) s6Dump() (func(*scm.Message) error, error) {
	answer, _, err := c.s6Command([]byte{'?'}, 0)
	if err == nil && len(answer) != 8 {
		err = fmt.Errorf("%w: %s", ErrAnswer, excerpt(answer))
	}
	if err != nil {
		return nil, fmt.Errorf("cannot dump: %w", err)
	}
	left := binary.BigEndian.Uint32(answer)
	return func(m *scm.Message) error {
		if left == 0 {
			return io.EOF
		}
		left--
		body, fds, err := c.receiveUnixMessage(s6Most)
		if err != nil {
			return fmt.Errorf("cannot dump: %w", unanswered(err))
		}
		*m = scm.Message{FDs: fds}
		var ok bool
		if m.Names, ok = s6Dumped(body); !ok || len(m.Names) != len(fds) {
			m.Close()
			return fmt.Errorf("cannot dump: %w: %s, descriptors: %d", ErrAnswer, excerpt(body), len(fds))
		}
		return nil
	}, nil
}

// s6Dumped parses what a message of a dump says of its descriptors.
func s6Dumped(body []byte) (names []string, ok bool) {
	for len(body) > s6Time {
		name, rest, ok := cutShort(body[s6Time:])
		if !ok || len(rest) == 0 || rest[0] != 0 {
			return nil, false
		}
		names, body = append(names, string(name)), rest[1:]
	}
	return names, len(body) == 0
}

// s6Command sends a command, and returns what its answer has after the first byte, and
// its descriptors, of which there are to be n.
func (c *Conn) s6Command(command []byte, n int, send ...int) (answer []byte, fds []int, err error) {
	if err = c.sendUnixMessage(command, send...); err == nil {
		answer, fds, err = c.receiveUnixMessage(s6Most)
	}
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, scm.ErrGone):
		return nil, nil, hint.Wrap(unanswered(err), "it may know nothing of this user: its access rules are s6-fdholderd -i or -x")
	case err != nil:
		return nil, nil, unanswered(err)
	case len(answer) > 0 && answer[0] != 0:
		err = s6Error(unix.Errno(answer[0]))
	case len(answer) == 0 || len(fds) != n:
		err = fmt.Errorf("%w: %s, descriptors: %d", ErrAnswer, excerpt(answer), len(fds))
	default:
		return answer[1:], fds, nil
	}
	m := scm.Message{FDs: fds}
	m.Close()
	return nil, nil, err
}

// s6Error gives the cure of what s6-fdholderd says.
func s6Error(errno unix.Errno) error {
	switch errno {
	case unix.ENOENT:
		return hint.Wrap(errno, "fdkit recv --proto s6-fdholder --list shows what it holds")
	case unix.EBUSY:
		return hint.Wrap(errno, "it holds one of that name already; s6-fdholder-delete takes it away")
	case unix.EPERM:
		return hint.Wrap(errno, "its access rules forbid it: s6-fdholderd -i or -x")
	case unix.ENFILE:
		return hint.Wrap(errno, "it holds as many as it may: s6-fdholderd -n")
	}
	return errno
}
