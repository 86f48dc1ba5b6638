//go:build linux

package merge

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"testing"
)

// feed adds the pieces to a stream, and ends it.
func feed(f *Framing, pieces ...string) (out string, frames, lost int, err error) {
	var s stream
	var b []byte
	for _, piece := range pieces {
		var n, missed int
		b, n, missed, err = s.add(f, b, []byte(piece))
		frames, lost = frames+n, lost+missed
		if err != nil {
			return string(b), frames, lost, err
		}
	}
	b, n, missed, err := s.finish(f, b)
	return string(b), frames + n, lost + missed, err
}

func TestFraming(t *testing.T) {
	lines := &Framing{Max: 5, End: []byte("end")}
	short := &Framing{Prefix: 1, Max: 5, End: []byte("end")}
	long := &Framing{Prefix: 8, Max: 5}
	for _, test := range []struct {
		name   string
		f      *Framing
		pieces string // between bars
		out    string
		frames int
		lost   int
		err    error
	}{
		{"nothing", lines, "", "", 0, 0, nil},
		{"lines", lines, "a\nbc\n|\n", "a\nbc\n\n", 3, 0, nil},
		{"in pieces", lines, "a|b|c\nd|\n|", "abc\nd\n", 2, 0, nil},
		{"the last without a newline", lines, "a\nb|c", "a\nbc\n", 2, 0, nil},
		{"as long as it may be", lines, "12345|\n12345", "12345\n12345\n", 2, 0, nil},
		{"too long", lines, "a\n123456\nb\n", "a\n", 1, 9, errTooLong},
		{"too long in pieces", lines, "a\n12|345|6", "a\n", 1, 6, errTooLong},
		{"too long without a newline", lines, "a\n1234567", "a\n", 1, 7, errTooLong},
		{"the end", lines, "a\nend\nbc\n", "a\n", 1, 3, errEnd},
		{"the end in pieces", lines, "a\ne|nd|\nb", "a\n", 1, 1, errEnd},
		{"the end without a newline", lines, "a\nen|d", "a\n", 1, 0, errEnd},
		{"not the end", lines, "ends\nxend\nen\ne|nd \nEnd\n", "ends\nxend\nen\nend \nEnd\n", 5, 0, nil},
		{"bytes of all kinds", lines, "\x00\r\n\xff\n", "\x00\r\n\xff\n", 2, 0, nil},
		{"blocks", short, "\x01a\x00|\x02b|c", "\x01a\x00\x02bc", 3, 0, nil},
		{"a block with newlines", short, "\x03a\n\n", "\x03a\n\n", 1, 0, nil},
		{"half a block", short, "\x01a\x03b|c", "\x01a", 1, 3, errUnfinished},
		{"a block too long", short, "\x01a\x06|b", "\x01a", 1, 1, errTooLong},
		{"the last block", short, "\x01a\x03|en|d\x01b", "\x01a", 1, 2, errEnd},
		{"no last block", short, "\x02en|\x04ends\x03enD", "\x02en\x04ends\x03enD", 3, 0, nil},
		{"eight bytes", long, "\x00\x00\x00\x00\x00|\x00\x00\x01a", "\x00\x00\x00\x00\x00\x00\x00\x01a", 1, 0, nil},
		{"half of eight", long, "\x00\x00\x00", "", 0, 3, errUnfinished},
		{"more than there is", long, "\xff\xff\xff\xff\xff\xff\xff\xff", "", 0, 8, errTooLong},
	} {
		out, frames, lost, err := feed(test.f, strings.Split(test.pieces, "|")...)
		if out != test.out || frames != test.frames || lost != test.lost || !errors.Is(err, test.err) {
			t.Errorf("%s: %q is %q, %d frames, %d bytes lost, %v; want %q, %d, %d, %v", test.name,
				test.pieces, out, frames, lost, err, test.out, test.frames, test.lost, test.err)
		}
	}
}

