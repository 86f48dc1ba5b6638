package route

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"io"
	"net"
	"os"
	"strings"
	"testing"
)

// recorder is a connection that keeps what is written, and has no answer.
type recorder struct {
	net.Conn
	strings.Builder
}

func (r *recorder) Read([]byte) (int, error)    { return 0, io.EOF }
func (r *recorder) Write(p []byte) (int, error) { return r.Builder.Write(p) }

// clientHello returns what crypto/tls sends for a name in one version of TLS.
func clientHello(t testing.TB, name string, version uint16) string {
	t.Helper()
	r := new(recorder)
	err := tls.Client(r, &tls.Config{ServerName: name, MinVersion: version, MaxVersion: version, InsecureSkipVerify: true}).Handshake()
	if r.Len() == 0 {
		t.Fatalf("a client of TLS %x has sent nothing: %v", version, err)
	}
	return r.String()
}

// inRecords returns the handshake in records of so many bytes each.
func inRecords(data string, size int) (split string) {
	for rest := data[5:]; rest != ""; {
		n := min(size, len(rest))
		split += data[:3] + string([]byte{byte(n >> 8), byte(n)}) + rest[:n]
		rest = rest[n:]
	}
	return split
}

func recorded(t testing.TB, file string) string {
	t.Helper()
	text, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	data, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return string(data)
}

func TestSNI(t *testing.T) {
	type sni struct{ name, data, want string }
	var tests []sni
	for version, name := range map[uint16]string{tls.VersionTLS10: "TLS 1.0", tls.VersionTLS11: "TLS 1.1", tls.VersionTLS12: "TLS 1.2", tls.VersionTLS13: "TLS 1.3"} {
		hello := clientHello(t, "www.Example.org", version)
		tests = append(tests,
			sni{name, hello, "www.example.org"},
			sni{name + " and more", hello + "\x14\x03\x03\x00\x01\x01", "www.example.org"},
			sni{name + " in records of 100 bytes", inRecords(hello, 100), "www.example.org"},
			sni{name + " in records of 3 bytes", inRecords(hello, 3), "www.example.org"},
			sni{name + " with an address", clientHello(t, "192.0.2.1", version), ""},
		)
	}
	// openssl s_client -connect 127.0.0.1:PORT -servername mail.example.net of OpenSSL
	// 3.0.19, with -tls1_2 and without -servername (-noservername).
	tests = append(tests,
		sni{"openssl", recorded(t, "openssl.hex"), "mail.example.net"},
		sni{"openssl -tls1_2", recorded(t, "openssl-tls1_2.hex"), "mail.example.net"},
		sni{"openssl -noservername", recorded(t, "openssl-noservername.hex"), ""},
	)
	b := by(t, "sni")
	for _, test := range tests {
		got, took := sameForEverySplit(t, b, test.data)
		want := answer{test.want, 0, Found}
		if test.want == "" {
			want.v = None
		}
		if got != want || took < 100 {
			t.Errorf("Find by sni of %s = %v after %d bytes; want %v", test.name, got, took, want)
		}
	}
	if hello := clientHello(t, "a.example", tls.VersionTLS13); len(hello) < 1300 {
		t.Errorf("a ClientHello of TLS 1.3 has %d bytes; want a large one, post-quantum", len(hello))
	}
}

// With Encrypted Client Hello, the name that is seen is the one of the outer ClientHello.
func TestEncryptedClientHello(t *testing.T) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	const publicName = "public.example"
	// ECHConfigContents, RFC 9849 section 4: config_id, kem_id X25519, public_key,
	// cipher_suites HKDF-SHA256 and AES-128-GCM, maximum_name_length, public_name.
	contents := []byte{1, 0, 0x20, 0, 32}
	contents = append(contents, key.PublicKey().Bytes()...)
	contents = append(contents, 0, 4, 0, 1, 0, 1, 0, byte(len(publicName)))
	contents = append(contents, publicName...)
	contents = append(contents, 0, 0) // no extensions
	config := append([]byte{0xfe, 0x0d, 0, byte(len(contents))}, contents...)
	r := new(recorder)
	err = tls.Client(r, &tls.Config{
		ServerName: "secret.example", MinVersion: tls.VersionTLS13,
		EncryptedClientHelloConfigList: append([]byte{0, byte(len(config))}, config...),
	}).Handshake()
	if r.Len() == 0 {
		t.Fatalf("the client has sent nothing: %v", err)
	}
	if got, _ := sameForEverySplit(t, by(t, "sni"), r.String()); got != (answer{publicName, 0, Found}) {
		t.Errorf("Find by sni with Encrypted Client Hello = %v; want %s", got, publicName)
	}
}

