package route

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

func by(t testing.TB, text string) *By {
	t.Helper()
	b, err := ParseBy(text)
	if err != nil {
		t.Fatalf("ParseBy(%q): %v", text, err)
	}
	return b
}

// answer is what Find says.
type answer struct {
	key string
	n   int
	v   Verdict
}

func (a answer) String() string {
	switch a.v {
	case Found:
		return fmt.Sprintf("the key %.80q in %d bytes", a.key, a.n)
	case None:
		return "no key"
	}
	return fmt.Sprintf("more, %d bytes in all", a.n)
}

func find(b *By, data string, ended bool) answer {
	key, n, v := b.Find([]byte(data), ended)
	return answer{key, n, v}
}

// sameForEverySplit checks that Find says the same of a stream however it comes in
// packets, and never later than it has said. It returns the answer, and how many bytes it
// took.
func sameForEverySplit(t testing.TB, b *By, data string) (want answer, took int) {
	t.Helper()
	want = find(b, data, true)
	if want.v == More {
		t.Fatalf("Find(%.80q, ended) by %s wants more", data, b.Name)
	}
	wanted := 0
	took = -1
	for n := range len(data) + 1 {
		if n > 600 && n < min(len(data), b.Limit)-64 && n%97 != 0 {
			continue // of a long stream some lengths will do
		}
		got := find(b, data[:n], false)
		switch {
		case got.v != More && got != want:
			t.Fatalf("Find(%.80q) of %d bytes by %s = %v; with all the %d of the stream, %v", data, n, b.Name, got, len(data), want)
		case got.v != More && n < wanted:
			t.Fatalf("Find(%.80q) by %s = %v with %d bytes; it has said that it wants %d", data, b.Name, got, n, wanted)
		case got.v != More && took < 0:
			took = n
		case got.v != More:
		case took >= 0:
			t.Fatalf("Find(%.80q) by %s wants more with %d bytes; it did not with %d", data, b.Name, n, took)
		case got.n <= n || got.n > b.Limit:
			t.Fatalf("Find(%.80q) of %d bytes by %s wants %d; want more than that, and at most %d", data, n, b.Name, got.n, b.Limit)
		default:
			wanted = max(wanted, got.n)
		}
	}
	return want, took
}

func TestParseBy(t *testing.T) {
	for _, text := range []string{"source", "local-address", "line", "bytes=1", "bytes=200", "bytes 16", "regex=^a", "regex ^a b", "sni", "http-host", "length-prefix", "length-prefix=1", "length-prefix 2", "length-prefix=4"} {
		b := by(t, text)
		name, _, _ := strings.Cut(strings.ReplaceAll(text, " ", "="), "=")
		if b.Name != name || b.Address != (b.Limit == 0) {
			t.Errorf("ParseBy(%q) = %+v; want the name %s, and a limit unless it is by address", text, b, name)
		}
		consumable := name == "line" || name == "bytes" || name == "regex" || name == "length-prefix"
		if b.Consumable() != consumable {
			t.Errorf("ParseBy(%q).Consumable() = %v", text, b.Consumable())
		}
	}
	for text, want := range map[string]string{
		"":                `"" is no way to route`,
		"Line":            `"Line" is no way`,
		"line=":           "line stands alone",
		"sni=x":           "sni stands alone",
		"bytes":           `bytes: there is no number`,
		"bytes=0":         `"0" is no number`,
		"bytes=201":       `"201" is no number`,
		"bytes=+5":        `"+5" is no number`,
		"bytes=0x5":       `"0x5" is no number`,
		"regex":           "there is no expression",
		"regex=":          "there is no expression",
		"regex=(":         "missing closing )",
		"regex=(?<=a)b":   "invalid",
		"length-prefix=3": `"3" is not 1, 2 or 4 bytes`,
		"length-prefix=":  `"" is not 1, 2 or 4 bytes`,
		"source=1":        "source stands alone",
	} {
		if b, err := ParseBy(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseBy(%q) = %v, %v; want an error with %q", text, b, err, want)
		}
	}
}

