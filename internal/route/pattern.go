package route

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"fdkit/internal/hint"
)

// texts are patterns of keys that are any bytes: a key, or how it begins and a star.
type texts struct {
	exact, prefixes map[string]string
	size            int // of every key, if not 0
}

func newTexts(b *By) patterns {
	t := &texts{exact: map[string]string{}, prefixes: map[string]string{}}
	if b.Name == "bytes" {
		t.size = b.bytes
	}
	return t
}

func (t *texts) add(pattern, queue string) (string, error) {
	text, isPrefix := strings.CutSuffix(pattern, "*")
	if strings.Contains(text, "*") {
		return "", hint.Wrap(fmt.Errorf("%q has a * that is not at its end", pattern), "a * of the key itself is written %2A")
	}
	text, err := unquote(text)
	switch {
	case err != nil:
		return "", fmt.Errorf("%q: %w", pattern, err)
	case text == "" && isPrefix: // %*
		return "", hint.Wrap(fmt.Errorf("%q is no pattern", pattern), "* is every key, % the empty one")
	case t.size > 0 && (len(text) > t.size || len(text) < t.size && !isPrefix):
		return "", fmt.Errorf("%q has %d bytes, and keys have %d", pattern, len(text), t.size)
	case len(Quote(text)) > maxQuoted:
		return "", fmt.Errorf("%q is longer than keys are, which have %d bytes", pattern, maxQuoted)
	case isPrefix:
		return keep(t.prefixes, text, queue), nil
	}
	return keep(t.exact, text, queue), nil
}

func (t *texts) queue(key string) (string, bool) {
	if queue, ok := t.exact[key]; ok {
		return queue, true
	}
	for n := len(key); n > 0 && len(t.prefixes) > 0; n-- {
		if queue, ok := t.prefixes[key[:n]]; ok {
			return queue, true
		}
	}
	return "", false
}

// names are patterns of host names: a name, or *.NAME for all names below it, as nginx,
// sslh and HAProxy have it. In certificates the star is for one label only.
type names struct {
	exact, below map[string]string
}

func newNames(*By) patterns { return &names{map[string]string{}, map[string]string{}} }

func (t *names) add(pattern, queue string) (string, error) {
	text, isBelow := strings.CutPrefix(pattern, "*.")
	name, err := unquote(text)
	name = plainName(name)
	bare := strings.Trim(name, "[]")
	_, addressErr := netip.ParseAddr(bare)
	isAddress := addressErr == nil
	switch {
	case err != nil:
		return "", fmt.Errorf("%q: %w", pattern, err)
	case strings.Contains(text, "*"):
		return "", hint.Wrap(fmt.Errorf("%q has a * that is no label at its beginning", pattern), "*.example.org is for all names below example.org")
	case strings.HasPrefix(name, "."):
		return "", hint.Wrap(fmt.Errorf("%q begins with a dot", pattern), fmt.Sprintf("*%s is for all names below, and %s is that name", name, name[1:]))
	case name == "":
		return "", fmt.Errorf("%q is no name", pattern)
	case isAddress && bare != name:
		return "", hint.Wrap(fmt.Errorf("%q has brackets", pattern), "an address is written "+bare)
	case strings.Contains(name, ":") && !isAddress:
		return "", hint.Wrap(fmt.Errorf("%q has a port", pattern), "names are compared without the port")
	case len(Quote(name)) > maxQuoted:
		return "", fmt.Errorf("%q is longer than keys are, which have %d bytes", pattern, maxQuoted)
	case isBelow:
		return keep(t.below, name, queue), nil
	}
	return keep(t.exact, name, queue), nil
}

func (t *names) queue(key string) (string, bool) {
	key = plainName(key)
	if queue, ok := t.exact[key]; ok {
		return queue, true
	}
	first, rest, ok := strings.Cut(key, ".")
	for ok && first != "" {
		if queue, ok := t.below[rest]; ok {
			return queue, true
		}
		_, rest, ok = strings.Cut(rest, ".")
	}
	return "", false
}

