//go:build linux

package listen

import (
	"fmt"
	"net/netip"
	"os/user"
	"strconv"
	"strings"

	"fdkit/internal/hint"
)

// whoForms is what a Who may be, for hints.
const whoForms = "who is an address such as 192.0.2.1, a network such as 192.0.2.0/24, uid=USER, gid=GROUP, unix or all"

// ParseWho parses who a rule is for: an IP address, a network in CIDR notation (RFC
// 4632, RFC 4291), uid=N or uid=NAME, gid=N or gid=NAME, unix for every Unix client,
// or all. Names of users and groups are looked up at once.
func ParseWho(text string) (Who, error) {
	kind, id, isID := strings.Cut(text, "=")
	switch {
	case text == "all":
		return Who{kind: anybody}, nil
	case text == "unix":
		return Who{kind: anyUnix}, nil
	case isID && kind == "uid":
		n, err := findID(id, "user", func() (string, error) {
			u, err := user.Lookup(id)
			if err != nil {
				return "", err
			}
			return u.Uid, nil
		})
		return Who{kind: oneUser, id: n}, err
	case isID && kind == "gid":
		n, err := findID(id, "group", func() (string, error) {
			g, err := user.LookupGroup(id)
			if err != nil {
				return "", err
			}
			return g.Gid, nil
		})
		return Who{kind: oneGroup, id: n}, err
	}
	p, err := parseNetwork(text)
	if err != nil {
		return Who{}, err
	}
	return Who{networks: []netip.Prefix{p}}, nil
}

// findID returns the number of a user or group that is given by number or name.
func findID(text, what string, lookup func() (string, error)) (int, error) {
	number := text
	if strings.Trim(text, "0123456789") != "" {
		var err error
		if number, err = lookup(); err != nil {
			return 0, fmt.Errorf("there is no %s %s", what, quoted(text))
		}
	}
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil || n == 1<<32-1 { // which is -1 in C: none
		return 0, fmt.Errorf("%s is no %s", quoted(text), what)
	}
	return int(n), nil
}

// parseNetwork parses an address or a network. A network of IPv4-mapped addresses
// is an IPv4 one.
func parseNetwork(text string) (netip.Prefix, error) {
	address, length, hasLength := strings.Cut(text, "/")
	ip, err := netip.ParseAddr(address)
	switch {
	case err != nil && strings.ContainsFunc(address, func(c rune) bool { return c|0x20 >= 'g' && c|0x20 <= 'z' }) && !hasLength:
		return netip.Prefix{}, hint.Wrap(fmt.Errorf("%s is no IP address", quoted(text)), whoForms+"; host names are not looked up")
	case err != nil:
		return netip.Prefix{}, hint.Wrap(fmt.Errorf("%s is no IP address", quoted(text)), whoForms)
	case ip.Zone() != "":
		return netip.Prefix{}, hint.Wrap(fmt.Errorf("%s has a zone, and rules are for all zones", quoted(text)), "it is written "+ip.WithZone("").String())
	}
	bits := ip.BitLen()
	if hasLength {
		n, err := strconv.ParseUint(length, 10, 31)
		if err != nil || strconv.FormatUint(n, 10) != length {
			return netip.Prefix{}, hint.Wrap(fmt.Errorf("%s has no prefix length after the /", quoted(text)), "a network is written 192.0.2.0/24")
		}
		if int(n) > bits {
			return netip.Prefix{}, fmt.Errorf("%s is too long: an IPv%d address has %d bits", quoted(text), version(ip), bits)
		}
		bits = int(n)
	}
	if ip.Is4In6() && bits >= 96 {
		ip, bits = ip.Unmap(), bits-96
	}
	p := netip.PrefixFrom(ip, bits)
	if p != p.Masked() {
		return netip.Prefix{}, hint.Wrap(fmt.Errorf("%s has bits set after the first %s", quoted(text), length),
			fmt.Sprintf("the network is %v, the address alone is %v", p.Masked(), ip))
	}
	return p, nil
}

func version(ip netip.Addr) int {
	if ip.Is4() {
		return 4
	}
	return 6
}

// quoted quotes what stands in a rule, of which an error shows the beginning.
func quoted(text string) string {
	const most = 60
	if len(text) > most {
		text = text[:most] + "..."
	}
	return strconv.Quote(text)
}
