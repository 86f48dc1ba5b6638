//go:build linux

package listen

import (
	"encoding/binary"
	"iter"
	"net/netip"
	"slices"

	"fdkit/internal/scm"
)

// Rules is an immutable list of access rules; the first that matches decides. It
// may be used by several goroutines at once. A nil *Rules allows everybody.
//
// If no rule matches, the client is refused if any rule allows somebody, and allowed
// otherwise: a list of those who may means that nobody else may.
type Rules struct {
	rules []Rule // in the order in which they apply

	// What Match uses. The numbers are indices of decisions, and the lowest that
	// applies decides; the last one is for who matches none.
	decisions  []Decision
	networks   []network // sorted by first
	uids, gids map[int]int32
	unix, all  int32
}

// Rule is one access rule.
type Rule struct {
	Who Who
	Decision
}

// Decision is what the rules say about one client.
type Decision struct {
	Allow bool
	// Env is what to append to the connection's payload: each NAME=VALUE and a NUL.
	// It is shared and not to be changed.
	Env []byte
	// Where is the rule's place, for logs: FILE:LINE, or an option with its value.
	Where string
}

// Who is the clients that a rule is for. ParseWho makes one.
type Who struct {
	kind     whoKind
	networks []netip.Prefix // masked, and never of IPv4-mapped addresses
	id       int
}

type whoKind int

const (
	someNetworks whoKind = iota
	anybody
	anyUnix
	oneUser
	oneGroup
)

// network is the addresses from first up to the next network's.
type network struct {
	first    netip.Addr
	decision int32
}

const noRule = "no rule matches"

// NewRules returns the rules, in this order. It copies the slice.
func NewRules(rules []Rule) *Rules {
	r := &Rules{rules: slices.Clone(rules), uids: map[int]int32{}, gids: map[int]int32{}}
	none := int32(len(rules))
	r.unix, r.all = none, none
	var networks []ruledPrefix
	last := Decision{Allow: true, Where: noRule}
	for i, rule := range r.rules {
		n := int32(i)
		r.decisions = append(r.decisions, rule.Decision)
		if rule.Allow {
			last.Allow = false
		}
		switch rule.Who.kind {
		case anybody:
			r.all, r.unix = min(r.all, n), min(r.unix, n)
		case anyUnix:
			r.unix = min(r.unix, n)
		case oneUser:
			keepFirst(r.uids, rule.Who.id, n)
		case oneGroup:
			keepFirst(r.gids, rule.Who.id, n)
		}
		for _, p := range rule.Who.networks {
			networks = append(networks, ruledPrefix{p, n})
		}
	}
	r.decisions = append(r.decisions, last)
	slices.SortFunc(networks, func(a, b ruledPrefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 { // IPv4 before IPv6
			return c
		}
		return a.Bits() - b.Bits()
	})
	ipv6, _ := slices.BinarySearchFunc(networks, netip.IPv6Unspecified(), func(p ruledPrefix, ip netip.Addr) int {
		return p.Addr().Compare(ip)
	})
	r.cover(netip.IPv4Unspecified(), networks[:ipv6])
	r.cover(netip.IPv6Unspecified(), networks[ipv6:])
	return r
}

func keepFirst(m map[int]int32, id int, n int32) {
	if _, there := m[id]; !there {
		m[id] = n
	}
}

type ruledPrefix struct {
	netip.Prefix
	rule int32
}

// cover appends the networks of one IP version, whose lowest address is first, for
// the prefixes, which are sorted by address and length: of two prefixes, one has the
// other in it, and comes earlier, or they have no address in common.
func (r *Rules) cover(first netip.Addr, prefixes []ruledPrefix) {
	type open struct {
		last     netip.Addr
		decision int32
	}
	around := []open{{decision: r.all}} // the prefixes that have the current address in them
	begin := func(first netip.Addr, decision int32) {
		if n := len(r.networks); n > 0 && r.networks[n-1].first == first {
			r.networks = r.networks[:n-1]
		}
		r.networks = append(r.networks, network{first, decision})
	}
	end := func() {
		next := around[len(around)-1].last.Next()
		around = around[:len(around)-1]
		if next.IsValid() { // or that was the highest address
			begin(next, around[len(around)-1].decision)
		}
	}
	begin(first, r.all)
	for _, p := range prefixes {
		for len(around) > 1 && around[len(around)-1].last.Less(p.Addr()) {
			end()
		}
		decision := min(p.rule, around[len(around)-1].decision)
		around = append(around, open{lastOf(p.Prefix), decision})
		begin(p.Addr(), decision)
	}
	for len(around) > 1 {
		end()
	}
}

// lastOf returns the highest address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	if p.Addr().Is4() {
		b := p.Addr().As4()
		binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])|uint32(1<<(32-p.Bits())-1))
		return netip.AddrFrom4(b)
	}
	b := p.Addr().As16()
	for i := range b {
		if set := p.Bits() - 8*i; set < 8 {
			b[i] |= byte(0xff >> max(set, 0))
		}
	}
	return netip.AddrFrom16(b)
}

// Match tells what the rules say about a client: that with an IP address, or, if ip
// is the zero Addr, the Unix client with these user and group ids, of which -1 is
// one that is not known. An IPv4-mapped address is the IPv4 address, and a zone does
// not count. A client of whom nothing is known is refused unless the first rule is
// for everybody.
//
// It takes time with the logarithm of the number of rules, and allocates nothing.
func (r *Rules) Match(ip netip.Addr, uid, gid int) Decision {
	switch {
	case r == nil || len(r.rules) == 0:
		return Decision{Allow: true, Where: noRule}
	case ip.IsValid():
		return r.decisions[r.ofNetwork(ip.Unmap().WithZone(""))]
	case uid < 0 && gid < 0 && r.all > 0:
		return Decision{Where: "the client is not known"}
	}
	n := r.unix
	if m, ok := r.uids[uid]; ok {
		n = min(n, m)
	}
	if m, ok := r.gids[gid]; ok {
		n = min(n, m)
	}
	return r.decisions[n]
}

func (r *Rules) ofNetwork(ip netip.Addr) int32 {
	low, high := 0, len(r.networks) // networks[low].first <= ip < networks[high].first
	for high-low > 1 {
		middle := int(uint(low+high) / 2)
		if ip.Less(r.networks[middle].first) {
			high = middle
		} else {
			low = middle
		}
	}
	return r.networks[low].decision
}

// Append returns the rules of r followed by those of more. Either may be nil.
func (r *Rules) Append(more *Rules) *Rules {
	return NewRules(slices.Concat(r.list(), more.list()))
}

func (r *Rules) list() []Rule {
	if r == nil {
		return nil
	}
	return r.rules
}

// Variables yields the names of the variables that the rules set, each with the
// rule's place.
func (r *Rules) Variables() iter.Seq2[string, string] {
	return func(yield func(where, name string) bool) {
		for _, rule := range r.list() {
			for name := range scm.Vars(append([]byte(scm.Begin), rule.Env...)) {
				if !yield(rule.Where, name) {
					return
				}
			}
		}
	}
}
