//go:build linux

package relay

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdinfo"
	"fdkit/internal/proto"
	"fdkit/internal/scm"
)

// side is the socket to one side of a connection. It is non-blocking, and waited for by
// the Go runtime's poller: so a connection takes no thread.
type side struct {
	file    *os.File
	raw     syscallConn
	receive *scm.ExactReceiver
	send    *scm.Sender
}

type syscallConn interface {
	Control(func(fd uintptr)) error
	Read(func(fd uintptr) bool) error
	Write(func(fd uintptr) bool) error
}

// newSide makes a side of the socket fd, which it owns.
func newSide(fd int) (*side, error) {
	s := &side{file: os.NewFile(uintptr(fd), "socket"), send: scm.NewSender(fd, nil)}
	var err error
	if s.raw, err = s.file.SyscallConn(); err == nil {
		s.receive, err = scm.NewExactReceiver(fd)
	}
	if err != nil {
		_ = s.file.Close()
		return nil, err
	}
	return s, nil
}

// next waits for the next message.
func (s *side) next(m *scm.Message) error {
	var err error
	waited := s.raw.Read(func(uintptr) bool {
		var came bool
		came, err = s.receive.Receive(m)
		return came || err != nil
	})
	if waited != nil {
		return waited
	}
	return err
}

// pass sends a message, and waits for room.
func (s *side) pass(payload []byte, fds []int, from *scm.Credentials) error {
	pause := time.Millisecond
	for {
		var n int
		var err error
		waited := s.raw.Write(func(uintptr) bool {
			n, err = s.send.TransmitNow(payload, fds, from)
			return !errors.Is(err, unix.EAGAIN)
		})
		switch {
		case waited != nil:
			return waited
		case isShortage(err):
			// Too many descriptors of this user are in flight, or memory is short.
			time.Sleep(pause)
			pause = min(2*pause, 50*time.Millisecond)
			continue
		case err != nil:
			return err
		}
		// What a stream takes of a payload depends on its room; the descriptors went
		// with the first part.
		if payload, fds = payload[n:], nil; len(payload) == 0 {
			return nil
		}
	}
}

func (s *side) shutdown(how int) {
	_ = s.raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), how) })
}

// gone waits until the other end can neither send nor receive any more.
func (s *side) gone() error {
	return s.raw.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd)}}
		_, err := unix.Poll(fds, 0)
		return err == nil && fds[0].Revents&unix.POLLHUP != 0
	})
}

// serve serves one client until its connection has ended. It owns both sockets.
func (r *Relay) serve(client, target int, connected func()) {
	c := &Conn{ID: r.last.Add(1), Client: peer(client), relay: r}
	err := r.connect(client, target)
	connected()
	if err != nil {
		_ = unix.Close(client)
		_ = unix.Close(target)
		if !r.accepting.Stopped() {
			r.on.Failed(c, fmt.Errorf("cannot connect to %s: %w", r.target.Path, err))
		}
		return
	}
	c.Target = peer(target)
	sides := [2]int{client, target}
	for i, fd := range sides {
		if c.sides[i], err = newSide(fd); err != nil {
			if i == 0 {
				_ = unix.Close(target)
			}
			c.close()
			r.on.Failed(c, err)
			return
		}
	}
	r.on.Opened(c)
	if !r.add(c) {
		c.stop()
	}
	var back sync.WaitGroup
	back.Go(func() { c.pump(proto.FromServer, c.sides[1], c.sides[0]) })
	c.pump(proto.FromClient, c.sides[0], c.sides[1])
	back.Wait()
	r.remove(c)
	c.close()
	r.on.Closed(c)
}

// pump passes on what comes from one side, until that ends.
func (c *Conn) pump(from proto.Direction, in, out *side) {
	var m scm.Message
	for {
		err := in.next(&m)
		switch {
		case err == io.EOF:
			c.finish(from, in, out)
			return
		case errors.Is(err, os.ErrDeadlineExceeded), err != nil && c.closed.Load(): // by stop or close
			return
		case err != nil:
			c.relay.on.Failed(c, err)
			c.close()
			return
		}
		c.relay.on.Message(c, from, &m)
		err = c.relay.deliver(&m, out.pass)
		size, fds := len(m.Payload), len(m.FDs)
		m.Close()
		if err == nil {
			continue
		}
		c.relay.on.Failed(c, &UndeliveredError{from, size, fds, err})
		if err != scm.ErrGone {
			c.close()
		}
		// Whoever sends is to see that nobody receives.
		in.shutdown(unix.SHUT_RD)
		return
	}
}

// finish tells one side that the other will send no more, and later that the other has
// gone for good, as its own program would find.
func (c *Conn) finish(from proto.Direction, in, out *side) {
	c.relay.on.Ended(c, from)
	out.shutdown(unix.SHUT_WR)
	if in.gone() == nil {
		out.shutdown(unix.SHUT_RDWR)
	}
}

// UndeliveredError says that a message does not arrive: it is the last that came in its
// direction.
type UndeliveredError struct {
	From        proto.Direction
	Bytes       int
	Descriptors int
	Err         error
}

func (e *UndeliveredError) Error() string {
	return fmt.Sprintf("%d bytes with %d descriptors are not delivered: %v", e.Bytes, e.Descriptors, e.Err)
}

func (e *UndeliveredError) Unwrap() error { return e.Err }

// stop ends receiving. What is in hand is still sent.
func (c *Conn) stop() {
	for _, s := range c.sides {
		_ = s.file.SetReadDeadline(time.Unix(1, 0))
	}
}

// close ends all.
func (c *Conn) close() {
	c.closed.Store(true)
	for _, s := range c.sides {
		if s != nil {
			_ = s.file.Close()
		}
	}
}

// peer tells who is at the other end.
func peer(fd int) *fdinfo.PeerProcess {
	d, err := fdinfo.Describe(fd)
	if err != nil || d.Socket == nil {
		return nil
	}
	return d.Socket.PeerProcess
}
