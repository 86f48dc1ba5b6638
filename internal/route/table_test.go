package route

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"fdkit/internal/hint"
)

func table(t testing.TB, way, text string) *Table {
	t.Helper()
	table, err := ParseTable(strings.NewReader(text), "table", by(t, way))
	if err != nil {
		t.Fatalf("ParseTable by %s of %q: %v", way, text, err)
	}
	return table
}

func TestTable(t *testing.T) {
	const words = "alpha a\nalp* b\nalpha* c\nGET%20/* d\n%2A e\n%2a%2a* f\n% g\n%41 h\n"
	const hosts = "example.org a\n*.example.org b\n*.deep.example.org c\nWWW.Example.ORG. d\n*.net e\n2001:DB8::1 f\n192.0.2.1 g\nb%c3%bccher.example h\n"
	const sources = "10.0.0.0/8 a\n10.1.0.0/16 b\n10.1.2.3 c\n2001:db8::/32 d\n2001:db8::1 e\n::ffff:192.0.2.0/120 f\n::ffff:192.0.2.1 g\n"
	const locals = "192.0.2.1 a\n192.0.2.1:443 b\n:443 c\n192.0.2.0/24 d\n[2001:db8::1]:80 e\n2001:db8::1 f\n"
	for _, test := range []struct{ by, table, key, want string }{
		{"line", words, "alpha", "a"},
		{"line", words, "alphabet", "c"},
		{"line", words, "alps", "b"},
		{"line", words, "alp", "b"},
		{"line", words, "al", ""},
		{"line", words, "Alpha", ""},
		{"line", words, "GET / HTTP/1.1", "d"},
		{"line", words, "*", "e"},
		{"line", words, "**", "f"},
		{"line", words, "**x", "f"},
		{"line", words, "", "g"},
		{"line", words, "A", "h"},
		{"line", words + "* z", "al", "z"},
		{"line", "* z", "", "z"},
		{"regex=.", words, "alpha", "a"},
		{"length-prefix", words, "alpha", "a"},
		{"bytes=3", "%00%ff%20 a\nab* b", "\x00\xff ", "a"},
		{"bytes=3", "%00%ff%20 a\nab* b", "abc", "b"},

		{"sni", hosts, "example.org", "a"},
		{"sni", hosts, "EXAMPLE.org", "a"},
		{"sni", hosts, "mail.example.org", "b"},
		{"sni", hosts, "deep.example.org", "b"},
		{"sni", hosts, "x.deep.example.org", "c"},
		{"sni", hosts, "x.y.deep.example.org", "c"},
		{"sni", hosts, "x.y.example.org", "b"},
		{"sni", hosts, "www.example.org", "d"},
		{"sni", hosts, "www.example.org.", "d"},
		{"sni", hosts, "myexample.org", ""},
		{"sni", hosts, ".example.org", ""},
		{"sni", hosts, "net", ""},
		{"sni", hosts, "a.b.net", "e"},
		{"http-host", hosts, "2001:db8::1", "f"},
		{"http-host", hosts, "192.0.2.1", "g"},
		{"http-host", hosts, "bücher.example", "h"},
		{"http-host", hosts + "* z\n", "other.example", "z"},

		{"source", sources, "10.2.3.4", "a"},
		{"source", sources, "10.1.3.4", "b"},
		{"source", sources, "10.1.2.3", "c"},
		{"source", sources, "11.0.0.1", ""},
		{"source", sources, "2001:db8::2", "d"},
		{"source", sources, "2001:db8::1", "e"},
		{"source", sources, "2001:db9::1", ""},
		{"source", sources, "192.0.2.2", "f"},
		{"source", sources, "::ffff:192.0.2.2", "f"},
		{"source", sources, "192.0.2.1", "g"},
		{"source", sources, "::a01:203", ""},
		{"source", sources + "* z", "::1", "z"},
		{"source", sources + "* z", "unix", "z"},
		{"source", "0.0.0.0/0 a\n::/0 b", "10.0.0.1", "a"},
		{"source", "0.0.0.0/0 a\n::/0 b", "::1", "b"},

		{"local-address", locals, "192.0.2.1:80", "a"},
		{"local-address", locals, "192.0.2.1:443", "b"},
		{"local-address", locals, "198.51.100.1:443", "c"},
		{"local-address", locals, "[::1]:443", "c"},
		{"local-address", locals, "192.0.2.2:443", "d"}, // a longer prefix, though without a port
		{"local-address", locals, "[2001:db8::1]:80", "e"},
		{"local-address", locals, "[2001:db8::1]:81", "f"},
		{"local-address", locals, "[::ffff:192.0.2.1]:443", "b"},
		{"local-address", locals, "198.51.100.1:80", ""},
		{"local-address", "0.0.0.0/0 a\n:80 b", "198.51.100.1:80", "b"},
	} {
		queue, ok := table(t, test.by, test.table).Queue(test.key)
		if queue != test.want || ok != (test.want != "") {
			t.Errorf("Queue(%q) by %s = %q, %v; want %q", test.key, test.by, queue, ok, test.want)
		}
	}
}

