//go:build linux

package proto

import (
	"encoding/binary"
	"fmt"
)

// imsg explains the messages of OpenBSD's imsg_init(3), which tmux, OpenSMTPD, OpenNTPD
// and others have too. The types are each program's own, so fdkit speaks it not.
var imsg = &Dialect{
	Name: "imsg", About: "OpenBSD's imsg_init(3): tmux, OpenSMTPD and others",
	Decoder: func() Decoder { return &imsgDecoder{} },
}

const (
	// imsgHeader is the size of struct imsg_hdr, and imsgMost MAX_IMSGSIZE, the size
	// of a message with it, in imsg.h.
	imsgHeader = 16
	imsgMost   = 16384
	// A descriptor comes with the message: in the field flags of a header with 16 bits
	// each for length and flags, until 2024; and since then in a length of 32 bits
	// (IMSG_FD_MARK in imsg.c).
	imsgHasFD  = 1
	imsgFDMark = 1 << 31
)

type imsgDecoder struct{ streams }

func (d *imsgDecoder) Decode(from Direction, data []byte, fds int) (lines []string) {
	s := d.add(from, data, fds)
	for !s.isLost() && len(s.kept) >= imsgHeader {
		length, hasFD := imsgLength(s.kept)
		if length < imsgHeader {
			return append(lines, s.lose("message of imsg", imsgHeader))
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
// message, and whether a descriptor comes with it. It takes both headers. Up to MAX_IMSGSIZE,
// which is the limit unless a program has raised it, none is valid as the other with
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
