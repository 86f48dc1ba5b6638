//go:build linux

// Package listen binds addresses and accepts connections from them, to be passed
// on as descriptors.
//
// The package reserves real-time signal 63: with it, Stop ends an Accept that
// waits in another goroutine.
package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"fdkit/internal/hint"
	"fdkit/internal/unixpath"
)

// Kind is what an Address leads to.
type Kind int

// The kinds of addresses.
const (
	TCP       Kind = iota // a TCP port
	Unix                  // a Unix stream socket
	Inherited             // a descriptor that listens already
	Systemd               // the sockets that systemd passes, sd_listen_fds(3)
)

// Address is a parsed address to listen on.
type Address struct {
	Kind Kind
	// For TCP: an IP address or a host name, "" for all addresses of the
	// machine; the IP version, 4 or 6, 0 for any; and the port, 0 for one that
	// the kernel chooses.
	Host    string
	Version int
	Port    uint16
	// For Unix: a path, or an abstract name with @ for its leading NUL.
	Path string
	// For Inherited: the descriptor.
	FD int
	// For Systemd: the name of the sockets, "" for all that there are.
	Name string
}

// String returns the address in the form that ParseAddress takes.
func (a Address) String() string {
	switch a.Kind {
	case Unix:
		return "unix:" + a.Path
	case Inherited:
		return "fd:" + strconv.Itoa(a.FD)
	case Systemd:
		return "systemd:" + a.Name
	}
	text := net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port)))
	switch a.Version {
	case 4:
		return "tcp4:" + text
	case 6:
		return "tcp6:" + text
	}
	switch a.Host {
	case "unix", "fd", "systemd", "tcp", "tcp4", "tcp6": // a host of that name, not a kind
		return "tcp:" + text
	}
	return text
}

// forms is what an address may be, for hints.
const forms = "an address is :PORT, HOST:PORT, [IPV6]:PORT, unix:PATH, fd:N or systemd:NAME; tcp4: and tcp6: before HOST choose the version"

// ParseAddress parses an address: HOST:PORT, where HOST may be missing, an IP
// address (IPv6 in brackets) or a name, also with tcp:, tcp4: or tcp6: before it;
// unix:PATH or unix:@NAME; fd:N; systemd: or systemd:NAME. PORT is a number or a
// service name.
func ParseAddress(text string) (Address, error) {
	kind, rest, found := strings.Cut(text, ":")
	if !found {
		err := errors.New("the port is missing")
		switch {
		case text == "":
			return Address{}, hint.Wrap(errors.New("it is empty"), forms)
		case strings.ContainsRune(text, '/'), strings.HasPrefix(text, "@"):
			return Address{}, hint.Wrap(err, "a Unix socket is written unix:"+text)
		case strings.Trim(text, "0123456789") == "":
			if text == "0" {
				text = "PORT" // tcpserver's way to say: all addresses
			}
			return Address{}, hint.Wrap(err, "port "+text+" of all addresses is written :"+text)
		}
		return Address{}, hint.Wrap(err, forms)
	}
	switch kind {
	case "unix":
		return Address{Kind: Unix, Path: rest}, unixpath.Check(rest)
	case "fd":
		fd, err := strconv.ParseUint(rest, 10, 31)
		if err != nil {
			return Address{}, fmt.Errorf("%q is no descriptor number", rest)
		}
		return Address{Kind: Inherited, FD: int(fd)}, nil
	case "systemd":
		return Address{Kind: Systemd, Name: rest}, checkName(rest)
	case "tcp":
		return parseTCP(rest, 0)
	case "tcp4":
		return parseTCP(rest, 4)
	case "tcp6":
		return parseTCP(rest, 6)
	}
	return parseTCP(text, 0)
}

func parseTCP(text string, version int) (Address, error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		e, _ := errors.AsType[*net.AddrError](err)
		switch ip, bad := netip.ParseAddr(strings.Trim(text, "[]")); {
		case bad == nil && ip.Is6():
			return Address{}, hint.Wrap(errors.New("the port is missing"), "an IPv6 address with a port is written [ADDRESS]:PORT")
		case e != nil && e.Err == "missing port in address":
			return Address{}, hint.Wrap(errors.New("the port is missing"), forms)
		}
		return Address{}, hint.Wrap(errors.New("there is no such kind of address"), forms)
	}
	a := Address{Host: host, Version: version}
	if a.Port, err = parsePort(port); err != nil {
		return Address{}, err
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if version == 4 && !ip.Is4() || version == 6 && !ip.Is6() {
			return Address{}, fmt.Errorf("%s is no IPv%d address", host, version)
		}
	} else if strings.Trim(host, "0123456789.") == "" && host != "" || strings.Contains(host, ":") {
		return Address{}, fmt.Errorf("%q is no IP address", host)
	}
	return a, nil
}

func parsePort(text string) (uint16, error) {
	if text == "" {
		return 0, errors.New("the port is missing")
	}
	if strings.Trim(text, "0123456789") == "" {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return 0, fmt.Errorf("port %s is not in 0 to 65535", text)
		}
		return uint16(n), nil
	}
	// services(5). What LookupPort takes for a number, with a sign or with spaces,
	// has no letter in it.
	if strings.ContainsFunc(text, func(c rune) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }) {
		if n, err := net.LookupPort("tcp", text); err == nil {
			return uint16(n), nil
		}
	}
	return 0, fmt.Errorf("%q is neither a port number nor a known service", text)
}

// resolve returns the IP addresses of a host name or of an IP address.
func (a Address) resolve() ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(a.Host); err == nil {
		return []netip.Addr{ip}, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	network := "ip"
	if a.Version != 0 {
		network += strconv.Itoa(a.Version)
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, network, a.Host)
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return nil, errors.New(e.Err) // the caller names the address
	}
	return distinct(ips), err
}

// distinct removes repetitions, such as a name that hosts(5) has twice gives: the
// second could not be bound.
func distinct(ips []netip.Addr) (once []netip.Addr) {
	for _, ip := range ips {
		if ip = ip.Unmap(); !slices.Contains(once, ip) {
			once = append(once, ip)
		}
	}
	return once
}