func TestParseTable(t *testing.T) {
	got := table(t, "line", "# a comment\n\n  a\t /run/a queue.q \r\n\tb @b\n#c c\n%23c unix:/run/c\nd /run/a queue.q\n* @b#1\n")
	if want := []string{"/run/a queue.q", "@b", "unix:/run/c", "@b#1"}; !slices.Equal(got.Queues(), want) {
		t.Errorf("Queues() = %q; want %q", got.Queues(), want)
	}
	if queue, ok := got.Queue("#c"); queue != "unix:/run/c" || !ok {
		t.Errorf("Queue(#c) = %q, %v", queue, ok)
	}
	if queue, ok := got.Default(); queue != "@b#1" || !ok {
		t.Errorf("Default() = %q, %v", queue, ok)
	}
	if queue, ok := table(t, "line", "a b").Default(); ok {
		t.Errorf("Default() = %q; there is none", queue)
	}
}

func TestParseTableErrors(t *testing.T) {
	for _, test := range []struct{ by, text, want string }{
		{"line", "", "table: there is no route in it"},
		{"line", "# a b\n\n", "table: there is no route in it"},
		{"line", "\na\n", `table:2: "a" has no queue`},
		{"line", "a b\na c\n", `table:2: "a" is there already, for b`},
		{"line", "a b\n%61 c\n", `table:2: "%61" is there already, for b`},
		{"line", "a* b\na* b\n", `table:2: "a*" is there already`},
		{"line", "* b\na b\n* b\n", `table:3: "*" is there already`},
		{"line", "a b # c\n", `table:1: there is a comment behind "a"`},
		{"line", "a #b\n", `table:1: there is a comment behind "a"`},
		{"line", "a*b c\n", `"a*b" has a * that is not at its end`},
		{"line", "** c\n", `"**" has a * that is not at its end`},
		{"line", "%* c\n", `"%*" is no pattern`},
		{"line", "%4 c\n", `"%4" stands there for no byte`},
		{"line", "a%zz c\n", `"%zz" stands there for no byte`},
		{"line", "a b\x00c\n", "has a zero byte"},
		{"line", "a b\n" + strings.Repeat("x", maxLine+1), "table:2: the line has more than 8192 bytes"},
		{"line", strings.Repeat("x", 201) + " a\n", "is longer than keys are"},
		{"bytes=3", "ab a\n", `"ab" has 2 bytes, and keys have 3`},
		{"bytes=3", "abcd* a\n", `"abcd*" has 4 bytes, and keys have 3`},
		{"sni", "a.*.b c\n", `"a.*.b" has a * that is no label`},
		{"sni", "*a c\n", `"*a" has a *`},
		{"sni", "*. c\n", `"*." is no name`},
		{"sni", "% c\n", `"%" is no name`},
		{"sni", ".example.org c\n", `".example.org" begins with a dot`},
		{"sni", "%g0 c\n", "stands there for no byte"},
		{"http-host", "example.org:80 c\n", `"example.org:80" has a port`},
		{"http-host", "[::1]:80 c\n", `"[::1]:80" has a port`},
		{"http-host", "[::1] c\n", `"[::1]" has brackets`},
		{"http-host", "A.b c\na.B. d\n", `table:2: "a.B." is there already, for c`},
		{"http-host", "*.a c\n*.A. d\n", `table:2: "*.A." is there already`},
		{"http-host", strings.Repeat("x", 201) + " a\n", "is longer than keys are"},
		{"line", "\ufeffa b\n", "table:1: the file begins with a byte order mark"},
		{"line", "\ufeff# a comment\r\n* b\n", "begins with a byte order mark"},
		{"source", "example.org a\n", `"example.org" is no address`},
		{"source", "192.0.2.1/24 a\n", `"192.0.2.1/24" has bits behind the prefix`},
		{"source", "192.0.2.0/33 a\n", `"192.0.2.0/33" is no address`},
		{"source", "192.0.2.1:80 a\n", `"192.0.2.1:80" is no address`},
		{"source", ":80 a\n", `":80" is no address`},
		{"source", "fe80::1%eth0 a\n", `"fe80::1%eth0" has a zone`},
		{"source", "::ffff:0:0/95 a\n", "bits behind the prefix"},
		{"source", "10.0.0.0/8 a\n::ffff:10.0.0.0/104 b\n", `table:2: "::ffff:10.0.0.0/104" is there already, for a`},
		{"source", "10.0.0.1 a\n10.0.0.1/32 b\n", `table:2: "10.0.0.1/32" is there already, for a`},
		{"local-address", ":80 a\n:80 b\n", `table:2: ":80" is there already`},
		{"local-address", ":0 a\n", `":0" is no port`},
		{"local-address", ":x a\n", `":x" is no port`},
		{"local-address", ":65536 a\n", `":65536" is no port`},
		{"local-address", "192.0.2.1:0 a\n", "no connection has port 0"},
		{"local-address", "[fe80::1%eth0]:80 a\n", "has a zone"},
		{"local-address", "2001:db8::1]:80 a\n", `is no address`},
	} {
		got, err := ParseTable(strings.NewReader(test.text), "table", by(t, test.by))
		if err == nil || !strings.HasPrefix(err.Error(), "table:") || !strings.Contains(err.Error(), test.want) {
			t.Errorf("ParseTable by %s of %.80q = %v, %.200v; want an error with %q", test.by, test.text, got, err, test.want)
		}
	}
	failed := errors.New("failed")
	if _, err := ParseTable(iotest.ErrReader(failed), "table", by(t, "line")); !errors.Is(err, failed) {
		t.Errorf("ParseTable of what cannot be read: %v; want that error", err)
	}
	_, err := ParseTable(strings.NewReader(".a b"), "table", by(t, "sni"))
	if got, want := hint.Of(err), "*.a is for all names below, and a is that name"; got != want {
		t.Errorf("the hint is %q; want %q", got, want)
	}
	for _, route := range [][2]string{{"", "q"}, {"a", ""}} {
		if err := NewTable(by(t, "line")).Add(route[0], route[1]); err == nil {
			t.Errorf("Add(%q, %q): no error", route[0], route[1])
		}
	}
}

