//go:build linux

package listen

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"fdkit/internal/unixpath"
)

// Kept are listening sockets of other processes, which Listen takes where they are bound
// to the address that is asked for: clients that wait there notice nothing.
type Kept struct{ listeners []*Listener }

// Add adds a socket, and owns its descriptor. Dev and ino tell the file that a Unix socket
// is bound to, and are 0 if it has none. A socket that does not listen is closed.
func (k *Kept) Add(fd int, dev, ino uint64) {
	listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err == nil && listening != 0 && ours(fd) {
		if l, err := newListener(fd); err == nil {
			l.file = unixpath.Identity{Dev: dev, Ino: ino}
			k.listeners = append(k.listeners, l)
			return
		}
	}
	_ = unix.Close(fd)
}

// ours tells whether the socket was made by this user or by root: who can write to the
// place where it was kept need not be trusted with the clients of an address.
func ours(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && (st.Uid == 0 || int(st.Uid) == os.Geteuid())
}

// Close closes those that Listen has not taken, and removes their files, but of those that
// another process has according to taken. It returns the addresses of the others.
func (k *Kept) Close(taken func(fd int) bool) (addresses []string) {
	for _, l := range k.listeners {
		if taken(l.fd) {
			l.lent = true
		} else {
			addresses = append(addresses, l.String())
		}
		l.Close()
	}
	k.listeners = nil
	return addresses
}

// take returns the first Listener that is fit, and nil if there is none.
func (k *Kept) take(fit func(l *Listener) bool) *Listener {
	if k == nil {
		return nil
	}
	i := slices.IndexFunc(k.listeners, fit)
	if i < 0 {
		return nil
	}
	l := k.listeners[i]
	k.listeners = slices.Delete(k.listeners, i, i+1)
	return l
}

// takeIP takes the socket that is bound to ip and port as bindIP would bind another one.
func (k *Kept) takeIP(ip netip.Addr, dual bool, a Address, o Options) *Listener {
	if zone, err := zoneID(ip.Zone()); err == nil && zone != 0 {
		ip = ip.WithZone(strconv.Itoa(int(zone))) // as getsockname(2) has it
	}
	return k.take(func(l *Listener) bool {
		if l.local.Unix || a.Port == 0 || l.local.IP != netip.AddrPortFrom(ip, a.Port) {
			return false
		}
		only, err := unix.GetsockoptInt(l.fd, unix.SOL_IPV6, unix.IPV6_V6ONLY)
		if ip.Is6() && (err != nil || dual != (only == 0)) {
			return false
		}
		device, err := unix.GetsockoptString(l.fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE)
		return err == nil && strings.TrimRight(device, "\x00") == o.BindToDevice && here(l.fd)
	})
}

// here tells whether a socket is in the network namespace of this process, as far as the
// kernel tells: since Linux 5.14.
func here(fd int) bool {
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return true
	}
	own, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return true
	}
	defer unix.Close(own)
	ownCookie, err := unix.GetsockoptUint64(own, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	return err != nil || cookie == ownCookie
}

// takeUnix takes the socket that is bound to the file that is at path now, or to that
// abstract name.
func (k *Kept) takeUnix(path string) *Listener {
	id, err := unixpath.Identify(path)
	return k.take(func(l *Listener) bool {
		switch {
		case !l.local.Unix:
			return false
		case unixpath.Abstract(path):
			return l.local.Path == path && here(l.fd)
		}
		return err == nil && id != unixpath.Identity{} && l.file == id
	})
}

// File returns the device and inode number of the file of a Unix socket that Close
// removes, 0 if there is none.
func (l *Listener) File() (dev, ino uint64) { return l.file.Dev, l.file.Ino }

