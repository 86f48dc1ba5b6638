//go:build linux

package proto

import (
	"encoding/binary"
	"fmt"
)

// The messages of skalibs over a stream, unixmessage_sender_flush() and
// unixmessage_receive() in src/libunixonacid: the length of the body, four bytes, the
// number of descriptors, two bytes, both with the highest byte first, and the body. The
// descriptors go with the first byte.
const unixMessageHead = 6

// sendUnixMessage sends one.
func (c *Conn) sendUnixMessage(body []byte, fds ...int) error {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
	b = binary.BigEndian.AppendUint16(b, uint16(len(fds)))
	return c.Send(append(b, body...), fds...)
}

// receiveUnixMessage receives one with a body of at most that many bytes. The body and
// the descriptors are the caller's.
func (c *Conn) receiveUnixMessage(most int) (body []byte, fds []int, err error) {
	head, err := c.ReadFull(unixMessageHead)
	if err != nil {
		return nil, nil, err
	}
	size, n := cutUnixMessage(head)
	if size > most {
		return nil, nil, fmt.Errorf("%w: a message of %d bytes, where at most %d are in order", ErrAnswer, size, most)
	}
	if body, err = c.ReadFull(size); err != nil {
		return nil, nil, err
	}
	// Those of the next message may have come too, with what was read of it.
	if len(c.fds) < n || len(c.fds) > n && len(c.read) == 0 {
		return nil, nil, fmt.Errorf("%w: %d descriptors came, of %d in the message", ErrAnswer, len(c.fds), n)
	}
	all := c.TakeFDs()
	c.fds = all[n:]
	return body, all[:n:n], nil
}

// cutUnixMessage returns what the head of a message says: the bytes of the body, and
// how many descriptors there are.
func cutUnixMessage(head []byte) (size, fds int) {
	return int(binary.BigEndian.Uint32(head)), int(binary.BigEndian.Uint16(head[4:]))
}
