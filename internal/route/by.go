// Package route tells where a connection goes: by an address, or by a key that its first
// bytes hold, and a table of patterns.
package route

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"fdkit/internal/hint"
)

// By is a way to tell where a connection goes. ParseBy makes one.
type By struct {
	Name    string // as --by has it, without its argument: source, line, ...
	Address bool   // the key is an address, OfAddress, and nothing is looked at
	// Limit is how many of the first bytes are looked at, at most. It may be changed.
	Limit int

	bytes      int // of bytes=N the key, of length-prefix=N the length
	expression *expression
	consumable bool
	patterns   func(b *By) patterns
	// find is Find, for at most Limit bytes. final: further ones do not come, or are
	// not looked at.
	find func(b *By, data []byte, final bool) (key string, n int, v Verdict)
}

// Verdict is what Find says.
type Verdict int

const (
	More  Verdict = iota // bytes are needed to tell
	Found                // there is a key
	None                 // there is none, and more bytes do not change that
)

const byForms = "it is source, local-address, line, bytes=N, regex=RE, sni, http-host or length-prefix[=N]"

// ParseBy parses the value of --by: source, local-address, line, bytes=N, regex=RE, sni,
// http-host or length-prefix[=N]. There may be a blank for the equals sign.
func ParseBy(text string) (*By, error) {
	name, argument, hasArgument := text, "", false
	if i := strings.IndexAny(text, "= "); i >= 0 {
		name, argument, hasArgument = text[:i], text[i+1:], true
	}
	b := &By{Name: name, patterns: newTexts}
	var err error
	switch name {
	case "source", "local-address":
		b.Address, b.patterns = true, newNetworks
	case "line":
		b.Limit, b.consumable, b.find = maxQuoted+len("\r\n"), true, findLine
	case "sni":
		b.Limit, b.find, b.patterns = 64<<10, findSNI, newNames
	case "http-host":
		b.Limit, b.find, b.patterns = 16<<10, findHost, newNames
	case "bytes":
		b.bytes, err = strconv.Atoi(argument)
		if err != nil || strings.Trim(argument, "0123456789") != "" || b.bytes < 1 || b.bytes > maxQuoted {
			err = fmt.Errorf("bytes: %q is no number from 1 to %d", argument, maxQuoted)
			if !hasArgument {
				err = hint.Wrap(errors.New("bytes: there is no number"), "it is written bytes=N, for instance bytes=4")
			}
			return nil, err
		}
		b.Limit, b.consumable, b.find = b.bytes, true, findBytes
		return b, nil
	case "length-prefix":
		sizes := map[string]int{"": 4, "1": 1, "2": 2, "4": 4}
		if b.bytes = sizes[argument]; b.bytes == 0 || hasArgument && argument == "" {
			return nil, fmt.Errorf("length-prefix: %q is not 1, 2 or 4 bytes", argument)
		}
		b.Limit, b.consumable, b.find = b.bytes+maxQuoted, true, findLengthPrefix
		return b, nil
	case "regex":
		if argument == "" {
			return nil, hint.Wrap(errors.New("regex: there is no expression"), "it is written regex=RE, for instance 'regex=^USER ([a-z]+)'")
		}
		if b.expression, err = parseExpression(argument); err != nil {
			return nil, fmt.Errorf("regex: %w", err)
		}
		b.Limit, b.consumable, b.find = 4<<10, true, findExpression
		return b, nil
	default:
		return nil, hint.Wrap(fmt.Errorf("%q is no way to route", text), byForms)
	}
	if hasArgument {
		return nil, fmt.Errorf("%q: %s stands alone", text, name)
	}
	return b, nil
}

// Find looks for the key in the first bytes of a stream, and gives the same answer
// however these are cut into packets. ended says that no further ones come. A key whose
// quoted form has more than 200 bytes is none.
//
// With Found, n is how many bytes the key takes, from the first one; 0 if the way is not
// Consumable. With More, n is how many bytes, in all, there must be before Find can say
// anything else: more than len(data), and at most Limit.
func (b *By) Find(data []byte, ended bool) (key string, n int, v Verdict) {
	if b.Address {
		return "", 0, None
	}
	data = data[:min(len(data), b.Limit)]
	final := ended || len(data) == b.Limit
	key, n, v = b.find(b, data, final)
	switch {
	case v == More && !final:
		return "", min(max(n, len(data)+1), b.Limit), More
	case v == Found && len(Quote(key)) <= maxQuoted:
		return key, n, Found
	}
	return "", 0, None
}

// Consumable tells whether the key is something that a program can do without: bytes
// that stand before what is for the program.
func (b *By) Consumable() bool { return b.consumable }

// OfAddress returns the key for a connection from remote to local: of source the remote
// IP address, of local-address the local one with its port, as 192.0.2.1:80. There is none
// if that is not valid, as for a Unix socket. An IPv4-mapped address is the IPv4 address,
// and a zone does not count.
func (b *By) OfAddress(remote, local netip.AddrPort) (key string, ok bool) {
	switch {
	case b.Name == "source" && remote.IsValid():
		return plain(remote.Addr()).String(), true
	case b.Name == "local-address" && local.IsValid():
		return netip.AddrPortFrom(plain(local.Addr()), local.Port()).String(), true
	}
	return "", false
}

func plain(ip netip.Addr) netip.Addr { return ip.Unmap().WithZone("") }
