//go:build linux

package listen_test

import (
	"strings"
	"testing"

	"fdkit/internal/hint"
	"fdkit/listen"
)

func TestParseAddress(t *testing.T) {
	for _, test := range []struct {
		text   string
		want   listen.Address
		string string // "": text
	}{
		{":8080", listen.Address{Port: 8080}, ""},
		{":0", listen.Address{}, ""},
		{":65535", listen.Address{Port: 65535}, ""},
		{":http", listen.Address{Port: 80}, ":80"},
		{"127.0.0.1:80", listen.Address{Host: "127.0.0.1", Port: 80}, ""},
		{"[::1]:80", listen.Address{Host: "::1", Port: 80}, ""},
		{"[::]:80", listen.Address{Host: "::", Port: 80}, ""},
		{"[fe80::1%eth0]:80", listen.Address{Host: "fe80::1%eth0", Port: 80}, ""},
		{"[::ffff:192.0.2.1]:80", listen.Address{Host: "::ffff:192.0.2.1", Port: 80}, ""},
		{"localhost:80", listen.Address{Host: "localhost", Port: 80}, ""},
		{"www.example.org:https", listen.Address{Host: "www.example.org", Port: 443}, "www.example.org:443"},
		{"3com.example:80", listen.Address{Host: "3com.example", Port: 80}, ""},
		{"tcp::80", listen.Address{Port: 80}, ":80"},
		{"tcp:localhost:80", listen.Address{Host: "localhost", Port: 80}, "localhost:80"},
		{"tcp:[::1]:80", listen.Address{Host: "::1", Port: 80}, "[::1]:80"},
		{"tcp:unix:80", listen.Address{Host: "unix", Port: 80}, ""},
		{"tcp:fd:80", listen.Address{Host: "fd", Port: 80}, ""},
		{"tcp:tcp4:80", listen.Address{Host: "tcp4", Port: 80}, ""},
		{"tcp4::80", listen.Address{Version: 4, Port: 80}, ""},
		{"tcp4:127.0.0.1:80", listen.Address{Version: 4, Host: "127.0.0.1", Port: 80}, ""},
		{"tcp4:localhost:80", listen.Address{Version: 4, Host: "localhost", Port: 80}, ""},
		{"tcp6::80", listen.Address{Version: 6, Port: 80}, ""},
		{"tcp6:[::1]:80", listen.Address{Version: 6, Host: "::1", Port: 80}, ""},
		{"unix:/run/a.sock", listen.Address{Kind: listen.Unix, Path: "/run/a.sock"}, ""},
		{"unix:a.sock", listen.Address{Kind: listen.Unix, Path: "a.sock"}, ""},
		{"unix:a:b", listen.Address{Kind: listen.Unix, Path: "a:b"}, ""},
		{"unix:@name", listen.Address{Kind: listen.Unix, Path: "@name"}, ""},
		{"fd:0", listen.Address{Kind: listen.Inherited}, ""},
		{"fd:3", listen.Address{Kind: listen.Inherited, FD: 3}, ""},
		{"systemd:", listen.Address{Kind: listen.Systemd}, ""},
		{"systemd:web", listen.Address{Kind: listen.Systemd, Name: "web"}, ""},
		{"systemd:my.socket", listen.Address{Kind: listen.Systemd, Name: "my.socket"}, ""},
		{"tcp:systemd:80", listen.Address{Host: "systemd", Port: 80}, ""},
		{"fd:007", listen.Address{Kind: listen.Inherited, FD: 7}, "fd:7"},
	} {
		t.Run(test.text, func(t *testing.T) {
			got, err := listen.ParseAddress(test.text)
			if err != nil || got != test.want {
				t.Fatalf("ParseAddress(%q) = %+v, %v; want %+v, nil", test.text, got, err, test.want)
			}
			want := test.string
			if want == "" {
				want = test.text
			}
			if got.String() != want {
				t.Errorf("ParseAddress(%q).String() = %q, want %q", test.text, got, want)
			}
		})
	}
}

