//go:build linux

package exec

import (
	"bytes"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdinfo"
	"fdkit/internal/scm"
)

// SourceLimit bounds how many programs run at once for clients of one source: for
// one network of IP addresses, or for one user of a Unix socket.
type SourceLimit struct {
	N int // programs; 0: no limit
	// IPv4Bits and IPv6Bits are how many bits of an address tell one network from
	// another; 0 means 32 and 64. Link-local IPv6 addresses count as a whole, with
	// their zone: all of a link's clients are in one network.
	IPv4Bits, IPv6Bits int
	// Message is written to each client that is refused, as far as its socket
	// takes it at once.
	Message []byte
}

// source is who a connection comes from. The zero value is unknown, and not
// limited.
type source struct {
	network netip.Addr // its first address
	user    bool
	uid     uint32
}

func (s source) known() bool { return s != (source{}) }

// sourceOf returns the source that the variables in payload tell, or if it has none
// the socket fd itself, as the program's environment does.
func (l *SourceLimit) sourceOf(fd int, payload []byte) source {
	if !bytes.HasPrefix(payload, []byte(scm.Begin)) {
		c, ok := fdinfo.Connection(fd)
		switch {
		case ok && c.Remote.IP.IsValid():
			return source{network: l.network(c.Remote.IP.Addr())}
		case ok && c.Peer != nil:
			return source{user: true, uid: c.Peer.Uid}
		}
		return source{}
	}
	if text, ok := scm.Var(payload, "TCPREMOTEIP"); ok {
		if ip, err := netip.ParseAddr(text); err == nil {
			return source{network: l.network(ip.Unmap())}
		}
	}
	if text, ok := scm.Var(payload, "UNIXREMOTEEUID"); ok {
		if uid, err := strconv.ParseUint(text, 10, 32); err == nil {
			return source{user: true, uid: uint32(uid)}
		}
	}
	return source{}
}

func (l *SourceLimit) network(ip netip.Addr) netip.Addr {
	bits := l.IPv6Bits
	switch {
	case ip.Is4() && l.IPv4Bits == 0:
		return ip
	case ip.Is4():
		bits = l.IPv4Bits
	case ip.IsLinkLocalUnicast():
		return ip
	case bits == 0:
		bits = 64
	}
	network, err := ip.Prefix(bits)
	if err != nil {
		return ip
	}
	return network.Addr()
}

// enter counts a program for its source, unless that has enough already.
func (p *Pool) enter(s source) bool {
	if !s.known() {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sources[s] >= p.PerSource.N {
		p.collect() // the reaper may linger
	}
	if p.sources[s] >= p.PerSource.N {
		return false
	}
	p.sources[s]++
	return true
}

// leave undoes enter. The lock is held.
func (p *Pool) leave(s source) {
	if !s.known() {
		return
	}
	if p.sources[s]--; p.sources[s] == 0 {
		delete(p.sources, s)
	}
}

// sayRefused writes the message to a client that is about to be closed.
func sayRefused(fd int, message []byte) {
	if unix.Sendto(fd, message, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil) != nil {
		return
	}
	// What has come is thrown away: TCP would answer the close with a reset
	// otherwise, RFC 2525 2.17, and the reset overtakes the message at the client.
	_, _, _ = unix.Recvfrom(fd, make([]byte, 16<<10), unix.MSG_DONTWAIT|unix.MSG_TRUNC)
}
