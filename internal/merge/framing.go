//go:build linux

package merge

import (
	"bytes"
	"errors"
)

// Framing says where the frames of a stream end.
type Framing struct {
	Prefix int // bytes of length before each frame, big endian, at most 8; 0: frames are lines
	Max    int // bytes that a frame may have, less its prefix or newline
	// End is the frame, less its prefix or newline, that ends all; nil: none does.
	End []byte
}

var (
	errTooLong    = errors.New("a frame is too long")
	errEnd        = errors.New("told to end")
	errUnfinished = errors.New("the stream has ended within a frame")
)

// stream is what has come from one client and is no whole frame yet.
type stream struct{ rest []byte }

// add takes the next bytes of the stream, and appends to out the frames that are whole
// with them. It looks at each byte once, in however small pieces they come. After an
// error the stream is at its end; lost is how many bytes were neither appended nor the
// frame of errEnd.
func (s *stream) add(f *Framing, out, b []byte) (grown []byte, frames, lost int, err error) {
	begun, taken := s.rest, 0 // begun belongs to the frame at b[taken]
	for {
		size, err := f.next(begun, b[taken:])
		if err == nil && size > 0 && f.isEnd(begun, b[taken:taken+size]) {
			err = errEnd
			lost = -len(begun) - size
		}
		if size == 0 || err != nil {
			if taken > 0 {
				out = append(append(out, s.rest...), b[:taken]...)
			}
			if err != nil {
				lost += len(begun) + len(b) - taken
				s.rest = nil
				return out, frames, lost, err
			}
			s.rest = s.rest[:len(begun)]
			s.keep(b[taken:])
			return out, frames, 0, nil
		}
		taken += size
		begun = nil
		frames++
	}
}

// finish is for the orderly end of the stream: a line that has no newline there gets one.
func (s *stream) finish(f *Framing, out []byte) (grown []byte, frames, lost int, err error) {
	switch {
	case len(s.rest) == 0:
		return out, 0, 0, nil
	case f.Prefix > 0:
		return out, 0, s.discard(), errUnfinished
	}
	return s.add(f, out, []byte{'\n'})
}

// discard forgets what is no whole frame, and returns how many bytes that were.
func (s *stream) discard() int {
	n := len(s.rest)
	s.rest = nil
	return n
}

// keep adds b to the rest. It gives memory back that a long frame before has taken.
func (s *stream) keep(b []byte) {
	const small = 256
	if n := len(s.rest) + len(b); cap(s.rest) > small && n < cap(s.rest)/4 {
		s.rest = append(make([]byte, 0, n), s.rest...)
	}
	s.rest = append(s.rest, b...)
}

// next returns how many bytes of b make the frame whole that begins with begun, 0 if it
// takes more of them.
func (f *Framing) next(begun, b []byte) (int, error) {
	if f.Prefix == 0 {
		i := bytes.IndexByte(b, '\n')
		length := len(begun) + i
		if i < 0 {
			length = len(begun) + len(b)
		}
		if length > f.Max {
			return 0, errTooLong
		}
		return i + 1, nil
	}
	var prefix [8]byte
	n := copy(prefix[:f.Prefix], begun)
	if n += copy(prefix[n:f.Prefix], b); n < f.Prefix {
		return 0, nil
	}
	var length uint64
	for _, digit := range prefix[:f.Prefix] {
		length = length<<8 | uint64(digit)
	}
	if length > uint64(f.Max) {
		return 0, errTooLong
	}
	if size := f.Prefix + int(length) - len(begun); size <= len(b) {
		return size, nil
	}
	return 0, nil
}

// isEnd tells whether the frame that is begun and b ends all.
func (f *Framing) isEnd(begun, b []byte) bool {
	if f.End == nil {
		return false
	}
	if f.Prefix == 0 {
		b = b[:len(b)-1]
	}
	inBegun := min(f.Prefix, len(begun))
	begun, b = begun[inBegun:], b[f.Prefix-inBegun:]
	return len(begun)+len(b) == len(f.End) && bytes.HasPrefix(f.End, begun) && bytes.Equal(f.End[len(begun):], b)
}
