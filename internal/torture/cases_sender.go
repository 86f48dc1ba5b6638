//go:build linux

package torture

import (
	"golang.org/x/sys/unix"

	"fdkit/internal/scm"
)

const (
	broken = "send(2): EPIPE, and SIGPIPE unless MSG_NOSIGNAL is given; unix(7): ECONNRESET where the peer left something unread."
	blocks = "send(2): when the message does not fit into the buffer of the socket it waits; with O_NONBLOCK or MSG_DONTWAIT it fails with EAGAIN."
	taken  = "recvmsg(2): whatever a peer answers is the peer's choice; unix(7): read(2) without room for control data closes descriptors that come."
)

// senderCases are for peers that send. The first one is the base case.
var senderCases = []Case{
	{Name: "takes-all", About: "all is received, until the peer closes: the base case", needs: ends, do: func(t *trial) { t.connect() }},
	{Name: "never-reads", About: "nothing is received", needs: ends, Rule: blocks, do: func(t *trial) { t.connect().deaf = true }},
	{Name: "small-control", About: "there is no room for descriptors (MSG_CTRUNC)", needs: ends, Rule: "recvmsg(2), MSG_CTRUNC: the receiver has lost them, and the sender is not told.", do: func(t *trial) {
		t.connect().receive.Narrow(0)
	}},
	{Name: "slow-reader", About: "a byte of a stream, or a message, is received every 10 ms", needs: ends, Rule: blocks, do: func(t *trial) { t.slowly(t.connect()) }},
	{Name: "tiny-buffer", About: "the socket has the smallest buffers, and is read slowly", needs: ends, Rule: blocks, do: func(t *trial) {
		if p, ok := t.peer.(*program); ok {
			p.tiny = true
			defer func() { p.tiny = false }()
		}
		c := t.connect()
		_ = unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1)
		t.slowly(c)
	}},
	{Name: "closes-at-once", About: "the connection is closed before anything is received", needs: ends, Rule: broken, do: func(t *trial) { t.connect().close() }},
	{Name: "closes-unread", About: "the connection is closed when something has come, unread", needs: ends, Rule: broken, do: func(t *trial) {
		c := t.connect()
		c.deaf = true
		t.readable(c)
		c.close()
	}},
	{Name: "closes-in-message", About: "the connection is closed after the first byte, or message", needs: ends, Rule: broken, do: func(t *trial) {
		c := t.connect()
		t.slowly(c)
		t.wait(t.options.Timeout, func() (bool, error) { return c.heard > 0 || c.gone, nil })
		c.close()
	}},
	{Name: "half-close", About: "it is told at once that no answer will come", needs: ends, Rule: "shutdown(2), SHUT_WR: the other direction goes on.", do: func(t *trial) { t.connect().halfClose() }},
	{Name: "garbage-answer", About: "the answer is random bytes", needs: ends, Rule: taken, do: func(t *trial) {
		t.send(t.connect(), t.noise(1+t.IntN(4096)))
	}},
	{Name: "unasked-descriptors", About: "the answer is a byte with 253 descriptors", needs: ends, Rule: taken, do: func(t *trial) {
		t.send(t.connect(), []byte{0}, t.sockets(scm.MaxFDs)...)
	}},
	{Name: "reconnects", About: "100 connections that are closed at once", needs: ends | server, Rule: broken, do: func(t *trial) {
		for range 100 {
			t.connect().close()
		}
	}},
}

// slowly makes the connection receive as little as can be at a time.
func (t *trial) slowly(c *conn) {
	if c.shut {
		return
	}
	c.pace, c.receive = 1, scm.NewReceiverSize(c.fd, &c.calls, 1)
}

// readable waits until something has come.
func (t *trial) readable(c *conn) {
	t.wait(t.options.Timeout, func() (bool, error) {
		fds := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		return c.shut || err == nil && n > 0, nil
	})
}