func TestQuote(t *testing.T) {
	for key, want := range map[string]string{
		"":                   "%",
		"alpha-1_B.c":        "alpha-1_B.c",
		".":                  "%2E",
		"..":                 "%2E.",
		"../../etc/passwd":   "%2E.%2F..%2Fetc%2Fpasswd",
		"-rf":                "%2Drf",
		"a b\tc\nd\x00\x7f":  "a%20b%09c%0Ad%00%7F",
		"100%":               "100%25",
		"%":                  "%25",
		"bücher.example":     "bücher.example",
		"日本":                 "日本",
		"\xff\xc3a":          "%FF%C3a",
		"\ufffd":             "%EF%BF%BD",
		"a\u202eb\u0085":     "a%E2%80%AEb%C2%85",
		"$(x)`y`;*?[z]'\"\\": "%24%28x%29%60y%60%3B%2A%3F%5Bz%5D%27%22%5C",
		"2001:db8::1":        "2001:db8::1",
		"192.0.2.1:80":       "192.0.2.1:80",
		"~root":              "%7Eroot",
		"k=v,w+x@y":          "k=v,w+x@y",
	} {
		if got := Quote(key); got != want {
			t.Errorf("Quote(%q) = %q; want %q", key, got, want)
		}
	}
}

func FuzzQuote(f *testing.F) {
	for _, key := range []string{"", "..", "-a", "a/b\x00", "ä\xff", "%41"} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		quoted := Quote(key)
		if strings.ContainsAny(quoted, "/ \t\n\x00*?[]$`'\"\\#") || quoted == "" || quoted[0] == '.' || quoted[0] == '-' || len(quoted) < len(key) {
			t.Errorf("Quote(%q) = %q", key, quoted)
		}
		if back, err := unquote(quoted); back != key || err != nil {
			t.Errorf("Quote(%q) = %q, which is %q, %v", key, quoted, back, err)
		}
		if len(quoted) > maxQuoted {
			return
		}
		// What is quoted is a pattern for its key.
		if queue, ok := table(t, "line", quoted+" q\n").Queue(key); queue != "q" || !ok {
			t.Errorf("Queue(%q) with the pattern %q = %q, %v", key, quoted, queue, ok)
		}
	})
}

