//go:build linux

package listen

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"fdkit/internal/hint"
)

// optionLevel is a level of setsockopt(2), with its options that take a number or,
// where takesText has them, a text. Those that take a structure are not among
// them.
type optionLevel struct {
	name   string // as ParseSockopt takes it
	number int
	prefix string // of its options' names
	names  map[string]int
}

var optionLevels = []optionLevel{
	{"socket", unix.SOL_SOCKET, "SO_", map[string]int{ // socket(7)
		"BINDTODEVICE": unix.SO_BINDTODEVICE, "BINDTOIFINDEX": unix.SO_BINDTOIFINDEX, "BROADCAST": unix.SO_BROADCAST,
		"BUF_LOCK": unix.SO_BUF_LOCK, "BUSY_POLL": unix.SO_BUSY_POLL, "BUSY_POLL_BUDGET": unix.SO_BUSY_POLL_BUDGET,
		"DEBUG": unix.SO_DEBUG, "DONTROUTE": unix.SO_DONTROUTE, "INCOMING_CPU": unix.SO_INCOMING_CPU,
		"KEEPALIVE": unix.SO_KEEPALIVE, "MARK": unix.SO_MARK, "MAX_PACING_RATE": unix.SO_MAX_PACING_RATE,
		"OOBINLINE": unix.SO_OOBINLINE, "PASSCRED": unix.SO_PASSCRED, "PASSSEC": unix.SO_PASSSEC,
		"PREFER_BUSY_POLL": unix.SO_PREFER_BUSY_POLL, "PRIORITY": unix.SO_PRIORITY, "RCVBUF": unix.SO_RCVBUF,
		"RCVBUFFORCE": unix.SO_RCVBUFFORCE, "RCVLOWAT": unix.SO_RCVLOWAT, "RCVMARK": unix.SO_RCVMARK,
		"RESERVE_MEM": unix.SO_RESERVE_MEM, "REUSEADDR": unix.SO_REUSEADDR, "REUSEPORT": unix.SO_REUSEPORT,
		"SNDBUF": unix.SO_SNDBUF, "SNDBUFFORCE": unix.SO_SNDBUFFORCE, "TIMESTAMP": unix.SO_TIMESTAMP,
		"TIMESTAMPING": unix.SO_TIMESTAMPING, "TIMESTAMPNS": unix.SO_TIMESTAMPNS, "TXREHASH": unix.SO_TXREHASH,
		"ZEROCOPY": unix.SO_ZEROCOPY,
	}},
	{"tcp", unix.SOL_TCP, "TCP_", map[string]int{ // tcp(7)
		"CONGESTION": unix.TCP_CONGESTION, "CORK": unix.TCP_CORK, "DEFER_ACCEPT": unix.TCP_DEFER_ACCEPT,
		"DELACK_MAX_US": unix.TCP_DELACK_MAX_US, "FASTOPEN": unix.TCP_FASTOPEN,
		"FASTOPEN_NO_COOKIE": unix.TCP_FASTOPEN_NO_COOKIE, "INQ": unix.TCP_INQ, "KEEPCNT": unix.TCP_KEEPCNT,
		"KEEPIDLE": unix.TCP_KEEPIDLE, "KEEPINTVL": unix.TCP_KEEPINTVL, "LINGER2": unix.TCP_LINGER2,
		"MAXSEG": unix.TCP_MAXSEG, "NODELAY": unix.TCP_NODELAY, "NOTSENT_LOWAT": unix.TCP_NOTSENT_LOWAT,
		"QUICKACK": unix.TCP_QUICKACK, "RTO_MAX_MS": unix.TCP_RTO_MAX_MS, "RTO_MIN_US": unix.TCP_RTO_MIN_US,
		"SAVE_SYN": unix.TCP_SAVE_SYN, "SYNCNT": unix.TCP_SYNCNT, "THIN_LINEAR_TIMEOUTS": unix.TCP_THIN_LINEAR_TIMEOUTS,
		"TIMESTAMP": unix.TCP_TIMESTAMP, "TX_DELAY": unix.TCP_TX_DELAY, "USER_TIMEOUT": unix.TCP_USER_TIMEOUT,
		"WINDOW_CLAMP": unix.TCP_WINDOW_CLAMP,
	}},
	{"ip", unix.SOL_IP, "IP_", map[string]int{ // ip(7)
		"BIND_ADDRESS_NO_PORT": unix.IP_BIND_ADDRESS_NO_PORT, "FREEBIND": unix.IP_FREEBIND,
		"LOCAL_PORT_RANGE": unix.IP_LOCAL_PORT_RANGE, "MINTTL": unix.IP_MINTTL, "MTU_DISCOVER": unix.IP_MTU_DISCOVER,
		"RECVERR": unix.IP_RECVERR, "RECVTOS": unix.IP_RECVTOS, "RECVTTL": unix.IP_RECVTTL, "TOS": unix.IP_TOS,
		"TRANSPARENT": unix.IP_TRANSPARENT, "TTL": unix.IP_TTL,
	}},
	{"ipv6", unix.SOL_IPV6, "IPV6_", map[string]int{ // ipv6(7)
		"ADDR_PREFERENCES": unix.IPV6_ADDR_PREFERENCES, "AUTOFLOWLABEL": unix.IPV6_AUTOFLOWLABEL,
		"DONTFRAG": unix.IPV6_DONTFRAG, "FREEBIND": unix.IPV6_FREEBIND, "MINHOPCOUNT": unix.IPV6_MINHOPCOUNT,
		"MTU": unix.IPV6_MTU, "MTU_DISCOVER": unix.IPV6_MTU_DISCOVER, "RECVERR": unix.IPV6_RECVERR,
		"RECVTCLASS": unix.IPV6_RECVTCLASS, "TCLASS": unix.IPV6_TCLASS, "TRANSPARENT": unix.IPV6_TRANSPARENT,
		"UNICAST_HOPS": unix.IPV6_UNICAST_HOPS, "V6ONLY": unix.IPV6_V6ONLY,
	}},
}