func TestFind(t *testing.T) {
	long := strings.Repeat("x", 200)
	tests := []struct {
		by, data string
		want     answer
		took     int // -1: only the end of the stream tells
	}{
		{"line", "alpha\nbeta\n", answer{"alpha", 6, Found}, 6},
		{"line", "alpha\r\nbeta", answer{"alpha", 7, Found}, 7},
		{"line", "\nbeta", answer{"", 1, Found}, 1},
		{"line", "\r\n", answer{"", 2, Found}, 2},
		{"line", "a\rb\r\r\n", answer{"a\rb\r", 6, Found}, 6},
		{"line", "alpha", answer{"alpha", 5, Found}, -1},
		{"line", "", answer{"", 0, None}, -1},
		{"line", "a/b\x00\xff ä\n", answer{"a/b\x00\xff ä", 9, Found}, 9},
		{"line", long + "\r\n", answer{long, 202, Found}, 202},
		{"line", long + "y\n", answer{"", 0, None}, 202},
		{"line", long + long, answer{"", 0, None}, 202},
		{"line", strings.Repeat("/", 66) + "\n", answer{strings.Repeat("/", 66), 67, Found}, 67},
		{"line", strings.Repeat("/", 67) + "\n", answer{"", 0, None}, 68}, // 201 bytes when quoted

		{"bytes=4", "\x00abcd", answer{"\x00abc", 4, Found}, 4},
		{"bytes=4", "abc", answer{"", 0, None}, -1},
		{"bytes=200", long + "y", answer{long, 200, Found}, 200},
		{"bytes=100", strings.Repeat("/", 100), answer{"", 0, None}, 100},

		{"length-prefix", "\x00\x00\x00\x03abcd", answer{"abc", 7, Found}, 7},
		{"length-prefix=2", "\x00\x03abcd", answer{"abc", 5, Found}, 5},
		{"length-prefix=1", "\x03abcd", answer{"abc", 4, Found}, 4},
		{"length-prefix=1", "\x00abcd", answer{"", 1, Found}, 1},
		{"length-prefix=1", "\x03ab", answer{"", 0, None}, -1},
		{"length-prefix=1", "\xc8" + long, answer{long, 201, Found}, 201},
		{"length-prefix=1", "\xc9" + long, answer{"", 0, None}, 1},
		{"length-prefix", "\xff\xff\xff\xff" + long, answer{"", 0, None}, 4},
		{"length-prefix", "", answer{"", 0, None}, -1},

		{"regex=^USER ([a-z]+)", "USER bob\r\n", answer{"bob", 8, Found}, 9},
		{"regex=^USER ([a-z]+)\r\n", "USER bob\r\n", answer{"bob", 10, Found}, 10},
		{"regex=^USER ([a-z]+)", "USER bob", answer{"bob", 8, Found}, -1},
		{"regex=^USER ([a-z]+)", "PASS bob\r\n", answer{"", 0, None}, 1},
		{"regex=^[0-9]{4}", "12345", answer{"1234", 4, Found}, 4},
		{"regex=^a(.*c)?", "abbb\n", answer{"", 0, None}, 5}, // the group has no part in it
		{"regex=^a.*c|^a", "abbbc\n", answer{"abbbc", 5, Found}, 6},
		{"regex=^a.*c|^a", "abbb\n", answer{"a", 1, Found}, 5},
		{"regex=^a.*?c", "abbbccc", answer{"abbbc", 5, Found}, 5},
		{"regex=b+", "aabbba", answer{"bbb", 5, Found}, 6},
		{"regex=b+", "aaaa", answer{"", 0, None}, -1},
		{"regex=^abc$", "abc", answer{"abc", 3, Found}, -1},
		{"regex=^abc$", "abcd", answer{"", 0, None}, 4},
		{"regex=(?m)^([a-z]+):$", "x\nabc:\nd", answer{"abc", 6, Found}, 7},
		{`regex=^abc\b`, "abc d", answer{"abc", 3, Found}, 4},
		{`regex=^abc\B`, "abc d", answer{"", 0, None}, 4},
		{"regex=^(?i:get) (.)", "GeT ä", answer{"ä", 6, Found}, 6},
		{"regex=^(.)", "\xe4\xf6", answer{"\xe4", 1, Found}, 2}, // until then it may be of three bytes
		{"regex=^(x*)", "", answer{"", 0, Found}, -1},
		{"regex=^", "abc", answer{"", 0, Found}, 0},
		{"regex=(x)", strings.Repeat("a", 4095) + "x", answer{"x", 4096, Found}, 4096},
		{"regex=(x)", strings.Repeat("a", 4096) + "x", answer{"", 0, None}, 4096},
		{"regex=x+", strings.Repeat("a", 4090) + strings.Repeat("x", 10), answer{"xxxxxx", 4096, Found}, 4096},
		{"regex=x*", strings.Repeat("x", 300), answer{"", 0, None}, -1}, // too long
	}
	for _, test := range tests {
		got, took := sameForEverySplit(t, by(t, test.by), test.data)
		if got != test.want || took != test.took {
			t.Errorf("Find(%.80q) by %s = %v after %d bytes; want %v after %d", test.data, test.by, got, took, test.want, test.took)
		}
	}
}