func FuzzParseTable(f *testing.F) {
	f.Add("line", "a* b\n%20 c\n# d\n* e", "abc")
	f.Add("sni", "*.a.b c\nA.b. d", "x.a.b")
	f.Add("source", "10.0.0.0/8 c\n::ffff:192.0.2.1 d\n::1 e", "10.1.1.1")
	f.Add("local-address", ":80 c\n192.0.2.1:80 d\n[::1]:80 e", "192.0.2.1:80")
	f.Fuzz(func(t *testing.T, way, text, key string) {
		b, err := ParseBy(way)
		if err != nil {
			return
		}
		table, err := ParseTable(strings.NewReader(text), "table", b)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "table:") {
				t.Errorf("ParseTable by %q of %q: %v; want the place", way, text, err)
			}
			return
		}
		queues := table.Queues()
		if queue, ok := table.Queue(key); ok != slices.Contains(queues, queue) {
			t.Errorf("Queue(%q) by %q of %q = %q, %v; the queues are %q", key, way, text, queue, ok, queues)
		}
		if slices.Contains(queues, "") {
			t.Errorf("ParseTable by %q of %q has a queue without a name", way, text)
		}
		// A table has each pattern once.
		if _, err := ParseTable(strings.NewReader(text+"\n"+text), "table", b); err == nil {
			t.Errorf("ParseTable by %q of %q twice: no error", way, text)
		}
	})
}

// large returns a table of n patterns, and keys that fit some.
func large(way string, n int) (text []byte, key func(i int) string) {
	var lines bytes.Buffer
	switch way {
	case "source":
		ip := netip.MustParseAddr("10.0.0.0")
		var ips []netip.Addr
		for range n {
			ips = append(ips, ip)
			fmt.Fprintln(&lines, ip, "q")
			ip = ip.Next()
		}
		return lines.Bytes(), func(i int) string { return ips[i%n].String() }
	default:
		for i := range n {
			fmt.Fprintf(&lines, "host%d.example.org q\n*.host%d.example.org q\n", i, i)
		}
		return lines.Bytes(), func(i int) string { return fmt.Sprintf("a.b.host%d.example.org", i%n) }
	}
}

func TestLargeTable(t *testing.T) {
	const n = 50_000
	for _, way := range []string{"sni", "source"} {
		text, key := large(way, n)
		table := table(t, way, string(text))
		for i := 0; i < n; i += 100 {
			if queue, ok := table.Queue(key(i)); queue != "q" || !ok {
				t.Fatalf("Queue(%q) by %s = %q, %v", key(i), way, queue, ok)
			}
		}
	}
}

func BenchmarkParseTable(b *testing.B) {
	text, _ := large("sni", 50_000) // 100 000 lines
	way := by(b, "sni")
	for b.Loop() {
		if _, err := ParseTable(bytes.NewReader(text), "table", way); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkQueue(b *testing.B) {
	for _, way := range []string{"sni", "source"} {
		b.Run(way, func(b *testing.B) {
			text, key := large(way, 100_000)
			table := table(b, way, string(text))
			k := key(4711)
			b.ReportAllocs()
			for b.Loop() {
				table.Queue(k)
			}
		})
		b.Run(way+"-none", func(b *testing.B) {
			text, _ := large(way, 100_000)
			table := table(b, way, string(text))
			for b.Loop() {
				table.Queue("2001:db8::1")
			}
		})
	}
}
