package proto

// Direction is where a message of a connection comes from.
type Direction bool

// Which of the two has sent a message: the one that connected, who also sends where
// there is one sender only, or the one that listens.
const (
	FromClient Direction = false
	FromServer Direction = true
)

// Decoder explains what is said on one connection, in both directions, as it goes by.
// It is for one goroutine at a time.
type Decoder interface {
	// Decode takes what came next in one direction, and how many descriptors came
	// with it. Of a stream that may be any piece; a packet comes whole. It returns a
	// line, without its end, for each thing said that is complete now. What is not
	// of the dialect is told in a line too. Text in it that comes from the wire is
	// printable, as fdinfo.Printable makes it. No input makes it fail, or keep more than
	// decodeLimit bytes.
	Decode(from Direction, data []byte, fds int) []string
}

// decodeLimit is how many bytes a decoder keeps at most of something that is not
// complete.
const decodeLimit = 1 << 20
