//go:build linux

package cmd

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"fdkit/fdsend"
	"fdkit/internal/fdinfo"
	"fdkit/internal/scm"
	"fdkit/listen"
)

// payloadText is the value of an option that takes the bytes of a message.
type payloadText struct {
	hex   bool
	bytes []byte
}

func (p *payloadText) Set(text string) (err error) {
	if p.hex {
		if p.bytes, err = hex.DecodeString(text); err != nil {
			return fmt.Errorf("%q is no row of hexadecimal digits, two for each byte", text)
		}
	} else if p.bytes, err = unescape(text); err != nil {
		return err
	}
	if len(p.bytes) < 1 || len(p.bytes) > fdsend.MaxPayload {
		return fmt.Errorf("a message has 1 to %d bytes, this one %d", fdsend.MaxPayload, len(p.bytes))
	}
	return nil
}

func (p *payloadText) String() string { return "" }

// payload makes the bytes that go with descriptors.
type payload struct {
	fixed []byte   // what the user says; nil: variables, which follow
	vars  []byte   // what the user adds
	names []string // one for each descriptor, or none
}

// payloadOf checks the options that say what goes with n descriptors.
func payloadOf(c *cli.Context, n int) (p payload, err error) {
	text, digits := c.Generic("payload").(*payloadText).bytes, c.Generic("payload-hex").(*payloadText).bytes
	if text != nil && digits != nil {
		return p, usagef("options --payload and --payload-hex: only one of them at a time")
	}
	p.fixed = append(text, digits...)
	p.names = c.StringSlice("name")
	for _, option := range []string{"env", "name"} {
		if p.fixed != nil && c.IsSet(option) {
			return p, usageHint("the variables of fdkit-protocol(7) are a payload themselves", "option --%s: the payload is given", option)
		}
	}
	check := checkListenName
	if d := protoOf(c); d != nil && d.CheckName != nil {
		check = d.CheckName
	}
	if err := checkNames(p.names, n, "descriptor", "descriptors", check); err != nil {
		return p, err
	}
	for _, v := range c.StringSlice("env") {
		name, value, ok := strings.Cut(v, "=")
		switch {
		case !ok || !scm.ValidName(name) || strings.Contains(value, "\x00"):
			return p, usagef("option --env: %q is no NAME=VALUE", v)
		case name == "FDKIT":
			return p, usagef("option --env: FDKIT is the version of the format")
		case name == "FDNAMES":
			return p, usageHint("--name NAME, once for each descriptor", "option --env: FDNAMES has the names of the descriptors")
		}
		p.vars = fdsend.AppendVar(p.vars, name, value)
	}
	switch d := protoOf(c); {
	case d == nil:
	case p.fixed != nil && !d.Payload:
		return p, usagef("options --payload and --payload-hex: dialect %s has its own", d.Name)
	case c.IsSet("env") && d.Name != "fdkit":
		return p, usagef("option --env: dialect %s has no variables", d.Name)
	case c.IsSet("name") && d.Name != "fdkit" && !d.Names:
		return p, usagef("option --name: dialect %s has no names", d.Name)
	default:
		return p, nil
	}
	return p.to(c.String("to")), nil
}

// to returns the payload for a queue: where nothing is said, one for a foreign program.
func (p payload) to(queue string) payload {
	if p.fixed == nil && p.vars == nil && p.names == nil && isForeign(queue) {
		// What follows the byte would remain in a stream, where a program that knows
		// nothing of variables takes it for data.
		p.fixed = []byte{0}
	}
	return p
}

// isForeign tells whether the queue is a socket of a program that may know nothing
// of fdkit.
func isForeign(to string) bool {
	kind, _, prefixed := strings.Cut(to, ":")
	return prefixed && slices.Contains([]string{"unix", "unix-listen", "unix-seqpacket", "unix-seqpacket-listen", "unix-dgram"}, kind)
}

// of returns the payload for the descriptors from the first-th on.
func (p payload) of(first int, fds []int) ([]byte, error) {
	if p.fixed != nil {
		return p.fixed, nil
	}
	// Of two variables with one name the first counts: the user's.
	b := append([]byte(fdsend.Begin), p.vars...)
	if conn, ok := describe(fds[0]); ok {
		b = conn.AppendVars(b)
	}
	names := p.names
	if names != nil {
		names = names[first : first+len(fds)]
	} else if len(fds) > 1 {
		names = slices.Repeat([]string{"unknown"}, len(fds)) // as sd_listen_fds_with_names(3) has it
	}
	if names != nil {
		b = fdsend.AppendVar(b, "FDNAMES", strings.Join(names, ":"))
	}
	if len(b) > fdsend.MaxPayload {
		return nil, usagef("the variables of a message have %d bytes and at most %d are allowed", len(b), fdsend.MaxPayload)
	}
	return b, nil
}

// describe returns what is known of the stream or packet socket fd: of a connection
// what fdkit listen would say, of a listening socket what fdkit bind would.
func describe(fd int) (conn fdinfo.Conn, ok bool) {
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || typ != unix.SOCK_STREAM && typ != unix.SOCK_SEQPACKET {
		return conn, false
	}
	conn, ok = fdinfo.Connection(fd)
	if listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil && listening != 0 {
		conn = fdinfo.Conn{Local: conn.Local} // the credentials are those of who listens
	}
	return conn, ok
}

// checkNames checks that there is a name for each of n things, or for none, and that
// it is one.
func checkNames(names []string, n int, one, many string, check func(name string) error) error {
	if len(names) != 0 && len(names) != n {
		return usageHint("each "+one+" has a name, or none has", "option --name: there are %d for %s", len(names), count(n, one, many))
	}
	for _, name := range names {
		if name == "" {
			return usagef("option --name: the name is empty")
		}
		if err := check(name); err != nil {
			return usagef("option --name: %q is no name: %w", name, err)
		}
	}
	return nil
}

// checkListenName checks that LISTEN_FDNAMES can have the name.
func checkListenName(name string) error {
	if _, err := listen.ParseAddress("systemd:" + name); err != nil {
		return errors.New("at most 255 characters of ASCII, without a colon")
	}
	return nil
}
