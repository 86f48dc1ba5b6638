//go:build linux

package proto

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"fdkit/internal/hint"
	"fdkit/internal/scm"
)

// haproxy is how a new HAProxy takes the sockets of the one before it, haproxy -x. Who
// asks is sock_get_old_sockets() in src/sock.c of HAProxy, who answers _getsocks() in
// src/cli.c, at a stats socket.
//
// The question is a line. The answer is an int, how many sockets there are, and then
// messages with up to 253 of them. The bytes of these are, for each socket: a byte with
// the length of its network namespace's name and the name, the same for its interface,
// and four bytes, which were options before HAProxy 2.3. After each message who asks
// sends an int, how many sockets it had before.
var haproxy = &Dialect{
	Name: "haproxy", About: "HAProxy's sockets, haproxy -x and its stats socket",
	Send: haproxySend, Receive: haproxyReceive,
	Decoder: func() Decoder { return &haproxyDecoder{sockets: -1} },
	Names:   true,
}

const (
	haproxyQuestion = "_getsocks"
	haproxyLine     = 16384     // bytes of a command at most: tune.bufsize
	haproxyMost     = 1<<20 - 1 // sockets: no process has more descriptors, nr_open in proc(5)
)

func haproxyReceive(c *Conn, _ Want) (func(*scm.Message) error, error) {
	if err := c.Send([]byte(haproxyQuestion + "\n")); err != nil {
		return nil, unanswered(err)
	}
	b, err := c.ReadFull(4)
	if errors.Is(err, io.EOF) {
		return nil, hint.Wrap(unanswered(err),
			"the line stats socket in HAProxy's configuration needs expose-fd listeners, and what a successor has taken over is no longer there")
	} else if err != nil {
		return nil, unanswered(err)
	}
	total := binary.NativeEndian.Uint32(b)
	if total > haproxyMost {
		return nil, fmt.Errorf("%w: it begins with %q, which is no number of sockets", ErrAnswer, b)
	}
	got := 0
	return func(m *scm.Message) error {
		if got == int(total) {
			return io.EOF
		}
		names, err := c.haproxySockets(int(total) - got)
		if err != nil {
			return unanswered(err)
		}
		// HAProxy does not wait for the last one, and may have gone.
		err = c.Send(binary.NativeEndian.AppendUint32(nil, uint32(got)))
		got += len(c.fds)
		if err != nil && (err != scm.ErrGone || got < int(total)) {
			return unanswered(err)
		}
		*m = scm.Message{FDs: c.TakeFDs(), Names: names}
		return nil
	}, nil
}

// haproxySockets reads one message with at most that many sockets, and returns the
// names of their network namespaces, or nil if none has one. The sockets remain c's.
func (c *Conn) haproxySockets(most int) (names []string, err error) {
	if len(c.read) == 0 {
		err = c.more()
	}
	// All of them have come with the first byte, and no further message comes before
	// this one is acknowledged.
	n, named := len(c.fds), false
	for i := 0; i < n && err == nil; i++ {
		var one [2]string // namespace, interface
		for j := 0; j < len(one) && err == nil; j++ {
			one[j], err = c.shortText()
		}
		if err == nil {
			_, err = c.ReadFull(4)
		}
		named = named || one[0] != ""
		names = append(names, one[0])
	}
	switch {
	case err != nil:
		return nil, err
	case n == 0 || n > most || n != len(c.fds):
		return nil, fmt.Errorf("%w: %d sockets came, of %d that are left", ErrAnswer, len(c.fds), most)
	case !named:
		return nil, nil
	}
	return names, nil
}

func haproxySend(c *Conn) (func(Parcel) error, error) {
	line, err := c.ReadLine('\n', haproxyLine)
	if err != nil {
		return nil, unanswered(err)
	}
	if string(line) != haproxyQuestion {
		return nil, hint.Wrap(fmt.Errorf("%w: it says %q, and not %q", ErrAnswer, line, haproxyQuestion),
			"haproxy -x PATH asks for sockets")
	}
	asked := true
	return func(p Parcel) error {
		if !asked {
			return errors.New("HAProxy asks once, and all sockets go in one message")
		}
		asked = false
		var b []byte
		for i, fd := range p.FDs {
			// By its interface HAProxy finds the socket again that it is looking for.
			device, err := unix.GetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE)
			if err == unix.ENOTSOCK {
				return errors.New("HAProxy takes sockets, and here is another descriptor")
			}
			var namespace string
			if p.Names != nil {
				namespace = p.Names[i]
			}
			b = appendShort(appendShort(b, namespace), device)
			b = append(b, 0, 0, 0, 0)
		}
		if err := c.Send(binary.NativeEndian.AppendUint32(nil, uint32(len(p.FDs)))); err != nil {
			return err
		}
		if err := c.Send(b, p.FDs...); err != nil {
			return err
		}
		_, err := c.ReadFull(4)
		return unanswered(err)
	}, nil
}

// shortText reads a text that comes after a byte with its length.
func (c *Conn) shortText() (string, error) {
	length, err := c.ReadFull(1)
	if err != nil {
		return "", err
	}
	text, err := c.ReadFull(int(length[0]))
	return string(text), err
}

// appendShort appends what shortText reads: a text of at most 255 bytes.
func appendShort(b []byte, text string) []byte {
	return append(append(b, byte(len(text))), text...)
}