func TestParseAddressErrors(t *testing.T) {
	for _, test := range []struct {
		text, want, hint string
	}{
		{"", "it is empty", "an address is"},
		{"8080", "the port is missing", "port 8080 of all addresses is written :8080"},
		{"localhost", "the port is missing", "an address is"},
		{"/run/a.sock", "the port is missing", "unix:/run/a.sock"},
		{"./a", "the port is missing", "unix:./a"},
		{"@name", "the port is missing", "unix:@name"},
		{":", "the port is missing", ""},
		{"localhost:", "the port is missing", ""},
		{"[::1]", "the port is missing", "[ADDRESS]:PORT"},
		{"::1", "the port is missing", "[ADDRESS]:PORT"},
		{"2001:db8::1:80", "the port is missing", "[ADDRESS]:PORT"},
		{"[::1:80", "the port is missing", "[ADDRESS]:PORT"},
		{"a:b:c", "there is no such kind of address", "an address is"},
		{"udp:localhost:53", "there is no such kind of address", "an address is"},
		{"tcp:", "the port is missing", "an address is"},
		{"tcp:80", "the port is missing", "an address is"},
		{"tcp4:80", "the port is missing", "an address is"},
		{":65536", "port 65536 is not in 0 to 65535", ""},
		{":99999999999999999999", "is not in 0 to 65535", ""},
		{":-1", `"-1" is neither`, ""},
		{":+1", `"+1" is neither`, ""},
		{":0x50", `"0x50" is neither`, ""},
		{":8 0", `"8 0" is neither`, ""},
		{": 80", `" 80" is neither`, ""},
		{":80 ", `"80 " is neither`, ""},
		{":1.5", `"1.5" is neither`, ""},
		{":no-such-service", `"no-such-service" is neither`, ""},
		{"127.0.0.256:80", `"127.0.0.256" is no IP address`, ""},
		{"127.0.1:80", `"127.0.1" is no IP address`, ""},
		{"1:80", `"1" is no IP address`, ""},
		{"[::g]:80", `"::g" is no IP address`, ""},
		{"[1::2::3]:80", `"1::2::3" is no IP address`, ""},
		{"tcp4:[::1]:80", "::1 is no IPv4 address", ""},
		{"tcp6:127.0.0.1:80", "127.0.0.1 is no IPv6 address", ""},
		{"unix:", "the path is empty", ""},
		{"unix:@", "the path is empty", ""},
		{"unix:" + strings.Repeat("x", 108), "the path has 108 bytes", "relative path"},
		{"fd:", `"" is no descriptor number`, ""},
		{"fd:x", `"x" is no descriptor number`, ""},
		{"fd:-1", `"-1" is no descriptor number`, ""},
		{"fd:3x", `"3x" is no descriptor number`, ""},
		{"systemd:a:b", `"a:b" is no name of a socket`, ""},
		{"systemd:a\nb", `is no name of a socket`, ""},
		{"systemd:" + strings.Repeat("x", 256), `is no name of a socket`, ""},
		{"fd:4294967296", `"4294967296" is no descriptor number`, ""},
	} {
		t.Run(test.text, func(t *testing.T) {
			a, err := listen.ParseAddress(test.text)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("ParseAddress(%q) = %v, %v; want an error that says %q", test.text, a, err, test.want)
			}
			if got := hint.Of(err); !strings.Contains(got, test.hint) || test.hint == "" && got != "" {
				t.Errorf("ParseAddress(%q) has the hint %q, want one that says %q", test.text, got, test.hint)
			}
		})
	}
}

// FuzzParseAddress parses what anybody may write: what is an address can be
// written, and is then the same.
func FuzzParseAddress(f *testing.F) {
	for _, seed := range []string{
		":8080", "127.0.0.1:80", "[::1]:80", "[fe80::1%3]:80", "localhost:http", "tcp::1", "tcp4:a:1", "tcp6:[::]:1",
		"tcp:unix:80", "unix:/run/a", "unix:@a", "fd:3", "systemd:", "systemd:web", "", ":", "[]:1", "a%b:1", "fd:-1", "tcp:tcp:1",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := listen.ParseAddress(text)
		if err != nil {
			return
		}
		if again, err := listen.ParseAddress(a.String()); err != nil || again != a {
			t.Errorf("ParseAddress(%q) = %+v, written %q it parses as %+v, %v; want the same", text, a, a.String(), again, err)
		}
	})
}
