//go:build linux

package listen_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"fdkit/internal/hint"
	"fdkit/listen"
)

func TestParseRulesValues(t *testing.T) {
	for line, want := range map[string]string{
		"allow all":                                "",
		"  allow\tall \t A=1\t B=2  ":              "A=1|B=2|",
		"allow all A=":                             "A=|",
		"allow all A= B=":                          "A=|B=|",
		"allow all A=b=c":                          "A=b=c|",
		"allow all A=x#y":                          "A=x#y|",
		"allow all A=x #y":                         "A=x|",
		"allow all #":                              "",
		`allow all A="hello there" B=2`:            "A=hello there|B=2|",
		`allow all A=""`:                           "A=|",
		`allow all A="#"#`:                         "error",
		`allow all A="a\"b\\c"`:                    `A=a"b\c|`,
		"allow all A=b\r":                          "A=b|",
		"allow all A=\"b\"\r":                      "A=b|",
		"allow all A=\xff\u00e4":                   "A=\xff\u00e4|",
		`:allow,A="1",B=/2"3/`:                     `A=1|B=2"3|`,
		`:allow,A=""`:                              "A=|",
		`:allow,A="x:deny",B="#"`:                  "A=x:deny|B=#|",
		`:allow,A="1",B="2",A="3"`:                 "B=2|A=3|", // the last counts, as with tcpserver
		":allow,A=\"1\" \t\r":                      "A=1|",
		":allow,A=\xff1\xff":                       "A=1|",
		`::1:allow,A="1"`:                          "",
		`:allow,RELAYCLIENT="@fix.me"`:             "RELAYCLIENT=@fix.me|",
		"# a comment\n\n \t\n  # b\nallow all A=1": "A=1|",
	} {
		r, err := listen.ParseRules("f", line)
		if (err != nil) != (want == "error") {
			t.Errorf("ParseRules(%q): %v", line, err)
			continue
		}
		got := strings.ReplaceAll(string(r.Match(netip.MustParseAddr("192.0.2.1"), -1, -1).Env), "\x00", "|")
		if err == nil && got != want {
			t.Errorf("rules %q set %q, want %q", line, got, want)
		}
	}
}