func TestNoSNI(t *testing.T) {
	hello := clientHello(t, "www.example.org", tls.VersionTLS12)
	i := strings.Index(hello, "www.example.org")
	for _, test := range []struct {
		name, data string
		took       int
	}{
		{"nothing", "", -1},
		{"HTTP", "GET / HTTP/1.1\r\n", 1},
		{"SSH", "SSH-2.0-OpenSSH_10.0\r\n", 1},
		{"SSLv2", "\x80\x2e\x01\x00\x02", 1},
		{"an alert", "\x15\x03\x01\x00\x02\x02\x28", 1},
		{"another version", "\x16\x13\x01\x00\x02ab", 5},
		{"a large record", "\x16\x03\x01\xff\xff", 5},
		{"a ServerHello", "\x16\x03\x03\x00\x06\x02\x00\x00\x02\x03\x03", 11},
		{"a broken ClientHello", "\x16\x03\x03\x00\x06\x01\x00\x00\x02\x03\x03", 11},
		{"a handshake of 16 MB", "\x16\x03\x03\x00\x04\x01\xff\xff\xff", 9},
		{"half a ClientHello", hello[:60], -1},
		{"a dot at the end", hello[:i+14] + "." + hello[i+15:], len(hello)}, // RFC 6066 section 3 has none
	} {
		if got, took := sameForEverySplit(t, by(t, "sni"), test.data); got != (answer{"", 0, None}) || took != test.took {
			t.Errorf("Find by sni of %s = %v after %d bytes; want none after %d", test.name, got, took, test.took)
		}
	}
	b := by(t, "sni")
	full := inRecords("\x16\x03\x03\x00\x00\x01\x00\xff\xff"+strings.Repeat("x", 0xffff), 16384)
	if got := find(b, full, false); got.v != None {
		t.Errorf("Find by sni of a handshake of 64 KiB = %v; want none", got)
	}
}

const endOfHead = "\r\n\r\n"

var hostTests = []struct {
	data, want string
	took       int // 0: all
}{
	{"GET / HTTP/1.1\r\nHost: www.Example.org" + endOfHead, "www.example.org", 0},
	{"GET / HTTP/1.1\r\nAccept: */*\r\nhost:www.example.org:8080" + endOfHead, "www.example.org", 0},
	{"GET / HTTP/1.1\nHost: www.example.org\n\n", "www.example.org", 0},
	{"GET / HTTP/1.1\r\nHost: www.example.org." + endOfHead, "www.example.org", 0},
	{"GET / HTTP/1.1\r\nHost: www.example.org.:80" + endOfHead, "www.example.org", 0},
	{"GET / HTTP/1.0\r\nHost: a" + endOfHead, "a", 0},
	{"GET / HTTP/1.1\r\nHost: [2001:DB8::1]:8080" + endOfHead, "2001:db8::1", 0},
	{"GET / HTTP/1.1\r\nHost: [2001:db8::1]" + endOfHead, "2001:db8::1", 0},
	{"GET / HTTP/1.1\r\nHost: 192.0.2.1:80" + endOfHead, "192.0.2.1", 0},
	{"GET / HTTP/1.1\r\nHost: b\xc3\xbccher.example" + endOfHead, "bücher.example", 0},
	{"GET / HTTP/1.1\r\nHost: a/../b" + endOfHead, "a/../b", 0}, // which Quote makes harmless
	{"GET http://proxied.example:81/x HTTP/1.1\r\nHost: other" + endOfHead, "proxied.example", 0},
	{"CONNECT tunnel.example:443 HTTP/1.1\r\nHost: other" + endOfHead, "tunnel.example", 0},
	{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000" + endOfHead + "body", "a", 53},
	{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked" + endOfHead, "a", 0},
	{"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5" + endOfHead, "a", 0},
	{"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c" + endOfHead, "a", 0},
	{"GET / HTTP/1.1\r\nCookie: " + strings.Repeat("x", 9000) + "\r\nHost: a" + endOfHead, "a", 0},
	{"M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900" + endOfHead, "239.255.255.250", 0},

	{"", "", -1},
	{"GET / HTTP/1.1\r\nHost: a\r\n", "", -1},
	{"GET / HTTP/1.1\r\nHost: a", "", -1},
	{"GET / HTTP/1.0" + endOfHead, "", 0},
	{"GET / HTTP/1.1\r\nHost:" + endOfHead, "", 0},
	{"GET / HTTP/1.1\r\nHost: ." + endOfHead, "", 0},
	{"GET / HTTP/1.1\r\nHost: :80" + endOfHead, "", 0},
	{"GET / HTTP/1.1\r\nHost: a\r\nHost: b" + endOfHead, "", 0},
	{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "", 18},
	{"GET /\r\n", "", 7},
	{"\r\nGET / HTTP/1.1\r\nHost: a" + endOfHead, "", 1},
	{"\x16\x03\x01\x02\x00", "", 1},
	{"SSH-2.0-OpenSSH_10.0\r\n", "", 21},
	{"(GET / HTTP/1.1\r\n", "", 1},
	{"GET / HTTP/1.1\r\nA: " + strings.Repeat("x", 16384), "", 16384},
}

func TestHTTPHost(t *testing.T) {
	for _, test := range hostTests {
		want := answer{test.want, 0, Found}
		if test.want == "" {
			want.v = None
		}
		if test.took == 0 {
			test.took = len(test.data)
		}
		if got, took := sameForEverySplit(t, by(t, "http-host"), test.data); got != want || took != test.took {
			t.Errorf("Find(%.80q) by http-host = %v after %d bytes; want %v after %d", test.data, got, took, want, test.took)
		}
	}
}

func BenchmarkSNI(b *testing.B) {
	hello := []byte(clientHello(b, "www.example.org", tls.VersionTLS13))
	way := by(b, "sni")
	b.ReportAllocs()
	for b.Loop() {
		if key, _, _ := way.Find(hello, false); key != "www.example.org" {
			b.Fatalf("Find = %q", key)
		}
	}
}

func BenchmarkHTTPHost(b *testing.B) {
	request := []byte("GET / HTTP/1.1\r\nHost: www.example.org\r\nAccept: */*\r\nUser-Agent: curl/8.14\r\n\r\n")
	way := by(b, "http-host")
	b.ReportAllocs()
	for b.Loop() {
		if key, _, _ := way.Find(request, false); key != "www.example.org" {
			b.Fatalf("Find = %q", key)
		}
	}
}
