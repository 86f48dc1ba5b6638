//go:build linux

package listen

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"fdkit/internal/fdinfo"
	"fdkit/internal/hint"
)

// Trust is a set of clients: those with an address in one of the prefixes and, if
// Unix is set, all that come by a Unix socket, whom the permissions of the socket file
// let through.
type Trust struct {
	Prefixes []netip.Prefix
	Unix     bool
}

// Add adds what the text names: a prefix such as 10.0.0.0/8, an address, or unix.
func (t *Trust) Add(text string) error {
	if text == "unix" {
		t.Unix = true
		return nil
	}
	var prefix netip.Prefix
	var err error
	if strings.Contains(text, "/") {
		prefix, err = netip.ParsePrefix(text)
	} else {
		var ip netip.Addr
		if ip, err = netip.ParseAddr(text); err == nil {
			prefix, err = ip.Prefix(ip.BitLen())
		}
		if err == nil && ip.Zone() != "" {
			return hint.Wrap(fmt.Errorf("%q has a zone", text), prefix.Addr().String()+" is that address on all interfaces")
		}
	}
	switch {
	case err != nil:
		return fmt.Errorf("%q is no IP address, no prefix such as 10.0.0.0/8, and not unix", text)
	case prefix.Masked() != prefix:
		return hint.Wrap(fmt.Errorf("%q has bits behind the prefix", text),
			fmt.Sprintf("the prefix is %v, the address alone %v", prefix.Masked(), prefix.Addr()))
	case prefix.Addr().Is4In6():
		return hint.Wrap(fmt.Errorf("%q is an IPv4 address in IPv6 form", text), "write it as "+prefix.Addr().Unmap().String())
	case !slices.Contains(t.Prefixes, prefix):
		t.Prefixes = append(t.Prefixes, prefix)
	}
	return nil
}

// Has tells whether the client belongs to the set. An unknown address does not.
func (t Trust) Has(client fdinfo.Address) bool {
	if client.Unix {
		return t.Unix
	}
	ip := client.IP.Addr().WithZone("") // or no prefix would contain it
	return slices.ContainsFunc(t.Prefixes, func(p netip.Prefix) bool { return p.Contains(ip) })
}
