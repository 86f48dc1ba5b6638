//go:build linux

// Package fdinfo tells what a descriptor is.
package fdinfo

import (
	"bytes"
	"net/netip"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Address is one end of a socket. The zero value is an unknown address.
type Address struct {
	IP   netip.AddrPort // if valid, an IPv4 or IPv6 address
	Unix bool           // a Unix socket's address
	Path string         // of a Unix socket: a path, an @abstract name, or "" if it has none
}

// AppendTo appends the address as fdkit listen takes it: 192.0.2.1:80,
// [2001:db8::1]:80, unix:/run/a.sock, unix:@name.
func (a Address) AppendTo(b []byte) []byte {
	switch {
	case a.IP.IsValid():
		return a.IP.AppendTo(b)
	case a.Unix:
		return append(append(b, "unix:"...), a.Path...)
	}
	return append(b, "unknown"...)
}

func (a Address) String() string { return string(a.AppendTo(nil)) }

// Sockaddr is room for a socket address as the kernel writes it.
type Sockaddr struct {
	Any unix.RawSockaddrAny
	Len uint32
}

// Reset makes room for the largest address.
func (s *Sockaddr) Reset() { s.Len = unix.SizeofSockaddrAny }

// Address decodes s. An IPv4 address that an IPv6 socket shows as ::ffff:a.b.c.d
// is given as IPv4.
func (s *Sockaddr) Address() Address {
	switch s.Any.Addr.Family {
	case unix.AF_INET:
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(&s.Any))
		return Address{IP: netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), hostOrder(&sa.Port))}
	case unix.AF_INET6:
		sa := (*unix.RawSockaddrInet6)(unsafe.Pointer(&s.Any))
		ip := netip.AddrFrom16(sa.Addr).Unmap()
		if sa.Scope_id != 0 && ip.Is6() {
			ip = ip.WithZone(strconv.Itoa(int(sa.Scope_id)))
		}
		return Address{IP: netip.AddrPortFrom(ip, hostOrder(&sa.Port))}
	case unix.AF_UNIX:
		return Address{Unix: true, Path: s.path()}
	}
	return Address{}
}

func hostOrder(port *uint16) uint16 {
	b := (*[2]byte)(unsafe.Pointer(port))
	return uint16(b[0])<<8 | uint16(b[1])
}

func (s *Sockaddr) path() string {
	const header = 2 // sun_family
	n := min(int(s.Len), unix.SizeofSockaddrUnix) - header
	if n <= 0 {
		return "" // unnamed, unix(7)
	}
	sa := (*unix.RawSockaddrUnix)(unsafe.Pointer(&s.Any))
	name := unsafe.Slice((*byte)(unsafe.Pointer(&sa.Path[0])), n)
	if name[0] == 0 {
		// An abstract name may have more NUL bytes, which would end a variable
		// early and begin another: @ stands for each, as in /proc/net/unix.
		return string(bytes.ReplaceAll(name, []byte{0}, []byte("@")))
	}
	name, _, _ = bytes.Cut(name, []byte{0})
	return string(name)
}

// LocalAddress asks the socket fd for its own address.
func LocalAddress(fd int) (Address, bool) { return ask(unix.SYS_GETSOCKNAME, fd) }

// PeerAddress asks the socket fd for its peer's address. It is not known if the
// peer has gone already.
func PeerAddress(fd int) (Address, bool) { return ask(unix.SYS_GETPEERNAME, fd) }

func ask(call uintptr, fd int) (Address, bool) {
	var s Sockaddr
	s.Reset()
	_, _, errno := unix.RawSyscall(call, uintptr(fd),
		uintptr(unsafe.Pointer(&s.Any)), uintptr(unsafe.Pointer(&s.Len)))
	if errno != 0 {
		return Address{}, false
	}
	return s.Address(), true
}
