package route

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// beginning is read as a stream, and knows whether more was asked for than is there.
type beginning struct {
	rest   []byte
	beyond bool
}

func (b *beginning) Read(p []byte) (int, error) {
	n := copy(p, b.rest)
	if n == 0 {
		b.beyond = true
		return 0, io.EOF
	}
	b.rest = b.rest[n:]
	return n, nil
}

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

var sniConfig = &tls.Config{GetConfigForClient: func(info *tls.ClientHelloInfo) (*tls.Config, error) {
	info.Conn.(*hello).name = info.ServerName
	return nil, errSeen
}}

// findSNI finds the server name of a ClientHello, RFC 6066 section 3. With Encrypted
// Client Hello, RFC 9849, that is the public name of the outer one.
func findSNI(_ *By, data []byte, _ bool) (string, int, Verdict) {
	const handshake = 22 // ContentType, RFC 8446 section 5.1
	switch {
	case len(data) == 0:
		return "", 0, More
	case data[0] != handshake: // known before the header is all there
		return "", 0, None
	}
	h := &hello{beginning: beginning{rest: data}}
	err := tls.Server(h, sniConfig).Handshake()
	switch {
	case !errors.Is(err, errSeen) && h.beyond:
		return "", endOfRecord(data), More
	case h.name == "":
		return "", 0, None
	}
	return plainName(h.name), 0, Found
}

// endOfRecord returns where the TLS record ends that is not all there.
func endOfRecord(data []byte) (end int) {
	const header = 5 // type, version and length: RFC 8446 section 5.1
	for end+header <= len(data) {
		end += header + int(data[end+3])<<8 + int(data[end+4])
		if end > len(data) {
			return end
		}
	}
	return end + header
}

// findHost finds the host that a request of HTTP/1 is for, RFC 9112 section 3.2.
func findHost(_ *By, data []byte, _ bool) (string, int, Verdict) {
	// A method has letters, digits and a few signs, RFC 9110 section 9.1, and here ends
	// with a blank. What is another protocol has no line that http would wait for.
	if i := bytes.IndexFunc(data, notOfMethod); i >= 0 && data[i] != ' ' {
		return "", 0, None
	}
	b := &beginning{rest: data}
	request, err := http.ReadRequest(bufio.NewReader(b))
	switch {
	case err != nil && b.beyond:
		return "", 0, More
	case err != nil:
		return "", 0, None
	}
	// Hostname is without the port, and an IPv6 address without its brackets.
	name := plainName((&url.URL{Host: request.Host}).Hostname())
	if name == "" {
		return "", 0, None
	}
	return name, 0, Found
}

func notOfMethod(c rune) bool {
	letter := 'a' <= c|0x20 && c|0x20 <= 'z'
	return !letter && !('0' <= c && c <= '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~", c)
}

// plainName returns a host name as it is compared: in lower case, RFC 4343, and without
// the dot of the root. Names of other scripts stay as they are.
func plainName(name string) string {
	plain := []byte(strings.TrimSuffix(name, "."))
	for i, c := range plain {
		if 'A' <= c && c <= 'Z' {
			plain[i] = c + 'a' - 'A'
		}
	}
	return string(plain)
}
