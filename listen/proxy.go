//go:build linux

package listen

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	proxyproto "github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"

	"fdkit/internal/fdinfo"
	"fdkit/internal/scm"
)

// DefaultProxyTimeout is what a balancer has for its header by default. The
// protocol's specification, section 2, wants at least 3 seconds, which a segment
// that is lost and sent again can take.
const DefaultProxyTimeout = 5 * time.Second

// Proxy says that all connections come from balancers, which announce the client in
// a PROXY header, version 1 or 2, of
// https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt.
type Proxy struct {
	Trust   Trust         // who may send headers; connections of others are closed
	Timeout time.Duration // that a header may take, from when the connection is accepted
}

// Why a connection is closed instead of being sent on; each comes wrapped in an error
// that says more.
var (
	ErrProxyUntrusted = errors.New("not trusted to send a PROXY header")
	ErrProxyTimeout   = errors.New("no PROXY header came")
	ErrProxyEnded     = errors.New("the connection ended before a PROXY header had come")
	ErrProxyMalformed = errors.New("malformed PROXY header")
)

// proxyHeader is what a balancer says of a connection. The zero value says nothing,
// as health checks do and balancers that do not know the client.
type proxyHeader struct {
	client, server fdinfo.Address // both ends of the client's connection to the balancer
	tls            proxyTLS
}

// proxyTLS is what the balancer says of TLS between the client and it. What it does
// not say, or what may not stand in an environment, is empty.
type proxyTLS struct {
	protocol, cipher string // such as TLSv1.3 and TLS_AES_256_GCM_SHA384
	serverName       string // that the client asked for
	clientName       string // the common name of the client's certificate, which the balancer has verified
}

// readProxyHeader reads the header with which the connection fd must begin, and not
// a byte more. The caller goes on owning fd, which is blocking before and after. No
// thread waits meanwhile, but a second descriptor is open.
//
// An error is ErrProxyTimeout, ErrProxyEnded, ErrProxyMalformed, ErrStopped once ctx
// is done, or a system call's, such as EMFILE. After any of them, but for EMFILE, a
// part of the header may be lost, so that the connection is of no use.
func readProxyHeader(ctx context.Context, fd int, limit time.Duration) (proxyHeader, error) {
	raw, err := receiveProxyHeader(ctx, fd, limit)
	if err != nil {
		return proxyHeader{}, err
	}
	return parseProxyHeader(raw)
}

// parseProxyHeader tells what a whole header says.
func parseProxyHeader(raw []byte) (h proxyHeader, err error) {
	parsed, err := proxyproto.Read(bufio.NewReaderSize(bytes.NewReader(raw), len(raw)))
	if err != nil {
		return h, malformed(err)
	}
	if parsed.Command.IsLocal() {
		return h, nil // "must use the real connection endpoints and discard the protocol block", section 2.2
	}
	if h.client, err = proxyAddress(parsed.SourceAddr); err != nil {
		return h, err
	}
	if h.server, err = proxyAddress(parsed.DestinationAddr); err != nil {
		return h, err
	}
	tlvs, err := parsed.TLVs()
	if err != nil {
		return h, malformed(err)
	}
	h.tls = proxyTLSOf(tlvs)
	return h, nil
}

// malformed puts an error of the library into our words. Behind a second colon it has
// what strconv and the like say.
func malformed(err error) error {
	what, _, _ := strings.Cut(strings.TrimPrefix(err.Error(), "proxyproto: "), ": ")
	return fmt.Errorf("%w: %s", ErrProxyMalformed, what)
}

// proxyAddress takes datagram addresses too: balancers may turn datagrams into a
// stream, and whose they are is what counts.
func proxyAddress(a net.Addr) (fdinfo.Address, error) {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		ap = a.AddrPort()
	case *net.UDPAddr:
		ap = a.AddrPort()
	case *net.UnixAddr:
		u := fdinfo.Address{Unix: true}
		if printable(a.Name) {
			u.Path = a.Name
		}
		return u, nil
	}
	if !ap.IsValid() {
		return fdinfo.Address{}, malformed(proxyproto.ErrInvalidAddress)
	}
	return fdinfo.Address{IP: netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())}, nil
}

func proxyTLSOf(tlvs []proxyproto.TLV) (t proxyTLS) {
	for _, tlv := range tlvs {
		if name := string(tlv.Value); tlv.Type == proxyproto.PP2_TYPE_AUTHORITY && hostName(name) {
			t.serverName = name
			break
		}
	}
	ssl, ok := tlvparse.FindSSL(tlvs)
	if !ok || !ssl.ClientSSL() {
		return t
	}
	clean := func(value string, ok bool) string {
		if !ok || !printable(value) {
			return ""
		}
		return value
	}
	t.protocol = clean(ssl.SSLVersion())
	t.cipher = clean(ssl.SSLCipher())
	// Without a certificate, "verified" is true too: SSL_get_verify_result(3).
	if ssl.ClientCertSess() && ssl.Verified() {
		t.clientName = clean(ssl.ClientCN())
	}
	return t
}

// maxProxyValue bounds what a header adds to a message; a host name has at most 253
// bytes.
const maxProxyValue = 255

// printable tells whether a value may stand in an environment and in a log.
func printable(value string) bool {
	return value != "" && len(value) <= maxProxyValue && utf8.ValidString(value) &&
		strings.IndexFunc(value, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}

// hostName tells whether a value has the letters of a host name. The client chooses
// it, and programs may take it for a file name: it has no slash and begins with no
// dot or dash.
func hostName(value string) bool {
	for i, c := range []byte(value) {
		letter := c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || c != '.' && c != '-') {
			return false
		}
	}
	return value != "" && len(value) <= maxProxyValue
}

// conn returns what is known of the client's connection; own is the balancer's.
func (h *proxyHeader) conn(own fdinfo.Conn) fdinfo.Conn {
	if h.client == (fdinfo.Address{}) {
		return own
	}
	return fdinfo.Conn{Local: h.server, Remote: h.client}
}

// appendVars appends the variables that come with the header, beside those of conn:
// the balancer's addresses and what is known of TLS (fdkit-environ(7)).
func (h *proxyHeader) appendVars(b []byte, own fdinfo.Conn) []byte {
	add := func(name, value string) {
		if value != "" {
			b = scm.AppendVar(b, name, value)
		}
	}
	addIP := func(a fdinfo.Address, ip, port string) {
		if a.IP.IsValid() {
			add(ip, a.IP.Addr().String())
			add(port, strconv.Itoa(int(a.IP.Port())))
		}
	}
	if h.client != (fdinfo.Address{}) {
		addIP(own.Remote, "TCPPROXYIP", "TCPPROXYPORT")
		addIP(own.Local, "TCPPROXYLOCALIP", "TCPPROXYLOCALPORT")
		add("UNIXPROXYPATH", own.Remote.Path)
		add("UNIXPROXYLOCALPATH", own.Local.Path)
	}
	add("SSL_PROTOCOL", h.tls.protocol)
	add("SSL_CIPHER", h.tls.cipher)
	add("SSL_TLS_SNI_SERVERNAME", h.tls.serverName)
	add("SSL_CLIENT_S_DN_CN", h.tls.clientName)
	return b
}
