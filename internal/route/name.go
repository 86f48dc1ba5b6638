package route

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/textproto"
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

// findHost finds the host that a request of HTTP/1 is for, RFC 9112 section 3.2.
func findHost(_ *By, data []byte, _ bool) (string, int, Verdict) {
	// A method has letters, digits and a few signs, RFC 9110 section 9.1, and here ends
	// with a blank. What is another protocol has no line that http would wait for.
	if i := bytes.IndexFunc(data, notOfMethod); i >= 0 && data[i] != ' ' {
		return "", 0, None
	}
	b := &beginning{rest: data}
	host, err := readHost(textproto.NewReader(bufio.NewReader(b)))
	switch {
	case err != nil && b.beyond:
		return "", 0, More
	case err != nil:
		return "", 0, None
	}
	// Hostname is without the port, and an IPv6 address without its brackets.
	name := plainName((&url.URL{Host: host}).Hostname())
	if name == "" {
		return "", 0, None
	}
	return name, 0, Found
}

// readHost reads the head of a request as package net/http does, RFC 9112 sections 3 and 5,
// and returns the host. It does not ask how the body ends, which is the program's business.
// Tests hold this to net/http, which itself would cost each start of fdkit too much.
func readHost(r *textproto.Reader) (host string, err error) {
	line, err := r.ReadLine()
	if err != nil {
		return "", err
	}
	method, rest, _ := strings.Cut(line, " ")
	target, version, _ := strings.Cut(rest, " ")
	if method == "" || !isVersion(version) {
		return "", errNoRequest
	}
	if method == "CONNECT" && !strings.HasPrefix(target, "/") {
		target = "http://" + target // has only the authority
	}
	u, err := url.ParseRequestURI(target)
	if err != nil {
		return "", err
	}
	header, err := r.ReadMIMEHeader()
	switch hosts := header["Host"]; {
	case err != nil:
		return "", err
	case len(hosts) > 1:
		return "", errNoRequest
	case u.Host != "": // section 3.2.2: the field is ignored
		return u.Host, nil
	}
	return header.Get("Host"), nil
}

var errNoRequest = errors.New("no request of HTTP/1")

// isVersion tells whether a text is an HTTP-version, RFC 9112 section 2.3.
func isVersion(text string) bool {
	digits, ok := strings.CutPrefix(text, "HTTP/")
	return ok && len(digits) == len("1.1") && isDigit(digits[0]) && digits[1] == '.' && isDigit(digits[2])
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

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
