//go:build linux

package cmd

import (
	"net/netip"
	"strings"
	"testing"
)

func TestLocalAddress(t *testing.T) {
	for _, test := range []struct {
		address, local string
		onlyIPv6       bool
		want           fit
	}{
		{":80", "127.0.0.1:80", false, fits},
		{":80", "[::1]:80", false, fits},
		{":80", "0.0.0.0:81", false, fitsNot},
		{"127.0.0.1:80", "127.0.0.1:80", false, fits},
		{"127.0.0.1:80", "127.0.0.2:80", false, fitsNot},
		{"127.0.0.1:80", "0.0.0.0:80", false, fitsAll},
		{"127.0.0.1:80", "[::]:80", false, fitsAll},
		{"127.0.0.1:80", "[::]:80", true, fitsNot},
		{"[::1]:80", "0.0.0.0:80", false, fitsNot},
		{"[::1]:80", "[::]:80", true, fitsAll},
		{"[::ffff:127.0.0.1]:80", "127.0.0.1:80", false, fits},
		{"tcp4::80", "[::]:80", false, fits},
		{"tcp4::80", "[::]:80", true, fitsNot},
		{"tcp4::80", "[::1]:80", false, fitsNot},
		{"tcp6::80", "0.0.0.0:80", false, fitsNot},
		{"udp:127.0.0.1:80", "127.0.0.1:80", false, fits},
	} {
		l, err := parseLocalAddress(test.address)
		if err != nil {
			t.Errorf("parseLocalAddress(%q) = %v", test.address, err)
			continue
		}
		if got := l.of(netip.MustParseAddrPort(test.local), test.onlyIPv6); got != test.want {
			t.Errorf("%s is answered at %s (IPv6 only: %t): %d; want %d", test.address, test.local, test.onlyIPv6, got, test.want)
		}
	}
}

func TestLocalAddressUnix(t *testing.T) {
	for address, want := range map[string]string{"/run/a": "/run/a", "./a:b": "./a:b", "@a": "@a", "unix:a": "a", "unix:@a": "@a"} {
		if l, err := parseLocalAddress(address); err != nil || l.protocol != "unix" || l.path != want {
			t.Errorf("parseLocalAddress(%q) = %+v, %v; want the Unix socket %s", address, l, err, want)
		}
	}
}

func TestSplitSources(t *testing.T) {
	for _, test := range []struct{ operands, sources, program, err string }{
		{"1:2", "1:2", "", ""},
		{"1:2 1::80 cat -v 3:4", "1:2 1::80", "cat -v 3:4", ""},
		{"1:2 -- 3:4 a", "1:2", "3:4 a", ""},
		{"1:stdin ./2:3", "1:stdin", "./2:3", ""},
		{"1:2 --fd", "", "", "stands after"},
		{"1:2 -- --fd", "1:2", "--fd", ""},
		{"1:2 3:", "", "", "no PID:FD"},
		{"99999999999:2", "", "", "is no descriptor"},
		{"1:99999999999", "", "", "no PID:FD"},
		{"-- cat", "", "", "missing"},
		{"", "", "", "missing"},
	} {
		sources, program, err := splitSources(strings.Fields(test.operands))
		var texts []string
		for _, s := range sources {
			texts = append(texts, s.text)
		}
		if err != nil {
			texts, program = nil, nil
		}
		if got := strings.Join(texts, " "); got != test.sources || strings.Join(program, " ") != test.program ||
			(err == nil) != (test.err == "") || err != nil && (!strings.Contains(err.Error(), test.err) || exitStatus(err) != exitUsage) {
			t.Errorf("splitSources(%q) = %q, %q, %v; want %q, %q, an error with %q", test.operands, got, program, err, test.sources, test.program, test.err)
		}
	}
}

// What is parsed names no host, whose look-up could take its time.
func FuzzQuestion(f *testing.F) {
	for _, seed := range []string{"0", "12345", "1:2", ":80", "udp6:[::1]:53", "unix:/a", "@a", "./a", "socket:[1]", "pipe:[x]", "1::2", "stdin", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, operand string) {
		if strings.ContainsFunc(operand, func(r rune) bool { return 'g' <= r|0x20 }) && !strings.Contains(operand, "unix:") {
			return
		}
		q, err := parseQuestion(operand)
		if err == nil && (q.operand != operand || q.things == nil) {
			t.Errorf("parseQuestion(%q) = %+v", operand, q)
		}
		_, _ = parseSource(operand)
	})
}
