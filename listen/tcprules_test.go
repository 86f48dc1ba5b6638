//go:build linux

package listen

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"fdkit/internal/fdtest"
)

// tcprulesTexts are texts that tcprules(1) takes, and mean the same here.
var tcprulesTexts = []string{
	"127.0.0.1:allow\n:deny\n",
	":deny\n127.:allow\n",
	"# the manual's\n18.23.0.32:deny\n:allow\n127.:allow,A=\"1\"\n",
	"10.0.:allow,RELAYCLIENT=\"@fix.me\"\n10.0.0.:deny\n10.0.0.5:allow,X=\"\",TCPLOCALHOST=/movie.edu/\n",
	// The first of two with one address, the most specific of all.
	"10.1.2.3:allow,N=\"1\"\n10.1.2.3:deny\n10.1.2.:deny\n10.1.2.:allow\n10.1.:allow,N=\"2\"\n10.:deny\n:allow,N=\"3\"\n:deny\n",
	// Ranges, also of what is not the last, and over each other.
	"1.2.3.37-53:deny\n1.2.3.40-45:allow,R=\"x\"\n10.2-3.:deny\n10.4-999.7.:deny\n0-9.9.:allow,S=\"y\"\n192.168.0-255.1:deny\n",
	"10.0-255.:deny\n10.:allow,A=\"1\"\n10.7.:allow\n10.7.7.7:allow,A=\"2\"\n",
	"5.5.5.0-255:deny\n5.5.5.7-7:allow\n5.5.:allow,A=\"1\"\n",
	"1.2.3.007-9:deny\n",
	":allow,A=\"1\",B=\"2\",A=\"3\"  \t\n\n#:deny\n",
	"127.:deny,A=\"1\"",
}

// edges are addresses at the edges of what tcprulesTexts name.
var edges = strings.Fields(`0.0.0.0 0.9.0.0 1.2.3.6 1.2.3.7 1.2.3.9 1.2.3.10 1.2.3.36 1.2.3.37 1.2.3.39 1.2.3.40 1.2.3.45 1.2.3.46
	1.2.3.53 1.2.3.54 9.9.9.9 10.9.1.1 10.0.0.4 10.0.0.5 10.0.1.0 10.1.2.3 10.1.2.4 10.1.3.0 10.2.0.0 10.2.255.255 10.3.7.1
	10.4.7.0 10.4.6.255 10.5.7.7 10.7.7.7 10.7.7.8 10.255.7.1 10.255.255.255 18.23.0.32 5.5.5.7 5.5.5.8 5.5.6.0 5.6.0.0
	127.0.0.0 127.0.0.1 126.255.255.255 128.0.0.0 192.168.9.1 192.168.9.2 255.255.255.255`)

// oracle returns what tcpserver(1) would do with clients of these addresses, each
// in the form of decided.
func oracle(t *testing.T, text string, clients []string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	cdb := filepath.Join(dir, "cdb")
	compile := exec.Command("tcprules", cdb, filepath.Join(dir, "tmp"))
	compile.Stdin = strings.NewReader(text)
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("tcprules of %q: %v: %s", text, err, out)
	}
	decisions := map[string]string{}
	for _, ip := range clients {
		check := exec.Command("tcprulescheck", cdb)
		check.Env = []string{"TCPREMOTEIP=" + ip}
		out, err := check.Output()
		if err != nil {
			t.Fatalf("tcprulescheck %s: %v", ip, err)
		}
		verb, env := "", map[string]string{}
		for line := range strings.Lines(string(out)) {
			line = strings.TrimSuffix(line, "\n")
			if variable, ok := strings.CutPrefix(line, "set environment variable "); ok {
				name, value, _ := strings.Cut(variable, "=")
				env[name] = value
			} else if v, ok := strings.CutSuffix(line, " connection"); ok {
				verb = v
			}
		}
		if verb == "deny" {
			env = nil
		}
		decisions[ip] = fmt.Sprint(verb, env)
	}
	return decisions
}

func decided(d Decision) string {
	verb, env := "deny", map[string]string{}
	if d.Allow {
		verb = "allow"
	}
	for variable := range strings.SplitSeq(string(d.Env), "\x00") {
		if name, value, ok := strings.Cut(variable, "="); ok {
			env[name] = value
		}
	}
	return fmt.Sprint(verb, env)
}