// networks are patterns of addresses: a network in CIDR notation or an address and, of
// local addresses, ADDRESS:PORT or :PORT.
type networks struct {
	queues  map[network]string
	lengths [128 + 1]bool // of prefixes that are there
	local   bool
}

// network is a part of the addresses, all of which fit if the port is 0.
type network struct {
	netip.Prefix
	port uint16
}

func newNetworks(b *By) patterns {
	return &networks{queues: map[network]string{}, local: b.Name == "local-address"}
}

func (t *networks) add(pattern, queue string) (string, error) {
	if port, ok := strings.CutPrefix(pattern, ":"); ok && t.local {
		// Of either kind there is an address that is all zero.
		ap, err := netip.ParseAddrPort("0.0.0.0:" + port)
		if err != nil || ap.Port() == 0 {
			return "", fmt.Errorf("%q is no port", pattern)
		}
		t.lengths[0] = true
		v4 := network{netip.PrefixFrom(netip.IPv4Unspecified(), 0), ap.Port()}
		v6 := network{netip.PrefixFrom(netip.IPv6Unspecified(), 0), ap.Port()}
		if earlier := keep(t.queues, v4, queue); earlier != "" {
			return earlier, nil
		}
		return keep(t.queues, v6, queue), nil
	}
	n, err := t.parse(pattern)
	if err != nil {
		return "", err
	}
	t.lengths[n.Bits()] = true
	return keep(t.queues, n, queue), nil
}

func (t *networks) parse(pattern string) (n network, err error) {
	ip, err := netip.ParseAddr(pattern)
	n.Prefix = netip.PrefixFrom(ip, ip.BitLen())
	if err != nil && t.local {
		var ap netip.AddrPort
		ap, err = netip.ParseAddrPort(pattern)
		ip, n.port = ap.Addr(), ap.Port()
		n.Prefix = netip.PrefixFrom(ip, ip.BitLen())
		if err == nil && n.port == 0 {
			return n, errors.New("no connection has port 0")
		}
	}
	if err != nil {
		n.Prefix, err = netip.ParsePrefix(pattern)
	}
	mapped := n.Addr().Is4In6()
	switch {
	case err != nil && t.local:
		return n, hint.Wrap(fmt.Errorf("%q is no address", pattern), "it is ADDRESS, ADDRESS:PORT, [ADDRESS]:PORT for IPv6, :PORT, or a network such as 192.0.2.0/24")
	case err != nil:
		return n, hint.Wrap(fmt.Errorf("%q is no address", pattern), "it is an IP address, or a network such as 192.0.2.0/24; host names are not looked up")
	case ip.Zone() != "":
		return n, hint.Wrap(fmt.Errorf("%q has a zone", pattern), plain(ip).String()+" is that address on all interfaces")
	case n.Prefix != n.Masked():
		return n, hint.Wrap(fmt.Errorf("%q has bits behind the prefix", pattern),
			fmt.Sprintf("the network is %v, the address alone %v", n.Masked(), n.Addr()))
	case mapped && n.Bits() < 96:
		return n, fmt.Errorf("%q is an IPv4 address in IPv6 form, whose prefix has at least 96 bits", pattern)
	case mapped:
		n.Prefix = netip.PrefixFrom(n.Addr().Unmap(), n.Bits()-96)
	}
	return n, nil
}

func (t *networks) queue(key string) (string, bool) {
	ip, err := netip.ParseAddr(key)
	var port uint16
	if err != nil {
		ap, err := netip.ParseAddrPort(key)
		if err != nil {
			return "", false
		}
		ip, port = ap.Addr(), ap.Port()
	}
	ip = plain(ip)
	for bits := ip.BitLen(); bits >= 0; bits-- {
		if !t.lengths[bits] {
			continue
		}
		prefix, _ := ip.Prefix(bits)
		if queue, ok := t.queues[network{prefix, port}]; ok {
			return queue, true
		}
		if queue, ok := t.queues[network{prefix, 0}]; ok {
			return queue, true
		}
	}
	return "", false
}
