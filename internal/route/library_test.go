package route

import (
	"bufio"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// hello is a connection from which crypto/tls reads a ClientHello. What it writes, an
// alert, goes nowhere.
type hello struct {
	net.Conn
	beginning
	name string
}

func (h *hello) Read(p []byte) (int, error)  { return h.beginning.Read(p) }
func (h *hello) Write(p []byte) (int, error) { return len(p), nil }

var errSeen = errors.New("the ClientHello is seen")

// librarySNI returns what crypto/tls takes for the name of a ClientHello.
func librarySNI(data string) (name string, ok bool) {
	h := &hello{beginning: beginning{rest: []byte(data)}}
	err := tls.Server(h, &tls.Config{GetConfigForClient: func(info *tls.ClientHelloInfo) (*tls.Config, error) {
		info.Conn.(*hello).name = info.ServerName
		return nil, errSeen
	}}).Handshake()
	return plainName(h.name), errors.Is(err, errSeen)
}

// libraryHost returns what net/http takes for the host of a request.
func libraryHost(data string) (name string, ok bool) {
	request, err := http.ReadRequest(bufio.NewReader(strings.NewReader(data)))
	if err != nil {
		return "", false
	}
	return plainName((&url.URL{Host: request.Host}).Hostname()), true
}

// FuzzLibraries holds what is found to what the servers of crypto/tls and net/http find
// where they take the beginning. They refuse more: what is wrong in extensions that have
// nothing to do with the name, or how the body of a request is to end.
func FuzzLibraries(f *testing.F) {
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13} {
		data := clientHello(f, "www.Example.org", version)
		f.Add("sni", data)
		f.Add("sni", inRecords(data, 70))
		f.Add("sni", clientHello(f, "192.0.2.1", version))
	}
	for _, file := range []string{"openssl.hex", "openssl-tls1_2.hex", "openssl-noservername.hex"} {
		f.Add("sni", recorded(f, file))
	}
	for _, test := range hostTests {
		f.Add("http-host", test.data)
	}
	f.Fuzz(sameAsLibrary)
}

func sameAsLibrary(t *testing.T, way, data string) {
	library := map[string]func(string) (string, bool){"sni": librarySNI, "http-host": libraryHost}[way]
	b, err := ParseBy(way)
	if err != nil || library == nil || len(data) >= b.Limit {
		return
	}
	name, ok := library(data)
	want := answer{name, 0, Found}
	if name == "" || len(Quote(name)) > maxQuoted {
		want = answer{"", 0, None}
	}
	if got := find(b, data, true); ok && got != want {
		t.Errorf("Find(%q) by %s = %v; the library's server has %v", data, way, got, want)
	}
}

// TestEachByte changes each byte of a ClientHello and of a request.
func TestEachByte(t *testing.T) {
	for way, whole := range map[string]string{
		"sni":       inRecords(clientHello(t, "www.example.org", tls.VersionTLS12), 100),
		"http-host": "GET http:///a HTTP/1.1\r\nhost: www.example.org:80\r\nA: b\r\n c\r\n\r\n",
	} {
		for i, c := range []byte(whole) {
			for _, other := range []byte{0, c - 1, c + 1, c ^ 0x80, ' ', '\n'} {
				sameAsLibrary(t, way, whole[:i]+string([]byte{other})+whole[i+1:])
			}
		}
	}
}

// TestServerNames holds the extension to RFC 6066 section 3, as crypto/tls does.
func TestServerNames(t *testing.T) {
	const (
		name  = "\x00\x00\x01a"    // of type host_name
		other = "\x07\x00\x02xx"   // of another type
		empty = "\x00\x00\x00"     // host_name without one
		dot   = "\x00\x00\x02a."   // with the dot of the root
		long  = "\x00\x00\x09a"    // longer than the list
		none  = "\x00\x17\x00\x00" // extended_master_secret
	)
	list := func(names string) string { return string([]byte{0, byte(len(names))}) + names }
	extension := func(body string) string { return string([]byte{0, 0, 0, byte(len(body))}) + body }
	for _, test := range []struct {
		name, extensions, want string
	}{
		{"one name", extension(list(name)), "a"},
		{"a name of another type before", extension(list(other + name)), "a"},
		{"a name of another type behind", extension(list(name + other)), "a"},
		{"other extensions", none + extension(list(name)) + "\x00\x2b\x00\x03\x02\x03\x03", "a"},
		{"no extension with a name", none, ""},
		{"only a name of another type", extension(list(other)), ""},
		{"no name in the list", extension(list("")), ""},
		{"an empty extension", extension(""), ""},
		{"an empty name", extension(list(empty)), ""},
		{"a dot", extension(list(dot)), ""},
		{"two names", extension(list(name + name)), ""},
		{"a name that is cut", extension(list(long)), ""},
		{"more behind the list", extension(list(name) + "x"), ""},
		{"the extension twice", extension(list(name)) + extension(list(name)), ""},
		{"another extension twice", none + extension(list(name)) + none, ""},
		{"an extension that is cut", extension(list(name)) + "\x00\x17\x00", ""},
	} {
		hello := "\x03\x03" + strings.Repeat("r", 32) + "\x00" + "\x00\x02\x13\x01" + "\x01\x00" + list(test.extensions)
		message := "\x01\x00" + list(hello)
		data := "\x16\x03\x01" + list(message)
		want := answer{test.want, 0, Found}
		if test.want == "" {
			want.v = None
		}
		if got, _ := sameForEverySplit(t, by(t, "sni"), data); got != want {
			t.Errorf("Find by sni with %s = %v; want %v", test.name, got, want)
		}
		if name, ok := librarySNI(data); name != test.want {
			t.Errorf("crypto/tls has %q, %v with %s; want %q", name, ok, test.name, test.want)
		}
		behind := "\x16\x03\x01" + list("\x01\x00"+list(hello+"x"))
		if got := find(by(t, "sni"), behind, true); got.v != None {
			t.Errorf("Find by sni with %s and a byte behind the extensions = %v; want none", test.name, got)
		}
	}
}
