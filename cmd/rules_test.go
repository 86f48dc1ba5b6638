//go:build linux

package cmd_test

import (
	"net/netip"
	"testing"

	"fdkit/listen"
)

// TestManRules parses the rules that fdkit-listen(1) shows.
func TestManRules(t *testing.T) {
	blocks := literalBlocks(t, "fdkit-listen.1", manSection(manPages(t)["fdkit-listen.1"], "DESCRIPTION"))
	for _, test := range []struct {
		first  string
		client string // an IP address, or "" for a client of user 7 and group 33
		allow  bool
		env    string
	}{
		{"# The lab, and what its programs are told.", "192.0.2.1", true, "FDKIT_NET=lab\x00GREETING=hello there\x00"},
		{"# The lab, and what its programs are told.", "2001:db8:bad::1", false, ""},
		{"# The lab, and what its programs are told.", "2001:db8:1::1", true, ""},
		{"# The lab, and what its programs are told.", "192.0.3.1", false, ""},
		{"# The lab, and what its programs are told.", "", true, "FDKIT_ROLE=web\x00"},
		{`127.0.0.1:allow,RELAYCLIENT=""`, "127.0.0.1", true, "RELAYCLIENT=\x00"},
		{`127.0.0.1:allow,RELAYCLIENT=""`, "10.0.0.1", false, ""},
		{`127.0.0.1:allow,RELAYCLIENT=""`, "10.1.0.1", true, ""},
	} {
		rules, err := listen.ParseRules("example", blocks[test.first])
		if err != nil {
			t.Fatalf("man/fdkit-listen.1, the rules that begin %q: %v", test.first, err)
		}
		var ip netip.Addr
		if test.client != "" {
			ip = netip.MustParseAddr(test.client)
		}
		if d := rules.Match(ip, 7, 33); d.Allow != test.allow || string(d.Env) != test.env {
			t.Errorf("man/fdkit-listen.1, the rules that begin %q: client %q is allowed: %v, with %q; want %v, %q", test.first, test.client, d.Allow, d.Env, test.allow, test.env)
		}
	}
}
