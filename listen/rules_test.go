//go:build linux

package listen

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/user"
	"slices"
	"strings"
	"testing"

	"fdkit/internal/fdinfo"
	"fdkit/internal/scm"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
)

func mustParse(t testing.TB, text string) *Rules {
	t.Helper()
	r, err := ParseRules("f", text)
	if err != nil {
		t.Fatalf("ParseRules(%.200q): %v", text, err)
	}
	return r
}

// client is who a decision is about: an IP address, or uid:gid, or "" for unknown.
func match(t testing.TB, r *Rules, client string) string {
	t.Helper()
	uid, gid := -1, -1
	var ip netip.Addr
	if _, err := fmt.Sscanf(client, "uid%d:%d", &uid, &gid); err != nil && client != "" {
		ip = netip.MustParseAddr(client)
	}
	return shown(r.Match(ip, uid, gid))
}

func shown(d Decision) string {
	verb := "deny"
	if d.Allow {
		verb = "allow"
	}
	return strings.TrimSpace(verb + " " + d.Where + " " + strings.ReplaceAll(string(d.Env), "\x00", "|"))
}

func TestMatch(t *testing.T) {
	for _, test := range []struct {
		rules string
		want  map[string]string // decisions by client
	}{
		{"allow 10.0.0.0/8", map[string]string{
			"10.0.0.0": "allow f:1", "10.255.255.255": "allow f:1", "9.255.255.255": "deny no rule matches",
			"11.0.0.0": "deny no rule matches", "::1": "deny no rule matches", "uid0:0": "deny no rule matches",
			"::ffff:10.1.2.3": "allow f:1", "": "deny the client is not known",
		}},
		{"deny 10.0.0.0/8", map[string]string{
			"10.1.2.3": "deny f:1", "192.0.2.1": "allow no rule matches", "::1": "allow no rule matches",
			"uid0:0": "allow no rule matches", "": "deny the client is not known",
		}},
		// An exception, and what remains is refused as there is an allow.
		{"allow 10.1.0.0/16\ndeny 10.0.0.0/8", map[string]string{
			"10.1.2.3": "allow f:1", "10.2.0.1": "deny f:2", "192.0.2.1": "deny no rule matches",
		}},
		// The first decides, not the longest.
		{"deny 10.0.0.0/8\nallow 10.1.0.0/16\nallow all", map[string]string{
			"10.1.2.3": "deny f:1", "11.0.0.0": "allow f:3", "::": "allow f:3", "uid5:5": "allow f:3", "": "deny the client is not known",
		}},
		{"allow all A=1\ndeny 10.0.0.0/8", map[string]string{"10.1.2.3": "allow f:1 A=1|", "": "allow f:1 A=1|"}},
		// Up to the last address, and down to the first.
		{"deny 255.255.255.255\ndeny 0.0.0.0\ndeny ::\ndeny ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", map[string]string{
			"255.255.255.255": "deny f:1", "255.255.255.254": "allow no rule matches", "0.0.0.0": "deny f:2", "0.0.0.1": "allow no rule matches",
			"::": "deny f:3", "::1": "allow no rule matches", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff": "deny f:4",
			"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe": "allow no rule matches",
		}},
		{"deny 0.0.0.0/0", map[string]string{"255.255.255.255": "deny f:1", "0.0.0.0": "deny f:1", "::": "allow no rule matches", "uid1:1": "allow no rule matches"}},
		// All of IPv6 does not have the mapped addresses in it: those are IPv4.
		{"deny ::/0", map[string]string{"::ffff:192.0.2.1": "allow no rule matches", "192.0.2.1": "allow no rule matches", "ff02::1": "deny f:1"}},
		{"deny ::ffff:0:0/96", map[string]string{"192.0.2.1": "deny f:1", "::": "allow no rule matches"}},
		{"deny ::ffff:10.0.0.0/104\ndeny ::ffff:192.0.2.1", map[string]string{"10.9.9.9": "deny f:1", "11.0.0.0": "allow no rule matches", "192.0.2.1": "deny f:2"}},
		{"deny 2001:db8::/32\nallow 2001:db8:1::/48", map[string]string{"2001:db8:1::1": "deny f:1", "2001:db9::": "deny no rule matches"}},
		{"deny fe80::1", map[string]string{"fe80::1%3": "deny f:1", "fe80::2%3": "allow no rule matches"}},
		// Unix clients.
		{"allow uid=1000 A=1\nallow gid=33 A=2\ndeny unix\nallow all", map[string]string{
			"uid1000:33": "allow f:1 A=1|", "uid1:33": "allow f:2 A=2|", "uid1:1": "deny f:3", "192.0.2.1": "allow f:4",
		}},
		{"deny gid=33\nallow uid=1000", map[string]string{"uid1000:33": "deny f:1", "uid1000:34": "allow f:2", "uid33:1000": "deny no rule matches"}},
		{"allow uid=root\ndeny gid=root", map[string]string{"uid0:0": "allow f:1", "uid1:0": "deny f:2"}},
		{"allow uid=4294967294", map[string]string{"uid4294967294:0": "allow f:1", "uid-1:0": "deny no rule matches"}},
		{"deny unix\ndeny all", map[string]string{"uid1:1": "deny f:1", "uid-1:3": "deny f:1", "uid3:-1": "deny f:1", "": "deny the client is not known"}},
		{"deny uid=1\ndeny uid=1\ndeny 192.0.2.1\ndeny 192.0.2.1/32", map[string]string{"uid1:1": "deny f:1", "192.0.2.1": "deny f:3"}},
	} {
		r := mustParse(t, test.rules)
		for client, want := range test.want {
			if got := match(t, r, client); got != want {
				t.Errorf("rules %q: Match(%q) = %q, want %q", test.rules, client, got, want)
			}
		}
	}
}

