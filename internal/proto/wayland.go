//go:build linux

package proto

import (
	"encoding/binary"
	"fmt"
	"strings"

	"fdkit/internal/fdinfo"
)

// wayland explains what Wayland's clients and compositors say, in the words of
// WAYLAND_DEBUG: chapter 4 of The Wayland Protocol, "Wire Format", and wl_closure_print()
// in src/connection.c of libwayland. There is nothing that one could send without being
// a client.
var wayland = &Dialect{
	Name: "wayland", About: "Wayland's clients and compositors",
	Decoder: func() Decoder { return &waylandDecoder{objects: map[uint32]string{1: "wl_display"}} },
}

// waylandDecoder knows which interface an object has. Those of wl_registry.bind are in
// the message; where others come from is known from waylandInterfaces only. How many
// descriptors messages have that are not known is not to be seen, so one of theirs may
// count as one of a later message.
type waylandDecoder struct {
	streams
	objects map[uint32]string
}

const (
	waylandHeader = 8 // bytes: the object, the size and the opcode
	// waylandObjects and waylandName bound what is kept of a peer that makes objects
	// without end.
	waylandObjects = 8192
	waylandName    = 64
)

func (d *waylandDecoder) Decode(from Direction, data []byte, fds int) (lines []string) {
	s := d.add(from, data, fds)
	for !s.isLost() && len(s.kept) >= waylandHeader {
		size := int(binary.NativeEndian.Uint32(s.kept[4:]) >> 16)
		if size < waylandHeader || size%4 != 0 {
			return append(lines, s.lose("no message of Wayland"))
		}
		message, ok := s.take(size)
		if !ok {
			break
		}
		lines = append(lines, d.message(from, s, message))
	}
	return lines
}

// message tells one message.
func (d *waylandDecoder) message(from Direction, s *stream, message []byte) string {
	id, opcode := binary.NativeEndian.Uint32(message), binary.NativeEndian.Uint32(message[4:])&0xffff
	object := d.object(id)
	known := waylandInterfaceOf(d.objects[id]).requests
	if from == FromServer {
		known = waylandInterfaceOf(d.objects[id]).events
	}
	body := message[waylandHeader:]
	if int(opcode) >= len(known) {
		return fmt.Sprintf("%s opcode %d, %s", object, opcode, count(len(body), "byte"))
	}
	name, types, _ := strings.Cut(known[opcode], " ")
	a := waylandArguments{decoder: d, stream: s, rest: body}
	for t := range strings.FieldsSeq(types) {
		a.next(t)
	}
	text := fmt.Sprintf("%s.%s(%s)", object, name, strings.Join(a.text, ", "))
	switch {
	case a.short || len(a.rest) > 0:
		text += ", not of that form"
	case name == "delete_id" && id == 1 && from == FromServer:
		delete(d.objects, binary.NativeEndian.Uint32(body))
	}
	return text
}

// object is the name of an object in a line.
func (d *waylandDecoder) object(id uint32) string {
	if name, ok := d.objects[id]; ok {
		return fmt.Sprintf("%s@%d", fdinfo.Printable(name), id)
	}
	return fmt.Sprintf("[unknown]@%d", id)
}

// make remembers an object.
func (d *waylandDecoder) make(id uint32, name string) {
	if _, found := d.objects[id]; found || len(d.objects) < waylandObjects {
		d.objects[id] = name
	}
}

// waylandArguments are the arguments of one message.
type waylandArguments struct {
	decoder *waylandDecoder
	stream  *stream
	rest    []byte
	text    []string
	named   string // the string before, which names what wl_registry.bind makes
	short   bool   // the message ends too early
}

func (a *waylandArguments) word() uint32 {
	if a.short = a.short || len(a.rest) < 4; a.short {
		return 0
	}
	word := binary.NativeEndian.Uint32(a.rest)
	a.rest = a.rest[4:]
	return word
}

// bytes takes a string or an array: its length, and the bytes padded to words.
func (a *waylandArguments) bytes() []byte {
	size := uint64(a.word())
	padded := (size + 3) &^ 3
	if a.short = a.short || uint64(len(a.rest)) < padded; a.short {
		return nil
	}
	b := a.rest[:size]
	a.rest = a.rest[padded:]
	return b
}

// next tells one argument of type t.
func (a *waylandArguments) next(t string) {
	var text string
	switch kind, made, _ := strings.Cut(t, ":"); kind {
	case "h":
		if text = "fd"; a.stream.claim(1) == 0 {
			text = "fd that has not come"
		}
	case "i":
		text = fmt.Sprint(int32(a.word()))
	case "u":
		text = fmt.Sprint(a.word())
	case "f": // 24.8 bits
		text = fmt.Sprintf("%f", float64(int32(a.word()))/256)
	case "o":
		if id := a.word(); id == 0 {
			text = "nil"
		} else {
			text = a.decoder.object(id)
		}
	case "n":
		id := a.word()
		if text = fmt.Sprintf("new id %s@%d", made, id); made == "" {
			text, made = fmt.Sprintf("new id [unknown]@%d", id), a.named
		}
		if !a.short && made != "" {
			a.decoder.make(id, made)
		}
	case "s":
		b := a.bytes()
		a.named = strings.TrimRight(string(b[:min(len(b), waylandName)]), "\x00")
		if text = "nil"; len(b) > 0 {
			text = `"` + fdinfo.Printable(strings.TrimSuffix(string(b), "\x00")) + `"`
		}
	case "a":
		text = fmt.Sprintf("array[%d]", len(a.bytes()))
	}
	if !a.short {
		a.text = append(a.text, text)
	}
}
