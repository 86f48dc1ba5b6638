//go:build linux

package sockdiag

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Inet is a TCP or UDP socket.
type Inet struct {
	Family        int            // AF_INET or AF_INET6
	Local, Remote netip.AddrPort // IPv4 is never mapped into IPv6
	Listening     bool
	OnlyIPv6      bool   // bound to [::], it has no IPv4 clients: IPV6_V6ONLY, ipv6(7)
	Inode         uint64 // 0: no process can have it, as it is not accepted yet, or closed
}

// socketID is struct inet_diag_sockid, linux/inet_diag.h. Its ports are big-endian.
type socketID struct {
	sport, dport [2]byte
	src, dst     [16]byte
	device       uint32
	cookie       [2]uint32
}

// inetRequest is struct inet_diag_req_v2.
type inetRequest struct {
	family, protocol uint8
	_                [2]uint8 // idiag_ext, pad
	states           uint32
	_                socketID // of which ports could be asked for
}

// inetAnswer is struct inet_diag_msg.
type inetAnswer struct {
	family, state, timer, retrans       uint8
	id                                  socketID
	expires, rqueue, wqueue, uid, inode uint32
}

const (
	skV6Only = 11 // INET_DIAG_SKV6ONLY
	listen   = 10 // TCP_LISTEN, include/net/tcp_states.h
)

// Inet returns all sockets of the protocol, unix.IPPROTO_TCP or unix.IPPROTO_UDP: the
// listening ones only, if that is asked for.
func (c *Conn) Inet(protocol int, listening bool) (all []Inet, err error) {
	request := inetRequest{protocol: uint8(protocol), states: ^uint32(0)}
	if listening && protocol == unix.IPPROTO_TCP {
		request.states = 1 << listen
	}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		request.family = family
		err := ask(c, request, true, func(data []byte) {
			if s, ok := parseInet(data); ok {
				all = append(all, s)
			}
		})
		if err != nil && (family == unix.AF_INET || !errors.Is(err, unix.ENOENT)) { // there may be no IPv6
			return nil, err
		}
	}
	return all, nil
}

func parseInet(data []byte) (s Inet, ok bool) {
	var a inetAnswer
	size := int(unsafe.Sizeof(a))
	if len(data) < size {
		return s, false
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&a)), size), data)
	s = Inet{Family: int(a.family), Listening: a.state == listen, Inode: uint64(a.inode)}
	s.Local, s.Remote = addrPort(a.family, a.id.src, a.id.sport), addrPort(a.family, a.id.dst, a.id.dport)
	attributes(data[size:], func(kind uint16, value []byte) {
		if kind == skV6Only && len(value) > 0 {
			s.OnlyIPv6 = value[0] != 0
		}
	})
	return s, true
}

func addrPort(family uint8, ip [16]byte, port [2]byte) netip.AddrPort {
	addr := netip.AddrFrom16(ip).Unmap()
	if family == unix.AF_INET {
		addr = netip.AddrFrom4([4]byte(ip[:4]))
	}
	return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(port[:]))
}