func TestRulesOfOptions(t *testing.T) {
	rule := func(allow bool, who, where string) Rule {
		w, err := ParseWho(who)
		if err != nil {
			t.Fatal(err)
		}
		return Rule{w, Decision{Allow: allow, Where: where}}
	}
	options := NewRules([]Rule{rule(false, "10.0.0.1", "--deny 10.0.0.1"), rule(true, "10.0.0.0/24", "--allow 10.0.0.0/24")})
	own, tcp := mustParse(t, "deny 10.0.0.0/8\nallow 11.0.0.0/8"), mustParse(t, "10.:deny")
	for _, test := range []struct {
		about        string
		rules        *Rules
		client, want string
	}{
		{"none", nil, "10.0.0.1", "allow no rule matches"},
		{"none", nil, "", "allow no rule matches"},
		{"none, twice", (*Rules)(nil).Append(nil), "", "allow no rule matches"},
		{"options", options, "10.0.0.1", "deny --deny 10.0.0.1"},
		{"options", options, "10.0.0.2", "allow --allow 10.0.0.0/24"},
		{"options", options, "10.0.1.2", "deny no rule matches"},
		{"and a file", options.Append(own), "10.0.0.1", "deny --deny 10.0.0.1"},
		{"and a file", options.Append(own), "10.0.0.2", "allow --allow 10.0.0.0/24"},
		{"and a file", options.Append(own), "10.0.1.2", "deny f:1"},
		{"and a file", options.Append(own), "11.0.1.2", "allow f:2"},
		{"and a file", options.Append(own), "12.0.1.2", "deny no rule matches"},
		{"and tcprules", options.Append(tcp), "10.0.0.2", "allow --allow 10.0.0.0/24"},
		{"and tcprules", options.Append(tcp), "10.0.1.2", "deny f:1"},
		{"and tcprules, whose text is as if it ended with :allow", options.Append(tcp), "12.0.1.2", "allow f"},
		{"no options and a file", (*Rules)(nil).Append(own), "10.0.1.2", "deny f:1"},
	} {
		if got := match(t, test.rules, test.client); got != test.want {
			t.Errorf("%s: Match(%q) = %q, want %q", test.about, test.client, got, test.want)
		}
	}
	if got := match(t, options, "10.0.1.2"); got != "deny no rule matches" {
		t.Errorf("after Append: Match = %q, want the rules to be as they were", got)
	}
}

