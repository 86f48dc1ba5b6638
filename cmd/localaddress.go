//go:build linux

package cmd

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"fdkit/internal/fdinfo"
	"fdkit/internal/hint"
	"fdkit/listen"
)

// localAddress is where a socket listens or, of datagrams, is bound.
type localAddress struct {
	text     string
	protocol string     // tcp, udp or unix
	version  int        // of IP: 4, 6, or 0 for any
	ip       netip.Addr // invalid: any
	port     uint16
	path     string // of a Unix socket, or an @abstract name
}

// parseLocalAddress parses an address as fdkit listen takes it, and with udp:, udp4: and
// udp6: for tcp:, tcp4: and tcp6:. A Unix socket's may go without unix:. The errors are
// those of wrong usage.
func parseLocalAddress(text string) (localAddress, error) {
	l := localAddress{text: text, protocol: "tcp"}
	rest := text
	switch {
	case strings.HasPrefix(text, "@"), isPath(text):
		rest = "unix:" + text
	case strings.HasPrefix(text, "udp:"), strings.HasPrefix(text, "udp4:"), strings.HasPrefix(text, "udp6:"):
		l.protocol, rest = "udp", "tcp"+strings.TrimPrefix(text, "udp")
	}
	a, err := listen.ParseAddress(rest)
	switch {
	case err != nil:
		return l, usagef("address %q: %w", text, err)
	case a.Kind == listen.Unix:
		l.protocol, l.path = "unix", a.Path
	case a.Kind != listen.TCP:
		return l, usagef("address %q: a socket is looked for by its port or path", text)
	case a.Port == 0:
		return l, usagef("address %q: no socket has port 0", text)
	}
	l.version, l.port = a.Version, a.Port
	if a.Host == "" {
		return l, nil
	}
	network := map[int]string{0: "ip", 4: "ip4", 6: "ip6"}[a.Version]
	ip, err := net.ResolveIPAddr(network, a.Host)
	if err != nil {
		return l, fmt.Errorf("address %q: %w", text, err)
	}
	l.ip, _ = netip.AddrFromSlice(ip.IP)
	l.ip = l.ip.Unmap()
	return l, nil
}

// isPath tells whether an operand has a slash before any colon, or begins with a dot.
func isPath(operand string) bool {
	i := strings.IndexAny(operand, ":/")
	return i >= 0 && operand[i] == '/' || strings.HasPrefix(operand, ".")
}

// fit is how well a socket fits an address.
type fit int

const (
	fitsNot fit = iota
	fitsAll     // it is bound to all addresses, and so to this one
	fits
)

// of tells whether a socket that is bound to local has clients at the address.
func (l localAddress) of(local netip.AddrPort, onlyIPv6 bool) fit {
	ip := local.Addr()
	takesIPv4 := ip.Is4() || ip == netip.IPv6Unspecified() && !onlyIPv6
	wantsIPv4, wantsIPv6 := l.version == 4 || l.ip.Is4(), l.version == 6 || l.ip.Is6()
	switch {
	case local.Port() != l.port, wantsIPv4 && !takesIPv4, wantsIPv6 && ip.Is4():
		return fitsNot
	case !l.ip.IsValid(), ip == l.ip.WithZone(""):
		return fits
	case ip.IsUnspecified():
		return fitsAll
	}
	return fitsNot
}

// ofSocket is the same of a socket that is described.
func (l localAddress) ofSocket(s *fdinfo.SocketInfo) fit {
	if l.protocol == "unix" {
		if s.Family == "unix" && s.Local == "unix:"+l.path && !s.Connected {
			return fits
		}
		return fitsNot
	}
	local, err := netip.ParseAddrPort(s.Local)
	isServer := s.Listening && l.protocol == "tcp" && (s.Protocol == "tcp" || s.Protocol == "mptcp") ||
		l.protocol == "udp" && s.Protocol == "udp"
	if err != nil || !isServer {
		return fitsNot
	}
	return l.of(netip.AddrPortFrom(local.Addr().WithZone(""), local.Port()), false)
}

// find returns the descriptor by which a process has the socket at the address.
func (l localAddress) find(pid int) (fd int, err error) {
	p, err := fdinfo.Open(pid)
	if err != nil {
		return -1, err
	}
	defer p.Close()
	fds, err := p.List()
	if err != nil {
		return -1, err
	}
	found := map[fit][]fdinfo.Description{}
	inodes := map[uint64]bool{}
	for _, fd := range fds {
		d, err := p.Describe(fd)
		switch {
		case errors.Is(err, fdinfo.ErrEnded):
			return -1, err
		case err != nil || d.Socket == nil || inodes[d.Inode]: // not any more, or the same again
		default:
			inodes[d.Inode] = true
			f := l.ofSocket(d.Socket)
			found[f] = append(found[f], d)
		}
	}
	best := found[fits]
	if best == nil {
		best = found[fitsAll]
	}
	switch len(best) {
	case 1:
		return best[0].FD, nil
	case 0:
		return -1, hint.Wrap(fmt.Errorf("process %d has no socket that listens there", pid),
			fmt.Sprintf("fdkit inspect %d: shows what it has, fdkit who %s who listens there", pid, l.text))
	}
	return -1, hint.Wrap(fmt.Errorf("process %d has %d sockets that listen there", pid, len(best)),
		fmt.Sprintf("the first one is %d:%d", pid, best[0].FD))
}