// renew gives a socket that was kept the options that it is to have now. Those that
// nobody asks for any more are as at the start of a socket, but for Sockopts.
func (l *Listener) renew() error {
	if l.renewal == nil {
		return nil
	}
	a, o := l.renewal.address, l.renewal.options
	l.renewal = nil
	if l.local.Unix {
		access := o.access()
		if l.file != (unixpath.Identity{}) {
			if err := access.Apply(l.path); err != nil {
				return fmt.Errorf("cannot bind %v: %w", a, err)
			}
		}
	}
	domain, err := domainOf(l.fd)
	if err != nil {
		return err
	}
	if err := o.reset(l.fd, domain); err != nil {
		return fmt.Errorf("cannot bind %v: %w", a, err)
	}
	if err := o.set(l.fd, a, func(s *setting) bool { return s.on < unboundTCP }); err != nil {
		return err
	}
	// On a socket that listens it changes the backlog, listen(2).
	return os.NewSyscallError("listen", unix.Listen(l.fd, o.Backlog))
}

// renewal is what a socket that was kept is to be.
type renewal struct {
	address Address
	options Options
}

func (l *Listener) adopt(a Address, o Options) (*Listener, error) {
	domain, err := domainOf(l.fd)
	if err == nil {
		err = o.check(domain, a)
	}
	if err != nil {
		_ = unix.Close(l.Take())
		return nil, err
	}
	l.renewal, l.lent = &renewal{a, o}, true
	return l, nil
}

// Own makes a Listener the one that removes the socket file, which for one of Kept it is
// not from the beginning: whoever fails in between has changed nothing.
func (l *Listener) Own() { l.lent = false }

// sysctls have the values that options of a TCP socket have at its start, where that is
// not 0: tcp(7).
var sysctls = map[int]string{
	unix.TCP_KEEPIDLE:  "tcp_keepalive_time",
	unix.TCP_KEEPINTVL: "tcp_keepalive_intvl",
	unix.TCP_KEEPCNT:   "tcp_keepalive_probes",
}

const soBufLock = 72 // SO_BUF_LOCK, asm-generic/socket.h since 5.14; x/sys has no name for it

// reset takes back what was set on a TCP socket and is not asked for.
func (o *Options) reset(fd, domain int) error {
	if domain != unix.AF_INET && domain != unix.AF_INET6 {
		return nil
	}
	for _, s := range o.table() {
		if s.on != tcpSocket || s.Value != 0 {
			continue
		}
		now, err := unix.GetsockoptInt(fd, s.Level, s.Name)
		if err != nil {
			continue // a kernel without it has nothing to take back
		}
		if s.Level == unix.SOL_SOCKET && (s.Name == unix.SO_RCVBUF || s.Name == unix.SO_SNDBUF) {
			err = resetBuffer(fd, s.Name)
		} else if start := startValue(s.Sockopt); now != start {
			err = unix.SetsockoptInt(fd, s.Level, s.Name, start)
		}
		if err != nil {
			return fmt.Errorf("cannot take back %s: %w", s.option, err)
		}
	}
	return nil
}

func startValue(s Sockopt) (value int) {
	if name, found := sysctls[s.Name]; found && s.Level == unix.SOL_TCP {
		if text, err := os.ReadFile("/proc/sys/net/ipv4/" + name); err == nil {
			_, _ = fmt.Sscan(string(text), &value)
		}
	}
	return value
}

// resetBuffer lets the kernel adjust a buffer again.
func resetBuffer(fd, name int) error {
	bit, sysctl := 1, "tcp_rmem" // SOCK_RCVBUF_LOCK
	if name == unix.SO_SNDBUF {
		bit, sysctl = 2, "tcp_wmem"
	}
	locked, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, soBufLock)
	if err != nil || locked&bit == 0 {
		return nil // an older kernel: the buffer stays as it is
	}
	var least, start int
	text, err := os.ReadFile("/proc/sys/net/ipv4/" + sysctl)
	if err == nil {
		if _, err = fmt.Sscan(string(text), &least, &start); err == nil {
			err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, name, start/2) // the kernel doubles it
		}
	}
	return errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_SOCKET, soBufLock, locked&^bit))
}
