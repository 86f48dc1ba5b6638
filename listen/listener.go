//go:build linux

package listen

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdinfo"
	"fdkit/internal/hint"
	"fdkit/internal/interrupt"
	"fdkit/internal/unixpath"
)

// DefaultBacklog is the default length of the accept backlog, in connections;
// the kernel cuts it to net.core.somaxconn, listen(2).
const DefaultBacklog = 4096

// Options say how addresses are bound.
//
// All but Backlog and those of socket files are socket options, which are for TCP
// addresses, but for Sockopts; Listen and Check return an *OptionError where one does not apply. They
// are set on the listening socket, before it is bound. Connections inherit them,
// but for DeferAccept and FastOpen, which concern how connections come about. On an
// inherited socket they are set as well, for the connections to come, unless
// bind(2) depends on them or it is an MPTCP socket. Zero leaves an option as it is.
type Options struct {
	Backlog int // connections that may wait to be accepted; 0 means DefaultBacklog

	// NoDelay sends small segments at once: TCP_NODELAY, tcp(7).
	NoDelay bool
	// KeepAlive probes silent connections, and ends those whose client has gone:
	// SO_KEEPALIVE, socket(7). Probing begins after KeepAliveIdle of silence, goes
	// on every KeepAliveInterval, and gives up after KeepAliveCount probes without
	// an answer: TCP_KEEPIDLE, TCP_KEEPINTVL and TCP_KEEPCNT, tcp(7). The times are
	// rounded up to seconds, and at most 32767 s; the count is at most 127. Each of
	// them turns KeepAlive on; the kernel's defaults are sysctls, usually 2 h, 75 s
	// and 9.
	KeepAlive                        bool
	KeepAliveIdle, KeepAliveInterval time.Duration
	KeepAliveCount                   int
	// DeferAccept lets a connection be accepted only when its client has sent
	// something or, at most, this time later, rounded up to 1, 3, 7, 15 s and so on:
	// TCP_DEFER_ACCEPT, tcp(7).
	DeferAccept time.Duration
	// FastOpen takes data that comes with a SYN, of at most so many connections that
	// are not yet established: TCP_FASTOPEN, tcp(7). The sysctl
	// net.ipv4.tcp_fastopen must have the bit 2.
	FastOpen int
	// ReusePort shares the port with all sockets of the same user that have it too:
	// SO_REUSEPORT, socket(7).
	ReusePort bool
	// FreeBind binds an address that the machine does not have, or not yet:
	// IP_FREEBIND, ip(7).
	FreeBind bool
	// Transparent is for connections to addresses of others, which a firewall
	// diverts: IP_TRANSPARENT, ip(7). It needs CAP_NET_ADMIN.
	Transparent bool
	// Mark is put on each packet that is sent, for routing and firewalls: SO_MARK,
	// socket(7). It needs CAP_NET_ADMIN.
	Mark uint32
	// BindToDevice names the network interface whose packets alone are processed:
	// SO_BINDTODEVICE, socket(7).
	BindToDevice string
	// V6Only makes an address without a host, which is for IPv6 and IPv4 otherwise,
	// one for IPv6: IPV6_V6ONLY, ipv6(7). Other IPv6 addresses are IPv6 only anyway.
	V6Only bool
	// SocketMode is the permission bits of a Unix socket's file: who may write may
	// connect, unix(7). Zero means what the umask leaves of 0777. SocketUID and
	// SocketGID own it; nil means as the process has it.
	SocketMode           fs.FileMode
	SocketUID, SocketGID *int
	// RecvBuffer and SendBuffer are the sizes of a connection's buffers in bytes,
	// which the kernel doubles for its own needs, cuts to net.core.rmem_max and
	// wmem_max, and no longer adjusts by itself: SO_RCVBUF and SO_SNDBUF, socket(7).
	RecvBuffer, SendBuffer int
	// Sockopts are any others, set in this order after those above. Options of level
	// SOL_SOCKET are for Unix addresses too, whose connections inherit few of them.
	// TCP connections inherit most, and not SO_PRIORITY, which the kernel resets.
	Sockopts []Sockopt

	// Kept, if not nil, are sockets that Listen takes instead of binding others. What of
	// these options can be had by a socket that is bound it gets from NewAcceptor.
	Kept *Kept
}