func takesText(level, name int) bool {
	return level == unix.SOL_TCP && name == unix.TCP_CONGESTION || level == unix.SOL_SOCKET && name == unix.SO_BINDTODEVICE
}

// ParseSockopt parses LEVEL:NAME:VALUE, such as tcp:TCP_USER_TIMEOUT:5000. LEVEL is
// socket, tcp, ip, ipv6 or a number. NAME is the option's name in C, in any case
// and with or without its prefix, or a number. VALUE is a whole number of 32 bits,
// signed or not; a text for the options that take one; and either of them for
// an option that has no name here.
func ParseSockopt(text string) (Sockopt, error) {
	fields := strings.SplitN(text, ":", 3)
	if len(fields) < 3 {
		return Sockopt{}, hint.Wrap(errors.New("it is no LEVEL:NAME:VALUE"), "such as tcp:TCP_USER_TIMEOUT:5000 or socket:SO_PRIORITY:6")
	}
	var s Sockopt
	var err error
	var level optionLevel
	if s.Level, err = parseOptionNumber(fields[0]); err != nil {
		if level, err = findLevel(fields[0]); err != nil {
			return Sockopt{}, err
		}
		s.Level = level.number
	}
	if s.Name, err = parseOptionNumber(fields[1]); err != nil {
		var known bool
		if s.Name, known = level.names[strings.TrimPrefix(strings.ToUpper(fields[1]), level.prefix)]; !known {
			return Sockopt{}, hint.Wrap(fmt.Errorf("no option %q is known at level %s", fields[1], fields[0]),
				"its number, from the kernel's header files, can stand for it")
		}
	}
	value, err := strconv.ParseInt(fields[2], 10, 64)
	switch {
	case fields[2] == "":
		return Sockopt{}, errors.New("the value is missing")
	case strings.ContainsRune(fields[2], 0):
		return Sockopt{}, errors.New("the value has a zero byte in it")
	case takesText(s.Level, s.Name):
		s.Text = fields[2]
	case err == nil && value >= -1<<31 && value < 1<<32 && fields[2][0] != '+':
		s.Value = int32(value)
	case s.known() != "" || strings.Trim(fields[2], "+-0123456789") == "":
		return Sockopt{}, fmt.Errorf("%q is no number of 32 bits", fields[2])
	default:
		s.Text = fields[2]
	}
	return s, nil
}

func parseOptionNumber(text string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 31)
	return int(n), err
}

func findLevel(text string) (optionLevel, error) {
	name := strings.ToLower(text)
	name = strings.TrimPrefix(strings.TrimPrefix(name, "sol_"), "ipproto_")
	for _, l := range optionLevels {
		if l.name == name {
			return l, nil
		}
	}
	return optionLevel{}, hint.Wrap(fmt.Errorf("there is no level %q", text), "the levels are socket, tcp, ip, ipv6 and numbers")
}

// known returns LEVEL:NAME of an option that has a name here, or "".
func (s Sockopt) known() string {
	for _, l := range optionLevels {
		for name, number := range l.names {
			if l.number == s.Level && number == s.Name {
				return l.name + ":" + l.prefix + name
			}
		}
	}
	return ""
}

// String returns the option in the form that ParseSockopt takes.
func (s Sockopt) String() string {
	option, value := s.known(), s.Text
	if option == "" {
		option = fmt.Sprintf("%d:%d", s.Level, s.Name)
	}
	if value == "" {
		value = strconv.Itoa(int(s.Value))
	}
	return option + ":" + value
}
