//go:build linux

package proto

import (
	"bytes"
	"fmt"
	"io"
	"slices"

	"golang.org/x/sys/unix"

	"fdkit/internal/interrupt"
	"fdkit/internal/scm"
)

// Conn is a Unix socket over which a dialect is spoken. What waits ends with
// interrupt.ErrStopped when the calls are stopped.
type Conn struct {
	calls *interrupt.Calls

	FD   int
	send *scm.Sender
	recv *scm.Receiver
	read []byte // came and is not taken yet
	fds  []int  // came with what was read

	explain func(from Direction, data []byte, fds int) // nil: nobody is told
	peer    Direction
}

// receiveSize is room for any message of the dialects: HAProxy's have 253 names of up
// to 271 bytes.
const receiveSize = 128 << 10

// NewConn returns a Conn over the socket fd, which stays the caller's.
func NewConn(fd int, calls *interrupt.Calls) *Conn {
	return &Conn{calls: calls, FD: fd, send: scm.NewSender(fd, calls), recv: scm.NewReceiverSize(fd, calls, receiveSize)}
}

// Explain makes say be told, by the decoder, what goes over the socket from now on. peer
// is the direction of what comes.
func (c *Conn) Explain(d Decoder, peer Direction, say func(line string)) {
	c.peer = peer
	c.explain = func(from Direction, data []byte, fds int) {
		for _, line := range d.Decode(from, data, fds) {
			say(line)
		}
	}
}

// Send sends payload, which a stream need not keep together, and the descriptors with
// its first byte.
func (c *Conn) Send(payload []byte, fds ...int) error {
	if c.explain != nil {
		c.explain(!c.peer, payload, len(fds))
	}
	return c.send.Transmit(payload, fds, nil)
}

// Receive waits for what comes next: a message, or of a stream some bytes. The
// descriptors in m are the caller's.
func (c *Conn) Receive(m *scm.Message) error {
	err := c.recv.Receive(m)
	if err == nil && c.explain != nil {
		c.explain(c.peer, m.Payload, len(m.FDs))
	}
	return err
}

// Pending returns how much has come that is not taken: part of a message.
func (c *Conn) Pending() (bytes, descriptors int) { return len(c.read), len(c.fds) }

// ReadFull reads n bytes of a stream. What is returned is valid until the next call.
// The error wraps io.EOF if the stream has ended before the first of them, and
// io.ErrUnexpectedEOF if in the middle.
func (c *Conn) ReadFull(n int) ([]byte, error) {
	for len(c.read) < n {
		if err := c.more(); err != nil {
			return nil, err
		}
	}
	return c.take(n), nil
}

// ReadLine reads up to the next byte end, which what is returned does not have, and
// fails if there is none among the next limit bytes.
func (c *Conn) ReadLine(end byte, limit int) ([]byte, error) {
	for {
		if i := bytes.IndexByte(c.read[:min(len(c.read), limit)], end); i >= 0 {
			return c.take(i + 1)[:i], nil
		}
		if len(c.read) >= limit {
			return nil, fmt.Errorf("%w: a line of more than %d bytes", ErrAnswer, limit)
		}
		if err := c.more(); err != nil {
			return nil, err
		}
	}
}

// TakeFDs returns the descriptors that came with what was read since it was last
// called. They are the caller's.
func (c *Conn) TakeFDs() []int {
	fds := c.fds
	c.fds = nil
	return fds
}

// Close closes the descriptors that came and were not taken. The socket stays open.
func (c *Conn) Close() {
	for _, fd := range c.TakeFDs() {
		_ = unix.Close(fd)
	}
}

func (c *Conn) more() error {
	var m scm.Message
	err := c.Receive(&m)
	if err == io.EOF && len(c.read) > 0 {
		err = io.ErrUnexpectedEOF
	}
	c.read = append(c.read, m.Payload...)
	c.fds = append(c.fds, m.FDs...)
	return err
}

// take returns the first n bytes of what was read, and a copy, as the rest is moved.
func (c *Conn) take(n int) []byte {
	b := slices.Clone(c.read[:n])
	c.read = append(c.read[:0], c.read[n:]...)
	return b
}