func TestTCPRulesOracle(t *testing.T) {
	fdtest.NeedsProgram(t, "tcprules", "tcprulescheck")
	for _, text := range tcprulesTexts {
		r := mustParse(t, text)
		for ip, want := range oracle(t, text, edges) {
			if got := decided(r.Match(netip.MustParseAddr(ip), -1, -1)); got != want {
				t.Errorf("tcprules text %q, client %s: %s, tcpserver would %s", text, ip, got, want)
			}
		}
		checkAll(t, text, r)
	}
}

// TestTCPRulesOracleRandom has rules of few addresses, so that many are about the
// same clients.
func TestTCPRulesOracleRandom(t *testing.T) {
	fdtest.NeedsProgram(t, "tcprules", "tcprulescheck")
	random := rand.New(rand.NewPCG(3, 4))
	for range 25 {
		var text strings.Builder
		for i := range 1 + random.IntN(15) {
			n := random.IntN(5)
			parts := []string{}
			for range n {
				parts = append(parts, fmt.Sprint(random.IntN(3)))
			}
			if n > 0 && random.IntN(2) == 0 {
				parts[random.IntN(n)] = fmt.Sprintf("%d-%d", random.IntN(2), 1+random.IntN(3))
			}
			address := strings.Join(parts, ".")
			if n > 0 && n < 4 {
				address += "."
			}
			fmt.Fprintf(&text, "%s:%s,RULE=\"%d\"\n", address, []string{"allow", "deny"}[random.IntN(2)], i)
		}
		var clients []string
		for range 20 {
			clients = append(clients, fmt.Sprintf("%d.%d.%d.%d", random.IntN(4), random.IntN(4), random.IntN(4), random.IntN(4)))
		}
		r := mustParse(t, text.String())
		for ip, want := range oracle(t, text.String(), clients) {
			if got := decided(r.Match(netip.MustParseAddr(ip), -1, -1)); got != want {
				t.Errorf("tcprules text %q, client %s: %s, tcpserver would %s", text.String(), ip, got, want)
			}
		}
	}
}

// TestTCPRulesFurther has what tcprules(1) of ucspi-tcp does not know.
func TestTCPRulesFurther(t *testing.T) {
	r := mustParse(t, "::1:allow,A=\"1\"\n2001:db8::/32:deny\n2001:db8:1::/48:allow\n10.0.0.0/9:deny\n10.:allow\n::ffff:192.0.2.1:deny\n")
	for client, want := range map[string]string{
		"::1": "allow f:1 A=1|", "::2": "allow f", "2001:db8::1": "deny f:2", "2001:db8:1::1": "allow f:3", // the most specific
		"10.1.1.1": "deny f:4", "10.128.0.0": "allow f:5", "192.0.2.1": "deny f:6", "uid1:1": "allow f", "": "deny the client is not known",
	} {
		if got := match(t, r, client); got != want {
			t.Errorf("Match(%q) = %q, want %q", client, got, want)
		}
	}
	closed := mustParse(t, "127.0.0.1:allow\n:deny")
	for client, want := range map[string]string{"::1": "deny f:2", "uid0:0": "deny f:2"} {
		if got := match(t, closed, client); got != want {
			t.Errorf("Match(%q) = %q, want %q", client, got, want)
		}
	}
}

// FuzzParseRules feeds the parser with anything: it never panics, its errors name
// a place in the text, and Match does as the manual says.
func FuzzParseRules(f *testing.F) {
	for _, seed := range slices.Concat(tcprulesTexts, []string{
		"allow 192.0.2.0/24 RELAYCLIENT= GREETING=\"hello there\"\ndeny 2001:db8::/32\nallow uid=1000\nallow gid=33 ROLE=web\ndeny unix\ndeny all\n",
		"allow all A=\"a\\\"b\\\\\" # c\r\n", "::1:allow,A=\"1\"\n10.0.0.0/9:deny\n", "allow 10.0.0.1/8", "\x00", "=.example.org:deny", "allow all A=\"", ":allow,A=\"",
	}) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseRules("f", text)
		if err != nil {
			e := err.(*RulesError)
			lines := strings.Split(text, "\n")
			if e.Line > len(lines) || e.Line > 0 && (e.Column < 1 || e.Column > len(lines[e.Line-1])+1) || e.Err == nil {
				t.Errorf("ParseRules(%q): %v, which is no place in it", text, err)
			}
			return
		}
		for _, rule := range r.rules {
			if len(rule.Env) > maxRuleEnv || len(rule.Env) > 0 && !rule.Allow {
				t.Errorf("ParseRules(%q): the rule of %s has variables %q", text, rule.Where, rule.Env)
			}
		}
		if len(r.networks) < 1000 {
			checkAll(t, text, r)
		}
	})
}