// linear is Match as the manual has it, one rule after the other.
func linear(r *Rules, ip netip.Addr, uid, gid int) Decision {
	last := Decision{Allow: true, Where: noRule}
	for i, rule := range r.rules {
		w := rule.Who
		inside := slices.ContainsFunc(w.networks, func(p netip.Prefix) bool { return p.Contains(ip.Unmap().WithZone("")) })
		isUnix := !ip.IsValid() && (uid >= 0 || gid >= 0)
		unknown := !ip.IsValid() && !isUnix
		switch {
		case w.kind == anybody && (!unknown || i == 0), w.kind == anyUnix && isUnix, inside,
			w.kind == oneUser && isUnix && w.id == uid, w.kind == oneGroup && isUnix && w.id == gid:
			return rule.Decision
		}
		if rule.Allow {
			last.Allow = false
		}
		if unknown {
			last = Decision{Where: "the client is not known"}
			break
		}
	}
	return last
}

// checkAll compares Match with linear at the edges of all networks.
func checkAll(t *testing.T, text string, r *Rules) {
	t.Helper()
	ips := []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified(), {}, netip.MustParseAddr("255.255.255.255"), netip.IPv6LinkLocalAllNodes()}
	ids := []int{-1, 0, 1}
	for _, rule := range r.rules {
		ids = append(ids, rule.Who.id)
		for _, p := range rule.Who.networks {
			ips = append(ips, p.Addr(), p.Addr().Prev(), lastOf(p), lastOf(p).Next())
		}
	}
	for _, ip := range ips {
		if got, want := shown(r.Match(ip, -1, -1)), shown(linear(r, ip, -1, -1)); got != want {
			t.Fatalf("rules %q: Match(%v) = %q; one rule after the other says %q", text, ip, got, want)
		}
	}
	for _, uid := range ids {
		for _, gid := range ids[:min(len(ids), 8)] {
			if got, want := shown(r.Match(netip.Addr{}, uid, gid)), shown(linear(r, netip.Addr{}, uid, gid)); got != want {
				t.Fatalf("rules %q: Match(uid %d, gid %d) = %q; one rule after the other says %q", text, uid, gid, got, want)
			}
		}
	}
}

// TestMatchLinear has many rules of few addresses, so that they lie in each other.
func TestMatchLinear(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var text strings.Builder
		for range 1 + random.IntN(12) {
			verb := []string{"allow", "deny"}[random.IntN(2)]
			ip := netip.AddrFrom4([4]byte{byte(random.IntN(2) * 255), 0, 0, byte(random.IntN(8) * 36)})
			if random.IntN(3) == 0 {
				ip = netip.AddrFrom16([16]byte{byte(random.IntN(2) * 255), 15: byte(random.IntN(8) * 36)})
			}
			p, _ := ip.Prefix([]int{0, 1, 8, 24, 25, 26, 29, 30, 31, 32}[random.IntN(10)])
			if ip.Is6() {
				p, _ = ip.Prefix([]int{0, 1, 3, 64, 120, 121, 125, 126, 127, 128}[random.IntN(10)])
			}
			switch random.IntN(12) {
			case 0:
				fmt.Fprintln(&text, verb, []string{"all", "unix"}[random.IntN(2)])
			case 1:
				fmt.Fprintf(&text, "%s %s=%d\n", verb, []string{"uid", "gid"}[random.IntN(2)], random.IntN(3))
			default:
				fmt.Fprintln(&text, verb, p)
			}
		}
		checkAll(t, text.String(), mustParse(t, text.String()))
	}
}

