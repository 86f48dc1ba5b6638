//go:build linux

package route

import (
	"container/list"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdinfo"
	"fdkit/internal/scm"
)

// Connection is a message on its way.
type Connection struct {
	FDs     []int // the first of them is looked at
	Payload []byte
	Key     string // that was found
	Known   bool   // there is one

	serial  int32         // tells it from others that have had its descriptor
	arrival *list.Element // while it waits for its key
	since   time.Time
	seen    int // bytes that the client had sent at the last look
	lowat   int // the SO_RCVLOWAT that is to be restored; 0: it is as it was
}

func (c *Connection) close() {
	for _, fd := range c.FDs {
		_ = unix.Close(fd)
	}
	c.FDs = nil
}

// admit takes up what has come in a message.
func (r *Router) admit(m *scm.Message) {
	c := &Connection{FDs: slices.Clone(m.FDs), Payload: slices.Clone(m.Payload)}
	switch {
	case r.By.Address:
		c.Key, c.Known = r.By.OfAddress(c.ends())
		r.route(c, 0)
		return
	case !isStream(c.FDs[0]):
		r.route(c, 0)
		return
	case r.look(c, false):
		return
	}
	r.hold(c)
}

// isStream tells whether fd is a socket whose bytes can be looked at.
func isStream(fd int) bool {
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || typ != unix.SOCK_STREAM {
		return false
	}
	listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	return err == nil && listens == 0
}

// hold lets a client wait for its key. With EPOLLET what was looked at and stays unread
// wakes nobody again.
func (r *Router) hold(c *Connection) {
	fd := int32(c.FDs[0])
	if r.serial++; r.serial <= 0 {
		r.serial = 1
	}
	c.serial, c.since = r.serial, time.Now()
	c.arrival = r.arrivals.PushBack(c)
	r.clients[fd] = c
	r.held += len(c.FDs)
	r.keyless += len(c.FDs)
	err := unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, int(fd), &unix.EpollEvent{
		Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET&0xffffffff, Fd: fd, Pad: c.serial,
	})
	if err != nil { // fs.epoll.max_user_watches, epoll(7), or no memory
		r.forget(c)
		r.fail(c, RefusedSending, "cannot wait for a client", err)
	}
}

// forget ends the wait of a client for its key. From now on its open file description is
// somebody else's as well, and epoll would go on to tell of it, epoll(7).
func (r *Router) forget(c *Connection) {
	if c.arrival == nil {
		return
	}
	_ = unix.EpollCtl(r.epoll, unix.EPOLL_CTL_DEL, c.FDs[0], nil)
	r.arrivals.Remove(c.arrival)
	c.arrival = nil
	delete(r.clients, int32(c.FDs[0]))
	r.held -= len(c.FDs)
	r.keyless -= len(c.FDs)
	if c.lowat > 0 {
		_ = unix.SetsockoptInt(c.FDs[0], unix.SOL_SOCKET, unix.SO_RCVLOWAT, c.lowat)
	}
}

func (r *Router) oldest() *Connection {
	if first := r.arrivals.Front(); first != nil {
		return first.Value.(*Connection)
	}
	return nil
}

// attend looks at a client that something has happened to.
func (r *Router) attend(c *Connection, events uint32) {
	if events&unix.EPOLLERR != 0 { // a reset: nobody is there, though what was sent can be read
		r.forget(c)
		r.refuse(c, RefusedGone)
		return
	}
	r.look(c, events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0)
}

// look looks for the key of a client, who may have ended what it sends. It returns false
// if the client is still to be waited for.
func (r *Router) look(c *Connection, ended bool) (settled bool) {
	n, err := receive(c.FDs[0], r.buffer, unix.MSG_PEEK)
	switch {
	case err == unix.EAGAIN:
		return false
	case err == unix.ENOTCONN: // and it has never been
		r.forget(c)
		r.route(c, 0)
		return true
	case err != nil, n == 0:
		r.forget(c)
		r.refuse(c, RefusedGone)
		return true
	}
	c.seen = n
	data := r.buffer[:n]
	key, used, verdict := r.By.Find(data, ended)
	if ended && verdict == None {
		// Is it because no more will come?
		if _, _, before := r.By.Find(data, false); before == More {
			r.forget(c)
			r.refuse(c, RefusedGone)
			return true
		}
	}
	if verdict == More {
		r.wants(c, used)
		return false
	}
	r.forget(c)
	if verdict == Found {
		c.Key, c.Known = key, true
	} else {
		used = 0
	}
	r.route(c, used)
	return true
}

