//go:build linux

package listen

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/hint"
)

// Sockopt is a socket option by its numbers, setsockopt(2).
type Sockopt struct {
	Level, Name int
	Value       int32  // also for options that take an unsigned number
	Text        string // instead of Value, if not ""
}

// OptionError says that a socket option cannot be had at an address.
type OptionError struct {
	// Option is its name among the options of fdkit-listen(1), such as nodelay.
	Option string
	// Address is where it was asked for.
	Address string
	// Err is what the kernel says, or nil if the option does not apply to such an
	// address.
	Err error
}

func (e *OptionError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("%s does not apply to %s", e.Option, e.Address)
	}
	return fmt.Sprintf("cannot set %s at %s: %v", e.Option, e.Address, e.Err)
}

func (e *OptionError) Unwrap() error { return e.Err }

// setting is a socket option that is asked for.
type setting struct {
	option string // as in OptionError
	Sockopt
	on families
}

// families are the sockets that a setting applies to.
type families int

const (
	anySocket families = iota
	tcpSocket
	ipv6Socket
	// bind(2) depends on it, or makes it final: a socket that is bound already
	// cannot get it any more.
	unboundTCP
	unboundIPv6
)

// table returns the options that have a name here. Zero means: not asked for.
func (o *Options) table() []setting {
	keepAlive := o.KeepAlive || o.KeepAliveIdle != 0 || o.KeepAliveInterval != 0 || o.KeepAliveCount != 0
	return []setting{
		{"reuseport", number(unix.SOL_SOCKET, unix.SO_REUSEPORT, truth(o.ReusePort)), unboundTCP},
		{"freebind", number(unix.SOL_IP, unix.IP_FREEBIND, truth(o.FreeBind)), unboundTCP},
		{"transparent", number(unix.SOL_IP, unix.IP_TRANSPARENT, truth(o.Transparent)), unboundTCP},
		{"bind-to-device", Sockopt{unix.SOL_SOCKET, unix.SO_BINDTODEVICE, 0, o.BindToDevice}, unboundTCP},
		{"v6only", number(unix.SOL_IPV6, unix.IPV6_V6ONLY, truth(o.V6Only)), unboundIPv6},
		{"mark", number(unix.SOL_SOCKET, unix.SO_MARK, o.Mark), tcpSocket},
		{"rcvbuf", number(unix.SOL_SOCKET, unix.SO_RCVBUF, o.RecvBuffer), tcpSocket},
		{"sndbuf", number(unix.SOL_SOCKET, unix.SO_SNDBUF, o.SendBuffer), tcpSocket},
		{"nodelay", number(unix.SOL_TCP, unix.TCP_NODELAY, truth(o.NoDelay)), tcpSocket},
		{"keepalive", number(unix.SOL_SOCKET, unix.SO_KEEPALIVE, truth(keepAlive)), tcpSocket},
		{"keepalive-idle", number(unix.SOL_TCP, unix.TCP_KEEPIDLE, seconds(o.KeepAliveIdle)), tcpSocket},
		{"keepalive-interval", number(unix.SOL_TCP, unix.TCP_KEEPINTVL, seconds(o.KeepAliveInterval)), tcpSocket},
		{"keepalive-count", number(unix.SOL_TCP, unix.TCP_KEEPCNT, o.KeepAliveCount), tcpSocket},
		{"defer-accept", number(unix.SOL_TCP, unix.TCP_DEFER_ACCEPT, seconds(o.DeferAccept)), tcpSocket},
		{"fastopen", number(unix.SOL_TCP, unix.TCP_FASTOPEN, o.FastOpen), tcpSocket},
	}
}

// settings returns what is asked for.
func (o *Options) settings() []setting {
	all := o.table()
	final := func(s Sockopt) bool {
		return slices.ContainsFunc(all, func(row setting) bool {
			return row.on >= unboundTCP && row.Level == s.Level && row.Name == s.Name
		})
	}
	var asked []setting
	for _, s := range o.Sockopts {
		on := anySocket
		switch s.Level {
		case unix.SOL_TCP, unix.SOL_IP:
			on = tcpSocket
		case unix.SOL_IPV6:
			on = ipv6Socket
		}
		switch {
		case !final(s):
		case on == ipv6Socket:
			on = unboundIPv6
		default:
			on = unboundTCP
		}
		asked = append(asked, setting{"sockopt " + s.String(), s, on})
	}
	all = slices.DeleteFunc(all, func(s setting) bool { return s.Value == 0 && s.Text == "" })
	return append(all, asked...) // what is asked for by number has the last word
}

func number[N int | uint32](level, name int, value N) Sockopt {
	return Sockopt{Level: level, Name: name, Value: int32(value)}
}

func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}

// seconds rounds up: half a second is not none.
func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