func TestFindWants(t *testing.T) {
	for _, test := range []struct {
		by, data string
		want     int
	}{
		{"line", "ab", 3},
		{"bytes=8", "", 8},
		{"bytes=8", "abc", 8},
		{"length-prefix", "", 4},
		{"length-prefix", "\x00\x00\x00\x10", 20},
		{"sni", "", 1},
		{"sni", "\x16", 5},
		{"sni", "\x16\x03\x01", 5},
		{"sni", "\x16\x03\x01\x02\x00\x01", 517},
		{"sni", "\x16\x03\x01\x00\x02\x01\x00", 12},
		{"http-host", "GET / HTTP/1.1\r\n", 17},
	} {
		if got := find(by(t, test.by), test.data, false); got != (answer{"", test.want, More}) {
			t.Errorf("Find(%q) by %s = %v; want more, %d bytes in all", test.data, test.by, got, test.want)
		}
	}
}

// A limit that is set holds, and a line that ends with the stream just there is none
// whether that is known or not.
func TestLimit(t *testing.T) {
	b := by(t, "line")
	b.Limit = 4
	for data, want := range map[string]answer{
		"abc\n": {"abc", 4, Found}, "abc": {"abc", 3, Found}, "abcd": {"", 0, None}, "abcd\n": {"", 0, None},
	} {
		if got, _ := sameForEverySplit(t, b, data); got != want {
			t.Errorf("Find(%q) by a line of at most 4 bytes = %v; want %v", data, got, want)
		}
	}
}

func TestOfAddress(t *testing.T) {
	for _, test := range []struct{ by, remote, local, want string }{
		{"source", "192.0.2.1:1000", "198.51.100.1:80", "192.0.2.1"},
		{"source", "[::ffff:192.0.2.1]:1000", "", "192.0.2.1"},
		{"source", "[fe80::1%eth0]:1000", "", "fe80::1"},
		{"source", "", "192.0.2.1:80", ""},
		{"local-address", "192.0.2.1:1000", "198.51.100.1:80", "198.51.100.1:80"},
		{"local-address", "", "[::ffff:192.0.2.1]:80", "192.0.2.1:80"},
		{"local-address", "", "[fe80::1%eth0]:80", "[fe80::1]:80"},
		{"local-address", "192.0.2.1:1000", "", ""},
		{"line", "192.0.2.1:1000", "192.0.2.1:80", ""},
	} {
		remote, _ := netip.ParseAddrPort(test.remote)
		local, _ := netip.ParseAddrPort(test.local)
		if key, ok := by(t, test.by).OfAddress(remote, local); key != test.want || ok != (test.want != "") {
			t.Errorf("OfAddress(%s, %s) by %s = %q, %v; want %q", test.remote, test.local, test.by, key, ok, test.want)
		}
	}
	if got := find(by(t, "source"), "abc", false); got != (answer{"", 0, None}) {
		t.Errorf("Find by source = %v; want none", got)
	}
}

// FuzzFind looks for keys in streams of every kind.
func FuzzFind(f *testing.F) {
	for _, way := range []string{"line", "bytes=3", "length-prefix=1", "length-prefix"} {
		f.Add(way, "\x00\x00\x00\x03alpha\r\nbeta")
	}
	for _, way := range []string{"regex=^USER ([a-z]+)", `regex=a.*b|a\b`, "regex=(?m)^(x*?)$", "regex=(?i)^(ä|.){2}"} {
		f.Add(way, "USER bob\r\nÄab xx\n")
	}
	f.Add("http-host", "GET / HTTP/1.1\r\nHost: Example.org:80\r\nA: b\r\n c\r\n\r\nbody")
	f.Add("http-host", "GET http://a/ HTTP/1.0\n\n")
	f.Add("sni", clientHello(f, "fuzz.example.org", 0x0303))
	f.Add("sni", inRecords(clientHello(f, "fuzz.example.org", 0x0302), 50))
	f.Fuzz(func(t *testing.T, way, data string) {
		b, err := ParseBy(way)
		if err != nil || b.Address || len(way) > 40 || len(data) > 700 {
			return
		}
		sameForEverySplit(t, b, data)
	})
}
