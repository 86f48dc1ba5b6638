//go:build linux

package torture

import (
	"errors"

	"golang.org/x/sys/unix"

	"fdkit/internal/interrupt"
	"fdkit/internal/scm"
)

// conn is a connection to the peer. Nothing in it waits.
type conn struct {
	fd      int
	ends    bool     // closing it tells the peer so
	deaf    bool     // what the peer answers is not read
	pace    int      // messages, or readings, at a time
	process *process // nil: not known
	send    *scm.Sender
	receive *scm.Receiver
	calls   interrupt.Calls
	message scm.Message

	heard int  // bytes that came
	got   int  // descriptors that came
	lost  int  // messages that came without their descriptors
	gone  bool // the peer has closed its end
	shut  bool // so have we
}

// roomy is the largest message that is received whole.
const roomy = 64 << 10

func newConn(fd int, ends bool) *conn {
	c := &conn{fd: fd, ends: ends, pace: 64}
	c.send = scm.NewSender(fd, &c.calls)
	c.receive = scm.NewReceiverSize(fd, &c.calls, roomy)
	return c
}

// hear receives what the peer has sent, at the connection's pace.
func (c *conn) hear() error {
	if c.shut || c.gone || !c.ends {
		return nil
	}
	if c.deaf {
		fds := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLRDHUP}}
		if n, err := unix.Poll(fds, 0); err == nil && n > 0 {
			c.gone = true
		}
		return nil
	}
	for range c.pace {
		came, err := c.receive.ReceiveNow(&c.message)
		if _, lost := errors.AsType[*scm.LostError](err); lost {
			c.lost++
			continue
		}
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENOMEM) {
			return err
		}
		if err != nil { // io.EOF or ECONNRESET: unread was what we had sent
			c.gone = true
			return nil
		}
		if !came {
			return nil
		}
		c.heard += len(c.message.Payload)
		c.got += len(c.message.FDs)
		c.message.Close()
	}
	return nil
}

// unread returns how much of what was sent the peer has not received: SIOCOUTQ, which
// counts the room that it takes in the socket.
func (c *conn) unread() int {
	if c.shut || c.gone {
		return 0
	}
	n, err := unix.IoctlGetInt(c.fd, unix.SIOCOUTQ)
	if err != nil {
		return 0
	}
	return n
}

// halfClose tells the peer that nothing more comes.
func (c *conn) halfClose() {
	if c.ends && !c.shut {
		_ = unix.Shutdown(c.fd, unix.SHUT_WR)
	}
}

func (c *conn) close() {
	if !c.shut {
		c.shut = true
		_ = unix.Close(c.fd)
	}
}