// A long frame that comes byte by byte is not looked at anew with each.
func TestFramingPieces(t *testing.T) {
	f := &Framing{Max: 1 << 20}
	var s stream
	var out []byte
	for range 1 << 20 {
		out, _, _, _ = s.add(f, out, []byte{'x'})
	}
	out, frames, _, err := s.add(f, out, []byte("\ny"))
	if len(out) != 1<<20+1 || frames != 1 || err != nil || string(s.rest) != "y" || cap(s.rest) > 64 {
		t.Errorf("%d bytes, %d frames, %v, rest %q with room for %d; want 1048577, 1, nil, y, little", len(out), frames, err, s.rest, cap(s.rest))
	}
}

// naive cuts a stream as the page describes it, from its start to its end.
func naive(f *Framing, b []byte) (out []byte, frames int, err error) {
	for len(b) > 0 {
		var frame, content []byte
		if f.Prefix == 0 {
			line, _, ended := bytes.Cut(b, []byte{'\n'})
			content, frame = line, append(bytes.Clone(line), '\n')
			b = b[len(line):]
			if ended {
				b = b[1:]
			}
		} else {
			if len(b) < f.Prefix {
				return out, frames, errUnfinished
			}
			length := binary.BigEndian.Uint64(append(make([]byte, 8-f.Prefix), b[:f.Prefix]...))
			if length > uint64(f.Max) {
				return out, frames, errTooLong
			}
			if length > uint64(len(b)-f.Prefix) {
				return out, frames, errUnfinished
			}
			frame = b[:f.Prefix+int(length)]
			content, b = frame[f.Prefix:], b[len(frame):]
		}
		switch {
		case len(content) > f.Max:
			return out, frames, errTooLong
		case f.End != nil && bytes.Equal(content, f.End):
			return out, frames, errEnd
		}
		out, frames = append(out, frame...), frames+1
	}
	return out, frames, nil
}

// FuzzFraming cuts a stream whole and in pieces, and compares with naive.
func FuzzFraming(f *testing.F) {
	f.Add([]byte("one\ntwo\nthree"), []byte{1, 5, 0, 2}, uint8(0), uint8(10))
	f.Add([]byte("\x00\x00\x00\x03abc\x00\x00\x00\x00"), []byte{3}, uint8(4), uint8(3))
	f.Add([]byte("\x00\x02ab\xff\xff"), []byte{}, uint8(2), uint8(200))
	f.Add([]byte("a\nend\nb"), []byte{3}, uint8(0), uint8(3))
	f.Fuzz(func(t *testing.T, data, sizes []byte, prefix, limit uint8) {
		framing := &Framing{Prefix: int(prefix % 9), Max: int(limit), End: []byte("end")}
		want, frames, err := naive(framing, data)
		var pieces []string
		left := data
		for _, size := range sizes {
			n := min(int(size), len(left))
			pieces, left = append(pieces, string(left[:n])), left[n:]
		}
		pieces = append(pieces, string(left))
		got, gotFrames, lost, gotErr := feed(framing, pieces...)
		if got != string(want) || gotFrames != frames || !errors.Is(gotErr, err) {
			t.Fatalf("%q in %q is %q, %d frames, %v; want %q, %d, %v", data, pieces, got, gotFrames, gotErr, want, frames, err)
		}
		if lost < 0 || lost > len(data) || gotErr == nil && lost != 0 {
			t.Fatalf("%q: %d bytes lost, %v", data, lost, gotErr)
		}
		// After an error feed adds no more pieces: what they have is not counted.
		if gotErr == nil && len(got) < len(data) {
			t.Fatalf("%q: %d bytes have come of %d", data, len(got), len(data))
		}
	})
}

// A frame whose length does not fit into an int is too long, not negative.
func TestFramingOverflow(t *testing.T) {
	f := &Framing{Prefix: 8, Max: math.MaxInt - 8}
	for _, length := range []uint64{math.MaxInt64, math.MaxUint64, 1 << 63} {
		b := binary.BigEndian.AppendUint64(nil, length)
		if size, err := f.next(nil, b); size != 0 || err != errTooLong {
			t.Errorf("next(%d) = %d, %v; want 0, too long", length, size, err)
		}
	}
}
