//go:build linux

package fdsend

import (
	"fmt"

	"fdkit/internal/proto"
)

// ErrAnswer is wrapped by errors of dialects that the other program is at fault for: what
// it has said is nothing that the dialect has, or it has said nothing.
var ErrAnswer = proto.ErrAnswer

// Parcel is what is sent at once in a dialect.
type Parcel struct {
	FDs     []int    // they stay the caller's
	Names   []string // one for each descriptor, in dialects that have names; nil: the dialect's own
	Payload []byte   // of at least one byte, in dialects that leave it to the sender; nil: the dialect's own
}

// Speak begins to speak a dialect of fdkit-dialects(7), and returns a function that
// sends one parcel and waits for the answer if the dialect has one. It is for one
// goroutine at a time, and in place of Senders, not beside them. Close ends it with
// ErrStopped, and Speak as well. A parcel that the dialect cannot have is an error, and
// nothing of it is sent; after any other error it is not known how much was.
//
// But for raw and fdkit the queue must be a socket that another program listens at or
// has connected to.
func (q *Queue) Speak(dialect string) (send func(Parcel) error, err error) {
	d, err := proto.Find(dialect)
	if err != nil {
		return nil, err
	}
	if d.Send == nil {
		return nil, fmt.Errorf("fdkit does not send in dialect %s", dialect)
	}
	if err := proto.Fits(d, q.q.Foreign); err != nil {
		return nil, err
	}
	conn := proto.NewConn(q.q.FD, &q.q.Calls)
	begun, err := d.Send(conn)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return func(p Parcel) error {
		if err := d.Check(proto.Parcel(p)); err != nil {
			return err
		}
		defer conn.Close() // a sender wants no descriptors
		return begun(proto.Parcel(p))
	}, nil
}