// Listener is a listening socket.
type Listener struct {
	fd       int
	calls    interrupt.Calls
	local    fdinfo.Address
	wildcard bool              // connections can have other local addresses
	file     unixpath.Identity // of the socket file that Close removes
	path     string            // its path
	renewal  *renewal          // what NewAcceptor has to do; nil: nothing
	lent     bool              // the file is not removed
	blocking bool              // Close takes O_NONBLOCK away again
	name     string            // of a socket that systemd has passed
	closed   sync.Once
}

// Listen binds an address and listens there. The name of a host with several
// addresses gives a Listener for each. An inherited descriptor is taken over; it
// must be listening. So are the sockets that systemd passes, in their order.
func Listen(a Address, o Options) ([]*Listener, error) {
	if o.Backlog == 0 {
		o.Backlog = DefaultBacklog
	}
	var ls []*Listener
	var err error
	switch a.Kind {
	case Inherited:
		var l *Listener
		l, err = inherit(a.FD, a, o)
		ls = []*Listener{l}
	case Systemd:
		ls, err = takePassed(a, o)
	case Unix:
		ls, err = listenUnix(a, o)
	default:
		ls, err = listenTCP(a, o)
	}
	if _, named := errors.AsType[*OptionError](err); named {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("cannot bind %v: %w", a, err)
	}
	return ls, nil
}

func listenTCP(a Address, o Options) (ls []*Listener, err error) {
	if a.Host == "" && a.Version == 0 {
		l, err := bindIP(netip.IPv6Unspecified(), a, true, o)
		if !o.V6Only && (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)) {
			l, err = bindIP(netip.IPv4Unspecified(), a, false, o) // a machine without IPv6
		}
		return []*Listener{l}, err
	}
	var ips []netip.Addr
	switch {
	case a.Host != "":
		if ips, err = a.resolve(); err != nil {
			return nil, err
		}
	case a.Version == 4:
		ips = []netip.Addr{netip.IPv4Unspecified()}
	default:
		ips = []netip.Addr{netip.IPv6Unspecified()}
	}
	var unusable error
	for _, ip := range ips {
		l, err := bindIP(ip, a, false, o)
		switch {
		case err == nil:
			ls = append(ls, l)
			a.Port = l.local.IP.Port() // a chosen port is the same for all addresses of a name
		case errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EADDRNOTAVAIL):
			// localhost has ::1 in many a hosts(5), also where there is no IPv6.
			unusable = err
		default:
			for _, l := range ls {
				l.Close()
			}
			return nil, err
		}
	}
	if len(ls) == 0 {
		return nil, unusable
	}
	return ls, nil
}

func bindIP(ip netip.Addr, a Address, dual bool, o Options) (*Listener, error) {
	ip = ip.Unmap()
	if l := o.Kept.takeIP(ip, dual && !o.V6Only, a, o); l != nil {
		return l.adopt(a, o)
	}
	port := a.Port
	domain := unix.AF_INET6
	var sa unix.Sockaddr
	if ip.Is4() {
		domain, sa = unix.AF_INET, &unix.SockaddrInet4{Addr: ip.As4(), Port: int(port)}
	} else {
		zone, err := zoneID(ip.Zone())
		if err != nil {
			return nil, err
		}
		sa = &unix.SockaddrInet6{Addr: ip.As16(), Port: int(port), ZoneId: zone}
	}
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	l, err := func() (*Listener, error) {
		// So that a restart need not wait for TIME_WAIT to end, socket(7).
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return nil, os.NewSyscallError("setsockopt", err)
		}
		if domain == unix.AF_INET6 {
			only := 1
			if dual {
				only = 0
			}
			if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only); err != nil {
				return nil, os.NewSyscallError("setsockopt", err)
			}
		}
		if err := o.apply(fd, domain, a); err != nil {
			return nil, err
		}
		if err := unix.Bind(fd, sa); err != nil {
			return nil, bindError(err, o)
		}
		if err := unix.Listen(fd, o.Backlog); err != nil {
			return nil, bindError(err, o)
		}
		return newListener(fd)
	}()
	if err != nil {
		_ = unix.Close(fd)
	}
	return l, err
}

func bindError(err error, o Options) error {
	switch err {
	case unix.EADDRINUSE:
		if o.ReusePort {
			return hint.Wrap(err, "all that share a port must be the same user's, and have SO_REUSEPORT; ss -ltnp shows who listens there")
		}
		return hint.Wrap(err, "another process listens there; ss -ltnp shows which")
	case unix.EACCES:
		return hint.Wrap(err, "a port below 1024 is for root, or for CAP_NET_BIND_SERVICE (capabilities(7))")
	case unix.EADDRNOTAVAIL:
		return hint.Wrap(err, "no interface of this machine has that address; ip addr shows what they have")
	}
	return err
}

