//go:build linux

package proto

import (
	"encoding/binary"
	"fmt"
)

// imsg explains the messages of OpenBSD's imsg_init(3), which tmux, OpenSMTPD, OpenNTPD
// and others have too. The types are each program's own, so there is nothing to send or to receive.
var imsg = &Dialect{
	Name: "imsg", About: "OpenBSD's imsg_init(3): tmux, OpenSMTPD and others",
	Decoder: func() Decoder { return &imsgDecoder{} },
}

const (
	// imsgHeader is the size of struct imsg_hdr, and imsgMost MAX_IMSGSIZE, the size
	// of a message with it, in imsg.h.
	imsgHeader = 16
	imsgMost   = 16384
	// Marks of a message with a descriptor. Up to OpenBSD 7.6 the header has 16 bits
	// each for length and flags, IMSGF_HASFD in imsg.h; since then 32 bits of length,
	// with IMSG_FD_MARK in imsg.c.
	imsgHasFD  = 1
	imsgFDMark = 1 << 31
)

type imsgDecoder struct{ streams }

func (d *imsgDecoder) Decode(from Direction, data []byte, fds int) (lines []string) {
	s := d.add(from, data, fds)
	for !s.isLost() && len(s.kept) >= imsgHeader {
		length, hasFD := imsgLength(s.kept)
		if length < imsgHeader {
			return append(lines, s.lose("no message of imsg"))
		}
		message, ok := s.take(length)
		if !ok {
			break
		}
		word := func(at int) uint32 { return binary.NativeEndian.Uint32(message[at:]) }
		line := fmt.Sprintf("type %d, %s, peerid %d, pid %d", word(0), count(length-imsgHeader, "byte"), word(8), word(12))
		switch {
		case hasFD && s.claim(1) == 1:
			line += ", with a descriptor"
		case hasFD:
			line += ", with a descriptor that has not come"
		}
		lines = append(lines, line)
	}
	return lines
}

// imsgLength returns the length of a message with its header, or 0 if there is no such
// message, and whether a descriptor comes with it. It takes both headers: up to imsgMost,
// which a program may raise in the new one only, none is valid as the other one with
// another meaning.
func imsgLength(header []byte) (length int, hasFD bool) {
	short, flags := binary.NativeEndian.Uint16(header[4:]), binary.NativeEndian.Uint16(header[6:])
	if short >= imsgHeader && short <= imsgMost && flags <= imsgHasFD {
		return int(short), flags == imsgHasFD
	}
	long := binary.NativeEndian.Uint32(header[4:])
	if length = int(long &^ imsgFDMark); length < imsgHeader || length > decodeLimit {
		return 0, false
	}
	return length, long&imsgFDMark != 0
}