// Check returns an error, an *OptionError with no cause, if an option does not
// apply to the address. Listen checks that too, but may have bound other
// addresses until then. What the addresses of a host name are, only Listen knows.
func (o Options) Check(a Address) error {
	domain := unix.AF_INET6
	ip, notIP := netip.ParseAddr(a.Host)
	switch {
	case a.Kind == Unix:
		domain = unix.AF_UNIX
	case a.Kind == Inherited, a.Kind == Systemd:
		sockets, err := a.Sockets()
		if err != nil {
			return nil // Listen says what is wrong
		}
		for _, s := range sockets {
			if domain, err = domainOf(s.FD); err != nil {
				return nil // inherit says what it is
			}
			if err := o.check(domain, a); err != nil {
				return err
			}
		}
		return nil
	case a.Version == 4, notIP == nil && ip.Unmap().Is4():
		domain = unix.AF_INET
	case a.Host == "", a.Version == 6, notIP == nil:
	default:
		return nil
	}
	return o.check(domain, a)
}

// mptcp stands for the domain of sockets that speak Multipath TCP: what is set on
// such a socket is not in force on connections, whose clients mostly speak TCP.
const mptcp = -1

func domainOf(fd int) (domain int, err error) {
	protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err == nil && protocol == unix.IPPROTO_MPTCP {
		return mptcp, nil
	}
	domain, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	return domain, os.NewSyscallError("getsockopt", err)
}

func (o *Options) check(domain int, a Address) error {
	for _, s := range o.settings() {
		if why, ok := s.on.include(domain, a.Kind == Inherited || a.Kind == Systemd); !ok {
			return hint.Wrap(&OptionError{Option: s.option, Address: a.String()}, why)
		}
	}
	return nil
}

// include tells whether an option is for sockets of the domain, and why not.
func (f families) include(domain int, bound bool) (why string, ok bool) {
	tcp := domain == unix.AF_INET || domain == unix.AF_INET6 || domain == mptcp
	switch {
	case f == anySocket:
		return "", true
	case !tcp:
		return "it is for TCP sockets; other addresses need a command of their own", false
	case bound && f >= unboundTCP:
		return "whoever binds the socket sets it, before", false
	case domain == mptcp:
		return "it is an MPTCP socket, whose connections would not have it; in Go, net.ListenConfig.SetMultipathTCP(false) makes one of TCP", false
	case (f == ipv6Socket || f == unboundIPv6) && domain != unix.AF_INET6:
		return "it is for IPv6 sockets, such as that of [ADDRESS]:PORT or tcp6:HOST:PORT", false
	}
	return "", true
}

// apply sets the options on a socket that is not bound yet, or on one that was
// inherited. Nothing of it has to wait until the socket is bound; and connections
// have what their listening socket has, at the latest, when the client's SYN comes.
func (o *Options) apply(fd, domain int, a Address) error {
	if err := o.check(domain, a); err != nil {
		return err
	}
	return o.set(fd, a, func(*setting) bool { return true })
}

// set sets those options that which tells.
func (o *Options) set(fd int, a Address, which func(*setting) bool) error {
	for _, s := range o.settings() {
		if !which(&s) {
			continue
		}
		if err := s.set(fd); err != nil {
			err = &OptionError{Option: s.describe(), Address: a.String(), Err: err}
			if cure := s.cure(errors.Unwrap(err)); cure != "" {
				err = hint.Wrap(err, cure)
			}
			return err
		}
	}
	return nil
}

func (s *setting) describe() string {
	switch {
	case s.Text != "" && s.option == "bind-to-device":
		return s.option + " " + s.Text
	case s.option == "mark":
		return fmt.Sprintf("%s %#x", s.option, uint32(s.Value))
	}
	return s.option
}

func (s *Sockopt) set(fd int) error {
	if s.Text == "" {
		return unix.SetsockoptInt(fd, s.Level, s.Name, int(s.Value))
	}
	if s.isDevice() && len(s.Text) >= unix.IFNAMSIZ {
		return unix.ENODEV // the kernel would cut it, and perhaps find another
	}
	return unix.SetsockoptString(fd, s.Level, s.Name, s.Text)
}

func (s *Sockopt) isDevice() bool {
	return s.Level == unix.SOL_SOCKET && s.Name == unix.SO_BINDTODEVICE
}

// cure returns a hint for an error of setsockopt, or "".
func (s *Sockopt) cure(err error) string {
	congestion := s.Level == unix.SOL_TCP && s.Name == unix.TCP_CONGESTION
	switch {
	case err == unix.EPERM && congestion:
		return "sysctl net.ipv4.tcp_allowed_congestion_control lists what is for everybody; others need CAP_NET_ADMIN (capabilities(7))"
	case err == unix.EPERM:
		return "it needs CAP_NET_ADMIN (capabilities(7)), which root has"
	case err == unix.ENOENT && congestion:
		return "sysctl net.ipv4.tcp_available_congestion_control lists what there is; modprobe tcp_NAME loads others"
	case err == unix.ENODEV && s.isDevice():
		return "ip link lists the interfaces"
	case err == unix.ENOPROTOOPT:
		return "this kernel has no such option for such a socket"
	case err == unix.EINVAL:
		return "the value is out of range, or the option takes no number"
	}
	return ""
}