// manyRules returns the text of n rules for networks that lie side by side and in
// each other, of both IP versions.
func manyRules(n int) string {
	var text strings.Builder
	for i := range n {
		verb := []string{"allow", "deny"}[i%2]
		switch i % 4 {
		case 0:
			fmt.Fprintf(&text, "%s 10.%d.%d.0/24\n", verb, i>>8&255, i&255)
		case 1:
			fmt.Fprintf(&text, "%s 2001:db8:%x::/48\n", verb, i)
		case 2:
			fmt.Fprintf(&text, "%s 10.%d.%d.%d NET=n%d\n", verb, i>>8&255, i&255, i&127, i)
		default:
			fmt.Fprintf(&text, "%s 2001:db8:%x:%x::/64\n", verb, i-2, i)
		}
	}
	return text.String()
}

func TestMatchAllocatesNothing(t *testing.T) {
	r := mustParse(t, manyRules(1000)+"allow uid=1\nallow gid=5 A=1\n")
	clients := []netip.Addr{netip.MustParseAddr("10.0.8.1"), netip.MustParseAddr("::ffff:10.0.8.1"), netip.MustParseAddr("2001:db8:1::5"), netip.MustParseAddr("fe80::1%eth0"), {}}
	n := testing.AllocsPerRun(100, func() {
		for _, ip := range clients {
			r.Match(ip, 7, 5)
		}
	})
	if n != 0 {
		t.Errorf("Match allocates %v times, want 0", n)
	}
}

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{10, 10_000, 60_000} {
		r := mustParse(b, manyRules(n))
		var clients []netip.Addr
		random := rand.New(rand.NewPCG(1, 2))
		for range 1024 {
			clients = append(clients, r.rules[random.IntN(len(r.rules))].Who.networks[0].Addr().Next())
		}
		b.Run(fmt.Sprintf("rules=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				r.Match(clients[i%1024], -1, -1)
			}
		})
	}
}

func BenchmarkParseRules(b *testing.B) {
	text := manyRules(10_000)
	for b.Loop() {
		mustParse(b, text)
	}
}

// TestOwnVariables holds that no rule can set what is in the payload anyway.
func TestOwnVariables(t *testing.T) {
	address := fdinfo.Address{IP: netip.MustParseAddrPort("192.0.2.1:80")}
	local := fdinfo.Address{Unix: true, Path: "/a"}
	for _, info := range []fdinfo.Conn{{Local: address, Remote: address}, {Local: local, Remote: local, Peer: &unix.Ucred{Pid: 1}}} {
		c := Conn{info: info}
		for name := range scm.Vars(c.AppendPayload(nil)) {
			_, err := ParseRules("f", "allow all "+name+"=x")
			if want := fmt.Sprintf("f:1:11: %s cannot be set", name); err == nil || err.Error() != want {
				t.Errorf("a rule that sets %s: error %v, want %q", name, err, want)
			}
		}
	}
}

func TestVariables(t *testing.T) {
	var got []string
	for where, name := range mustParse(t, "allow ::1 A=1 B=\nallow all C=3").Variables() {
		got = append(got, where+" "+name)
	}
	if want := []string{"f:1 A", "f:1 B", "f:2 C"}; !slices.Equal(got, want) {
		t.Errorf("Variables() yields %q, want %q", got, want)
	}
	for range (*Rules)(nil).Variables() {
		t.Error("Variables() of no rules yields something")
	}
}

func TestParseWhoNames(t *testing.T) {
	u, err := user.LookupId(fmt.Sprint(os.Getuid()))
	if err != nil {
		fdtest.Lacks(t, "the own user has no name: %v", err)
	}
	w, err := ParseWho("uid=" + u.Username)
	if err != nil || w.kind != oneUser || w.id != os.Getuid() {
		t.Errorf("ParseWho(uid=%s) = %+v, %v; want user %d", u.Username, w, err, os.Getuid())
	}
}
