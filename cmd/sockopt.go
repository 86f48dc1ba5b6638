//go:build linux

package cmd

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"fdkit/internal/hint"
	"fdkit/listen"
)

func backlogFlag() cli.Flag {
	return numberFlag("backlog", "let `N` connections wait in the kernel", 1, 1<<31-1, listen.DefaultBacklog)
}

// socketFlags are the socket options of the addresses to listen on.
func socketFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "nodelay", Usage: "send small segments at once (TCP_NODELAY)", DisableDefaultText: true},
		&cli.BoolFlag{Name: "keepalive", Usage: "end connections whose client has gone (SO_KEEPALIVE)", DisableDefaultText: true},
		secondsFlag("keepalive-idle", "as --keepalive, and ask the client after `TIME` of silence"),
		secondsFlag("keepalive-interval", "as --keepalive, and ask again every `TIME`"),
		numberFlag("keepalive-count", "as --keepalive, and ask `N` times", 1, 127, 0), // MAX_TCP_KEEPCNT, net/tcp.h
		secondsFlag("defer-accept", "accept when the client has sent something, or after `TIME` (TCP_DEFER_ACCEPT)"),
		numberFlag("fastopen", "take data that comes with the SYN, of `N` connections at once (TCP_FASTOPEN)", 1, 1<<31-1, 0),
		&cli.BoolFlag{Name: "reuseport", Usage: "share the port with others that have this option (SO_REUSEPORT)", DisableDefaultText: true},
		&cli.BoolFlag{Name: "freebind", Usage: "bind an address that is not there, or not yet (IP_FREEBIND)", DisableDefaultText: true},
		&cli.BoolFlag{Name: "transparent", Usage: "take connections to addresses of others, that a firewall diverts (IP_TRANSPARENT)", DisableDefaultText: true},
		&cli.GenericFlag{Name: "mark", Usage: "put mark `N` on what is sent, for routing and firewalls (SO_MARK)", Value: new(mark), DefaultText: "none"},
		&cli.StringFlag{Name: "bind-to-device", Usage: "take connections of network interface `NAME` only (SO_BINDTODEVICE)"},
		&cli.BoolFlag{Name: "v6only", Usage: "let :PORT be for IPv6 only (IPV6_V6ONLY)", DisableDefaultText: true},
		numberFlag("rcvbuf", "have receive buffers of `BYTES` (SO_RCVBUF)", 1, 1<<30-1, 0),
		numberFlag("sndbuf", "have send buffers of `BYTES` (SO_SNDBUF)", 1, 1<<30-1, 0),
		&cli.StringSliceFlag{Name: "sockopt", Usage: "set any other socket option, `LEVEL:NAME:VALUE`, such as tcp:TCP_USER_TIMEOUT:5000"},
	}
}

// socketFileFlags are the options of the files of Unix sockets.
func socketFileFlags() []cli.Flag {
	return []cli.Flag{
		&cli.GenericFlag{Name: "socket-mode", Usage: "permission `BITS` of the files of Unix sockets: who may write may connect", Value: &mode{}, DefaultText: "as the umask has it"},
		&cli.GenericFlag{Name: "socket-owner", Usage: "`USER[:GROUP]` that owns the files of Unix sockets", Value: &owner{}, DefaultText: "none"},
	}
}

// wholeSeconds is the value of an option that takes a time in seconds.
type wholeSeconds struct{ duration }

// maxSeconds is the most that the kernel takes, MAX_TCP_KEEPIDLE and
// MAX_TCP_KEEPINTVL in net/tcp.h.
const maxSeconds = 32767

// secondsFlag is a flag for a time such as 1m30s, which must be whole seconds. It is
// zero if the option is not given.
func secondsFlag(name, usage string) cli.Flag {
	return &cli.GenericFlag{Name: name, Usage: usage, Value: new(wholeSeconds), DefaultText: "none"}
}

func (s *wholeSeconds) Set(text string) error {
	var d duration
	if err := d.Set(text); err != nil {
		return err
	}
	if d.value%time.Second != 0 || d.value < time.Second || d.value > maxSeconds*time.Second {
		return fmt.Errorf("%q is no time of whole seconds from 1s to %ds", text, maxSeconds)
	}
	s.duration = d
	return nil
}

// mark is the value of an option that takes a number as ip-rule(8) writes it.
type mark struct{ value uint32 }

