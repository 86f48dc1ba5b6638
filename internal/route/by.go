// Package route tells where a connection goes: by its addresses, or by a key that its
// first bytes hold, and a table of keys. It does no input or output.
package route

import (
	"bufio"
	"errors"
	"net/netip"
)

// By is a way to tell where a connection goes. ParseBy makes one.
type By struct {
	Name    string // as --by has it, without its argument: source, line, ...
	Address bool   // the key is an address, OfAddress, and nothing is looked at
	// Limit is how many of the first bytes are looked at. It may be set to fewer.
	Limit int

	consumable bool
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

// ParseBy parses the value of --by: source, local-address, line, bytes=N, regex=RE, sni,
// http-host or length-prefix[=N]. There may be a blank for the equals sign.
func ParseBy(text string) (*By, error) {
	if text == "line" {
		return &By{Name: "line", Limit: maxQuoted + len("\r\n"), consumable: true, find: findLine}, nil
	}
	return nil, errors.New("not yet")
}

// Find looks for the key in the first bytes of a stream, and gives the same answer
// however these are cut into packets. ended says that no further ones come.
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

// OfAddress returns the key for a connection from remote to local, if these are IP
// addresses.
func (b *By) OfAddress(remote, local netip.AddrPort) (key string, ok bool) {
	return "", false
}

func findLine(b *By, data []byte, final bool) (string, int, Verdict) {
	// A line that has no end within the limit is none, also if the stream ends there:
	// that may not be known yet.
	n, line, _ := bufio.ScanLines(data, final && len(data) < b.Limit)
	if n == 0 {
		return "", 0, More
	}
	return string(line), n, Found
}