// wants lets epoll tell of a client only when it has sent so many bytes, where that is
// known. TCP heeds it, tcp_stream_is_readable() in net/ipv4/tcp.c, and a Unix socket
// does not.
func (r *Router) wants(c *Connection, bytes int) {
	if bytes <= c.seen+1 && c.lowat == 0 {
		return
	}
	fd := c.FDs[0]
	if c.lowat == 0 {
		before, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT)
		if err != nil {
			return
		}
		c.lowat = max(before, 1)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, bytes)
}

// receive is recv(2) that does not wait.
func receive(fd int, b []byte, flags int) (n int, err error) {
	for {
		n, _, err = unix.Recvfrom(fd, b, flags|unix.MSG_DONTWAIT)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// deadline returns when the time of a client is up.
func (r *Router) deadline(c *Connection) time.Time {
	at := c.since.Add(r.Timeout)
	if !r.limit.IsZero() && r.limit.Before(at) {
		return r.limit
	}
	return at
}

// expire gives up clients whose time is up.
func (r *Router) expire(now time.Time) {
	for c := r.oldest(); c != nil && !now.Before(r.deadline(c)); c = r.oldest() {
		reason := RefusedTimeout
		if now.Before(c.since.Add(r.Timeout)) {
			reason = RefusedAtEnd
		}
		r.giveUp(c, reason)
	}
}

// giveUp waits no more for the key of a client.
func (r *Router) giveUp(c *Connection, reason string) {
	if r.look(c, false) { // it may have come just now
		return
	}
	r.forget(c)
	if c.seen == 0 && r.Silent != "" {
		r.deliver(c, r.Silent)
		return
	}
	r.refuse(c, reason)
}

// refuse closes a connection.
func (r *Router) refuse(c *Connection, reason string) {
	if r.Refused != nil {
		r.Refused(c, reason)
	}
	c.close()
}

// route sends a connection to the queue of its key, or to the default one if it has none.
// So many bytes are those of the key.
func (r *Router) route(c *Connection, used int) {
	queue, found := r.table.Default()
	if c.Known {
		queue, found = r.table.Queue(c.Key)
	}
	if !found {
		r.refuse(c, RefusedNoRoute)
		return
	}
	if r.Consume && !consume(c.FDs[0], r.buffer[:used]) {
		r.refuse(c, RefusedGone)
		return
	}
	r.deliver(c, queue)
}

// ends returns the addresses of the connection: those in the message, which a PROXY
// header may have told, else the socket's own.
func (c *Connection) ends() (remote, local netip.AddrPort) {
	remote = c.address("TCPREMOTE")
	local = c.address("TCPLOCAL")
	if conn, ok := fdinfo.Connection(c.FDs[0]); ok {
		if !remote.IsValid() {
			remote = conn.Remote.IP
		}
		if !local.IsValid() {
			local = conn.Local.IP
		}
	}
	return remote, local
}

func (c *Connection) address(prefix string) netip.AddrPort {
	text, _ := scm.Var(c.Payload, prefix+"IP")
	number, _ := scm.Var(c.Payload, prefix+"PORT")
	ip, _ := netip.ParseAddr(text)
	port, _ := strconv.ParseUint(number, 10, 16)
	return netip.AddrPortFrom(ip, uint16(port))
}

// consume takes bytes from a stream that are there.
func consume(fd int, room []byte) bool {
	for len(room) > 0 {
		n, err := receive(fd, room, 0)
		if err != nil || n == 0 {
			return false
		}
		room = room[n:]
	}
	return true
}
