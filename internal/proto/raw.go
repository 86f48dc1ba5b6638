//go:build linux

package proto

import (
	"bytes"

	"fdkit/internal/fdinfo"
	"fdkit/internal/scm"
)

// raw is no dialect: what comes is taken as it is. Sent is any payload, and otherwise one
// NUL byte, as at least one byte has to go with descriptors over a stream, unix(7).
var raw = &Dialect{
	Name: "raw", About: "any program that receives descriptors",
	Send:    func(c *Conn) (func(Parcel) error, error) { return c.plain([]byte{0}), nil },
	Receive: func(c *Conn, _ Want) (func(*scm.Message) error, error) { return c.Receive, nil },
	Payload: true,
}

// fdkit has its variables in the payload, fdkit-protocol(7), which the caller packs.
var fdkit = &Dialect{
	Name: "fdkit", About: "the commands of fdkit themselves",
	Send:    func(c *Conn) (func(Parcel) error, error) { return c.plain([]byte(scm.Begin)), nil },
	Receive: func(c *Conn, _ Want) (func(*scm.Message) error, error) { return c.Receive, nil },
	Payload: true,
	Decoder: func() Decoder { return &fdkitDecoder{} },
}

// fdkitDecoder tells each variable in a line.
type fdkitDecoder struct{ streams }

func (d *fdkitDecoder) Decode(from Direction, data []byte, _ int) (lines []string) {
	s := d.add(from, nil, 0)
	switch begins := bytes.HasPrefix(data, []byte(scm.Begin)); {
	case begins && len(s.kept) > 0:
		rest, _ := s.take(len(s.kept))
		lines = append(lines, "cut off: "+excerpt(rest))
	case !begins && len(s.kept) == 0 && !bytes.HasPrefix([]byte(scm.Begin), data):
		return []string{"no variables: " + excerpt(data)}
	}
	d.add(from, data, 0)
	for {
		entry, ok := s.line(0)
		if !ok {
			return lines
		}
		lines = append(lines, fdinfo.Printable(string(entry)))
	}
}

// plain returns a function that sends each parcel as one message, with the payload
// otherwise if it has none of its own.
func (c *Conn) plain(otherwise []byte) func(Parcel) error {
	return func(p Parcel) error {
		if p.Payload == nil {
			p.Payload = otherwise
		}
		return c.Send(p.Payload, p.FDs...)
	}
}
