//go:build linux

package listen

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"fdkit/internal/hint"
)

// instructions returns the offset of the colon before the instructions of a
// tcprules(1) line, or -1 if it is none. An IPv6 address has colons, too.
func instructions(line string) int {
	for i := range len(line) {
		if rest := line[i:]; strings.HasPrefix(rest, ":allow") || strings.HasPrefix(rest, ":deny") {
			return i
		}
	}
	return -1
}

// parseTCPRule parses a line of tcprules(1), ADDRESS:allow or ADDRESS:deny and
// ,NAME="VALUE" any number of times, where any character can stand for the quotes.
func parseTCPRule(line string, colon int) (rule textRule, _ *RulesError) {
	var err error
	if rule.Who, rule.length, err = parseTCPAddress(line[:colon]); err != nil {
		return rule, wrong(0, err)
	}
	rest, allow := strings.CutPrefix(line[colon+1:], "allow")
	rule.Allow = allow
	rest = strings.TrimPrefix(rest, "deny")
	var vars variables
	for rest != "" {
		offset := len(line) - len(rest)
		name, value, isVariable := strings.Cut(rest, "=")
		if rest[0] != ',' || !isVariable || value == "" {
			return rule, wrong(offset, hint.Wrap(fmt.Errorf("%s is no instruction", quoted(rest)), `after allow and deny stands ,NAME="VALUE" or nothing`))
		}
		end := strings.IndexByte(value[1:], value[0])
		if end < 0 {
			return rule, wrong(len(line)-len(value), fmt.Errorf("the closing %q is missing", value[0]))
		}
		if err := vars.set(name[1:], value[1:1+end]); err != nil {
			return rule, wrong(offset+1, err)
		}
		rest = value[end+2:]
	}
	if rule.Allow { // nobody gets those of deny
		rule.Env = vars.encoded()
	}
	return rule, nil
}

// parseTCPAddress parses an address of tcprules(1), and returns the length of its
// prefix in bits, or -1 for the empty one, which is for everybody. Addresses and
// networks of IPv6, and networks in CIDR notation, are those of later tcpservers.
//
// What tcprules takes and tcpserver never finds is an error: a deny that does
// nothing is a trap. So is what depends on names, which are not looked up here.
func parseTCPAddress(text string) (who Who, length int, err error) {
	switch {
	case text == "":
		return Who{kind: anybody}, -1, nil
	case strings.ContainsAny(text, "=@"):
		return who, 0, hint.Wrap(fmt.Errorf("%s depends on a name, and names of hosts and users are not looked up", quoted(text)),
			"remove the rule: tcpserver -H -R passes it over, too")
	case strings.ContainsAny(text, "/:"):
		p, err := parseNetwork(text)
		if err != nil {
			return who, 0, err
		}
		return Who{networks: []netip.Prefix{p}}, p.Bits(), nil
	}
	inner, isPrefix := strings.CutSuffix(text, ".")
	parts := strings.Split(inner, ".")
	if !isPrefix && len(parts) < 4 && strings.Trim(text, "0123456789.-") == "" {
		return who, 0, hint.Wrap(fmt.Errorf("%s matches no address", quoted(text)), fmt.Sprintf("addresses that begin so are written %s.", text))
	}
	if len(parts) > 4 || isPrefix && len(parts) == 4 {
		return who, 0, fmt.Errorf("%s is no IP address", quoted(text))
	}
	var low, high [4]int
	ranges := 0
	for i, part := range parts {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		} else if ranges++; ranges > 1 {
			return who, 0, fmt.Errorf("%s has more than one range", quoted(text))
		}
		a, errA := strconv.ParseUint(from, 10, 31)
		b, errB := strconv.ParseUint(to, 10, 31)
		if isRange {
			b = min(b, 255) // as tcprules has it
		}
		switch {
		case errA != nil, errB != nil, !isRange && (a > 255 || strconv.FormatUint(a, 10) != from):
			return who, 0, hint.Wrap(fmt.Errorf("%s is no IP address", quoted(text)),
				"an address is 192.0.2.1, 192.0.2. for all that begin so, 192.0.2.10-19, 192.0.2.0/24, 2001:db8::/32, or nothing for all")
		case a > b:
			return who, 0, fmt.Errorf("the range %s is empty", quoted(part))
		}
		low[i], high[i] = int(a), int(b)
	}
	return Who{networks: rangePrefixes(low, high, len(parts))}, 8 * len(parts), nil
}

// rangePrefixes returns the networks of the addresses whose first n bytes are from
// low to high, each byte for itself. At most one of them is a range.
func rangePrefixes(low, high [4]int, n int) (all []netip.Prefix) {
	at := n - 1
	for i := range n {
		if low[i] != high[i] {
			at = i
		}
	}
	for from := low[at]; from <= high[at]; {
		size, bits := 1, 8*n
		// As large a block as begins here; all that follows its bits must be free.
		for at == n-1 && from%(2*size) == 0 && from+2*size-1 <= high[at] {
			size, bits = 2*size, bits-1
		}
		var ip [4]byte
		for i := range n {
			ip[i] = byte(low[i])
		}
		ip[at] = byte(from)
		all = append(all, netip.PrefixFrom(netip.AddrFrom4(ip), bits))
		from += size
	}
	return all
}