func (m *mark) Set(text string) error {
	digits, base := text, 10
	if hexadecimal, ok := strings.CutPrefix(text, "0x"); ok {
		digits, base = hexadecimal, 16
	}
	value, err := strconv.ParseUint(digits, base, 32)
	if err != nil || value == 0 {
		return fmt.Errorf("%q is no number from 1 to 4294967295 or 0xffffffff", text)
	}
	m.value = uint32(value)
	return nil
}

func (m *mark) String() string { return strconv.Itoa(int(m.value)) }

// listenOptions returns how the addresses are to be bound, if that can be.
func listenOptions(c *cli.Context, addresses []listen.Address) (listen.Options, error) {
	timeOf := func(name string) time.Duration { return c.Generic(name).(*wholeSeconds).value }
	o := listen.Options{
		Backlog:           numberOf(c, "backlog"),
		NoDelay:           c.Bool("nodelay"),
		KeepAlive:         c.Bool("keepalive"),
		KeepAliveIdle:     timeOf("keepalive-idle"),
		KeepAliveInterval: timeOf("keepalive-interval"),
		KeepAliveCount:    numberOf(c, "keepalive-count"),
		DeferAccept:       timeOf("defer-accept"),
		FastOpen:          numberOf(c, "fastopen"),
		ReusePort:         c.Bool("reuseport") || reusePort(c) > 0,
		FreeBind:          c.Bool("freebind"),
		Transparent:       c.Bool("transparent"),
		Mark:              c.Generic("mark").(*mark).value,
		BindToDevice:      c.String("bind-to-device"),
		V6Only:            c.Bool("v6only"),
		RecvBuffer:        numberOf(c, "rcvbuf"),
		SendBuffer:        numberOf(c, "sndbuf"),
		SocketMode:        c.Generic("socket-mode").(*mode).value,
	}
	owner := c.Generic("socket-owner").(*owner)
	o.SocketUID, o.SocketGID = owner.uid, owner.gid
	isFile := func(a listen.Address) bool { return a.Kind == listen.Unix && !strings.HasPrefix(a.Path, "@") }
	for _, option := range []string{"socket-mode", "socket-owner"} {
		if c.IsSet(option) && !slices.ContainsFunc(addresses, isFile) {
			return o, usagef("option --%s: it is for unix:PATH, and there is no such address", option)
		}
	}
	if c.IsSet("bind-to-device") && o.BindToDevice == "" {
		return o, usageHint("ip link lists the interfaces", `option --bind-to-device: "" is no interface`)
	}
	for _, text := range c.StringSlice("sockopt") {
		s, err := listen.ParseSockopt(text)
		if err != nil {
			return o, usagef("option --sockopt: %s: %w", text, err)
		}
		o.Sockopts = append(o.Sockopts, s)
	}
	for _, a := range addresses {
		if err := o.Check(a); err != nil {
			return o, socketError(err)
		}
	}
	return o, nil
}

// socketError puts an error of package listen that concerns a socket option into
// the words of the command line.
func socketError(err error) error {
	e, ok := errors.AsType[*listen.OptionError](err)
	if !ok {
		return err
	}
	e.Option = "--" + e.Option
	if e.Err == nil {
		return usageError{err}
	}
	return err
}

// warnCut says when the kernel silently does less than what was asked for.
func warnCut(c *cli.Context, log logger) {
	for _, option := range []struct{ name, sysctl string }{
		{"backlog", "net.core.somaxconn"},
		{"rcvbuf", "net.core.rmem_max"},
		{"sndbuf", "net.core.wmem_max"},
	} {
		limit, err := sysctl(option.sysctl)
		if asked := numberOf(c, option.name); err == nil && c.IsSet(option.name) && asked > limit {
			log.error(hint.Wrap(fmt.Errorf("--%s %d: the kernel cuts it to %d", option.name, asked, limit),
				"sysctl -w "+option.sysctl+"=N raises the limit"))
		}
	}
	// tcp_fastopen in the kernel's ip-sysctl.rst: 2 is for servers.
	if bits, err := sysctl("net.ipv4.tcp_fastopen"); err == nil && c.IsSet("fastopen") && bits&2 == 0 {
		log.error(hint.Wrap(fmt.Errorf("--fastopen %d: the kernel ignores it", numberOf(c, "fastopen")),
			fmt.Sprintf("sysctl -w net.ipv4.tcp_fastopen=%d lets servers have it", bits|2)))
	}
}

func sysctl(name string) (value int, err error) {
	text, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	if err == nil {
		_, err = fmt.Sscan(string(text), &value)
	}
	return value, err
}