func TestParseRulesErrors(t *testing.T) {
	long := strings.Repeat("x", 1022)
	for _, test := range []struct{ text, want, hint string }{
		{"", "f: there is no rule in it", "allow all"},
		{"\n# deny all\n\r\n", "f: there is no rule in it", "allow all"},
		{"allow", "f:1:6: allow needs a word that says who", "uid=USER"},
		{"\ndeny # all", "f:2:6: deny needs a word that says who", "uid=USER"},
		{"permit all", `f:1:1: "permit" is no rule`, "deny WHO"},
		{"Allow all", `f:1:1: "Allow" is no rule`, "deny WHO"},
		{"\xef\xbb\xbfallow all", `f:1:1: "\ufeffallow" is no rule`, "deny WHO"},
		{"10.0.0.0/8", `f:1:1: "10.0.0.0/8" is no rule`, "deny WHO"},
		{"127.0.0.1:first", `f:1:1: "127.0.0.1:first" is no rule`, "ADDRESS:allow"},
		{"allow 10.0.0.1/8", `f:1:7: "10.0.0.1/8" has bits set after the first 8`, "the network is 10.0.0.0/8, the address alone is 10.0.0.1"},
		{"allow 2001:db8::1/32", `f:1:7: "2001:db8::1/32" has bits set after the first 32`, "2001:db8::/32"},
		{"allow ::ffff:10.0.0.1/104", `f:1:7: "::ffff:10.0.0.1/104" has bits set after the first 104`, "10.0.0.0/8"},
		{"allow ::ffff:0:0/90", `f:1:7: "::ffff:0:0/90" has bits set after the first 90`, "::ffc0:0:0/90"},
		{"allow 10.0.0.0/33", `f:1:7: "10.0.0.0/33" is too long: an IPv4 address has 32 bits`, ""},
		{"allow ::/129", `f:1:7: "::/129" is too long: an IPv6 address has 128 bits`, ""},
		{"allow ::/99999999999999999999", `f:1:7: "::/99999999999999999999" has no prefix length after the /`, "/24"},
		{"allow 10.0.0.0/08", `f:1:7: "10.0.0.0/08" has no prefix length after the /`, "/24"},
		{"allow 10.0.0.0/", `f:1:7: "10.0.0.0/" has no prefix length after the /`, "/24"},
		{"allow 10.0.0.0/-1", `f:1:7: "10.0.0.0/-1" has no prefix length after the /`, "/24"},
		{"allow 10.0.0.0/255.0.0.0", `f:1:7: "10.0.0.0/255.0.0.0" has no prefix length after the /`, "/24"},
		{"allow 10.0.", `f:1:7: "10.0." is no IP address`, "192.0.2.0/24"},
		{"allow 10.0.0.256", `f:1:7: "10.0.0.256" is no IP address`, "192.0.2.0/24"},
		{"allow 010.0.0.1", `f:1:7: "010.0.0.1" is no IP address`, "192.0.2.0/24"},
		{"allow [::1]", `f:1:7: "[::1]" is no IP address`, "192.0.2.0/24"},
		{"allow www.example.org", `f:1:7: "www.example.org" is no IP address`, "not looked up"},
		{"allow fe80::1%eth0", `f:1:7: "fe80::1%eth0" has a zone, and rules are for all zones`, "fe80::1"},
		{"allow uid=", `f:1:7: "" is no user`, ""},
		{"allow uid=no-such-user", `f:1:7: there is no user "no-such-user"`, ""},
		{"allow gid=no-such-group", `f:1:7: there is no group "no-such-group"`, ""},
		{"allow uid=4294967295", `f:1:7: "4294967295" is no user`, ""},
		{"allow gid=99999999999999999999", `f:1:7: "99999999999999999999" is no group`, ""},
		{"allow uid=-1", `f:1:7: there is no user "-1"`, ""},
		{"allow unix=1", `f:1:7: "unix=1" is no IP address`, ""},
		{"allow 10.0.0.0/8 192.168.0.0/16", `f:1:18: "192.168.0.0/16" is no NAME=VALUE`, "one rule in a line"},
		{"allow all A =1", `f:1:11: "A" is no NAME=VALUE`, ""},
		{"allow all =1", `f:1:11: "" is no variable name`, ""},
		{"allow all 1A=1", `f:1:11: "1A" is no variable name`, ""},
		{"allow all A=1 B-C=1", `f:1:15: "B-C" is no variable name`, ""},
		{"allow all A=1 A=2", "f:1:15: A is set twice", ""},
		{"deny all A=1", "f:1:10: a client who is refused has no variables", ""},
		{"allow all PROTO=x", "f:1:11: PROTO cannot be set", "fdkit-environ"},
		{`allow all A="b`, "f:1:13: the closing quote is missing", ""},
		{`allow all A="b\`, `f:1:15: in quotes, \ stands before " and \ only`, ""},
		{`allow all A="b\n"`, `f:1:15: in quotes, \ stands before " and \ only`, ""},
		{`allow all A="b"c`, "f:1:16: after a closing quote there must be a blank", ""},
		{`allow all A=b"c"`, `f:1:14: '"' is in a value without quotes`, `\"`},
		{`allow all A=b\c`, `f:1:14: '\\' is in a value without quotes`, `\\`},
		{"allow all A=" + long, "f:1:11: the variables of this rule have more than 1024 bytes", ""},
		{"allow all B= A=" + long[4:] + " C=", "f:1:1035: the variables of this rule have more than 1024 bytes", ""},
		{"allow all\nallow all A=\x00", "f:2:13: there is a zero byte", "tcprules(1)"},
		{"# \x00", "f:1:3: there is a zero byte", "tcprules(1)"},
		{"# " + strings.Repeat("x", 4095), "f:1:4097: the line is longer than 4096 bytes", ""},
		{"allow " + strings.Repeat("x", 100), `f:1:7: "` + strings.Repeat("x", 60) + `..." is no IP address`, ""},
		{"allow all\r\n\r\ndeny x\r\n", `f:3:6: "x" is no IP address`, ""},
		{"allow\rall", `f:1:1: "allow\rall" is no rule`, ""},

		{"10.:deny\nallow all", "f:2:1: this rule has another form than those before it", "tcprules(1)"},
		{"allow all\n:deny", "f:2:1: this rule has another form than those before it", "tcprules(1)"},
		{"10.0:deny", `f:1:1: "10.0" matches no address`, "10.0."},
		{"10.0.0-3:deny", `f:1:1: "10.0.0-3" matches no address`, "10.0.0-3."},
		{"1.2.3.4.:deny", `f:1:1: "1.2.3.4." is no IP address`, ""},
		{"1.2.3.4.5:deny", `f:1:1: "1.2.3.4.5" is no IP address`, ""},
		{"1.2.3.256:deny", `f:1:1: "1.2.3.256" is no IP address`, "192.0.2.10-19"},
		{"1.02.3.:deny", `f:1:1: "1.02.3." is no IP address`, "192.0.2.10-19"},
		{"1..3.:deny", `f:1:1: "1..3." is no IP address`, "192.0.2.10-19"},
		{".:deny", `f:1:1: "." is no IP address`, "192.0.2.10-19"},
		{" 10.0.0.1:deny", `f:1:1: " 10.0.0.1" is no IP address`, ""},
		{"10.0.0.1 :deny", `f:1:1: "10.0.0.1 " is no IP address`, ""},
		{" :deny", `f:1:1: " " is no IP address`, ""},
		{"1.2.3.9-5:deny", `f:1:1: the range "9-5" is empty`, ""},
		{"1.2.3.300-400:deny", `f:1:1: the range "300-400" is empty`, ""},
		{"1.2.3.-5:deny", `f:1:1: "1.2.3.-5" is no IP address`, ""},
		{"1.2.3.5-:deny", `f:1:1: "1.2.3.5-" is no IP address`, ""},
		{"1-2.3-4.:deny", `f:1:1: "1-2.3-4." has more than one range`, ""},
		{"example.org:deny", `f:1:1: "example.org" is no IP address`, ""},
		{"=.example.org:deny", `f:1:1: "=.example.org" depends on a name, and names of hosts and users are not looked up`, "-H -R"},
		{"=:allow", `f:1:1: "=" depends on a name, and names of hosts and users are not looked up`, "-H -R"},
		{"joe@127.0.0.1:deny", `f:1:1: "joe@127.0.0.1" depends on a name, and names of hosts and users are not looked up`, "-H -R"},
		{"joe@=h:deny", `f:1:1: "joe@=h" depends on a name, and names of hosts and users are not looked up`, "-H -R"},
		{"2001:db8::deny", `f:1:1: "2001:db8:" is no IP address`, "192.0.2.0/24"},
		{"2001:db8::1/32:deny", `f:1:1: "2001:db8::1/32" has bits set after the first 32`, "2001:db8::/32"},
		{":allowed", `f:1:7: "ed" is no instruction`, `,NAME="VALUE"`},
		{":deny all", `f:1:6: " all" is no instruction`, `,NAME="VALUE"`},
		{":allow,", `f:1:7: "," is no instruction`, ""},
		{":allow,A", `f:1:7: ",A" is no instruction`, ""},
		{":allow,A=", `f:1:7: ",A=" is no instruction`, ""},
		{`:allow,A="1"B="2"`, `f:1:13: "B=\"2\"" is no instruction`, ""},
		{`:allow,A="1`, `f:1:10: the closing '"' is missing`, ""},
		{`:allow,A=1`, `f:1:10: the closing '1' is missing`, ""},
		{`:deny,A B="1"`, `f:1:7: "A B" is no variable name`, ""},
		{`:allow,="1"`, `f:1:8: "" is no variable name`, ""},
		{`:allow,TCPREMOTEIP="1"`, `f:1:8: TCPREMOTEIP cannot be set`, "fdkit-environ"},
		{`:allow,A="` + long + `"`, "f:1:8: the variables of this rule have more than 1024 bytes", ""},
		{strings.Repeat("1-255.1.1.1:deny\n", 4200), "f:4113:1: there are more than 1048576 networks", ""},
	} {
		r, err := listen.ParseRules("f", test.text)
		if _, ok := errors.AsType[*listen.RulesError](err); !ok || err.Error() != test.want || !strings.Contains(hint.Of(err), test.hint) {
			t.Errorf("ParseRules(%.80q) = %v, %v, hint %q\nwant error %s, hint with %q", test.text, r, err, hint.Of(err), test.want, test.hint)
		}
	}
}

// TestParseRulesLimits has what is just within the limits.
func TestParseRulesLimits(t *testing.T) {
	for _, text := range []string{
		"allow all A=" + strings.Repeat("x", 1021),
		"# " + strings.Repeat("x", 4094) + "\r\nallow all",
		strings.Repeat("1-255.1.1.1:deny\n", 4112),
	} {
		if _, err := listen.ParseRules("f", text); err != nil {
			t.Errorf("ParseRules(%.40q...): %v", text, err)
		}
	}
}

func ExampleParseRules() {
	rules, err := listen.ParseRules("web.rules", "allow 192.0.2.0/24 FDKIT_NET=lab\ndeny all\n")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, client := range []string{"192.0.2.7", "198.51.100.7"} {
		d := rules.Match(netip.MustParseAddr(client), -1, -1)
		fmt.Printf("%s: allow %v by %s, %q\n", client, d.Allow, d.Where, d.Env)
	}
	// Output:
	// 192.0.2.7: allow true by web.rules:1, "FDKIT_NET=lab\x00"
	// 198.51.100.7: allow false by web.rules:2, ""
}