func zoneID(zone string) (uint32, error) {
	if zone == "" {
		return 0, nil
	}
	if i, err := net.InterfaceByName(zone); err == nil {
		return uint32(i.Index), nil
	}
	var n uint32
	if _, err := fmt.Sscanf(zone, "%d", &n); err != nil {
		return 0, fmt.Errorf("there is no interface %q", zone)
	}
	return n, nil
}

func listenUnix(a Address, o Options) ([]*Listener, error) {
	path := a.Path
	if l := o.Kept.takeUnix(path); l != nil {
		l.path = path
		l, err := l.adopt(a, o)
		return []*Listener{l}, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := o.apply(fd, unix.AF_UNIX, a); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	err = unixpath.Bind(fd, path, o.access(), o.Backlog)
	var l *Listener
	if err == nil {
		l, err = newListener(fd)
	} else if errors.Is(err, unixpath.ErrLive) {
		err = hint.Wrap(err, "another process serves this path; stop it or choose another")
	}
	if err == nil && !unixpath.Abstract(path) {
		l.file, err = unixpath.Identify(path)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return []*Listener{l}, nil
}

// access is that of a socket file.
func (o *Options) access() unixpath.Access {
	access := unixpath.Access{Mode: o.SocketMode, UID: -1, GID: -1}
	if o.SocketUID != nil {
		access.UID = *o.SocketUID
	}
	if o.SocketGID != nil {
		access.GID = *o.SocketGID
	}
	return access
}

func inherit(fd int, a Address, o Options) (*Listener, error) {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
		return nil, errors.New("it is not open")
	}
	listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	switch {
	case errors.Is(err, unix.ENOTSOCK):
		return nil, errors.New("it is no socket")
	case err != nil:
		return nil, os.NewSyscallError("getsockopt", err)
	case listening == 0:
		return nil, notListening(fd)
	}
	domain, err := domainOf(fd)
	if err != nil {
		return nil, err
	}
	if err := o.apply(fd, domain, a); err != nil {
		return nil, err
	}
	return newListener(fd)
}

// notListening tells what a socket is that does not listen.
func notListening(fd int) error {
	if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err == nil && kind == unix.SOCK_DGRAM {
		return hint.Wrap(errors.New("it is a datagram socket, at which no connections are accepted"),
			"ListenStream= of a socket unit makes one for connections")
	}
	if _, err := unix.Getpeername(fd); err == nil {
		return hint.Wrap(errors.New("it is a connection, not a listening socket"),
			"a socket unit with Accept=no passes the listening one")
	}
	return errors.New("it is a socket that does not listen")
}

func newListener(fd int) (*Listener, error) {
	local, ok := fdinfo.LocalAddress(fd)
	if !ok {
		return nil, errors.New("its address is not known")
	}
	return &Listener{fd: fd, local: local, path: local.Path, wildcard: local.IP.IsValid() && local.IP.Addr().IsUnspecified()}, nil
}

// String returns the bound address, with the port that the kernel chose.
func (l *Listener) String() string { return l.local.String() }

// Port returns the TCP port, or 0 if it has none.
func (l *Listener) Port() uint16 { return l.local.IP.Port() }

// Stop ends an Accept that is under way with ErrStopped and lets no further one
// begin. When it returns, every connection that was accepted has been returned
// by an Accept. The socket goes on listening: what comes waits in its backlog.
func (l *Listener) Stop() { l.calls.Stop() }

// Resume ends what Stop began: Accept may be called again.
func (l *Listener) Resume() { l.calls.Resume() }

// Close stops the Listener, closes its socket and removes the socket file that
// Listen made. Connections in the backlog are reset unless another process
// holds the same socket. Further calls do nothing.
func (l *Listener) Close() { l.closed.Do(l.close) }

func (l *Listener) close() {
	l.Stop()
	if l.file != (unixpath.Identity{}) && !l.lent {
		// Under the lock, as another process may just be taking the path.
		if unlock, err := unixpath.LockSoon(l.path); err == nil {
			defer unlock()
		}
		unixpath.Remove(l.path, l.file)
	}
	if l.blocking {
		_ = unix.SetNonblock(l.fd, false) // others may have the same socket
	}
	_ = unix.Close(l.fd)
}
