//go:build linux

package fdrecv

import (
	"fmt"

	"fdkit/internal/proto"
	"fdkit/internal/scm"
)

// Want is what a receiver asks for, in the dialects in which one asks.
type Want struct {
	Names []string // the descriptors of these names; nil: all
	List  bool     // the names only, and no descriptor
}

// Speak begins to speak a dialect of fdkit-dialects(7), asks for what is wanted if the
// dialect has questions, and returns a Receiver whose messages have what the dialect
// says: the descriptors, their Names if it has some, and as Payload what is left.
//
// But for raw and fdkit the queue must be a socket that another program listens at or
// has connected to, and the Receiver is to be the only one. It is to be closed.
func (q *Queue) Speak(dialect string, want Want) (*Receiver, error) {
	d, err := proto.Find(dialect)
	if err != nil {
		return nil, err
	}
	if d.Receive == nil {
		return nil, fmt.Errorf("fdkit does not receive in dialect %s", dialect)
	}
	if err := proto.Fits(d, q.q.Foreign); err != nil {
		return nil, err
	}
	conn := proto.NewConn(q.q.FD, &q.q.Calls)
	next, err := d.Receive(conn, proto.Want(want))
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &Receiver{receive: next, close: conn.Close}, nil
}

// PassCredentials makes the kernel tell with each message from now on who has sent it
// (SO_PASSCRED, unix(7)), to all that receive from the queue.
func (q *Queue) PassCredentials() error { return scm.PassCredentials(q.q.FD) }
