//go:build linux

package fdrecv

import (
	"fmt"

	"fdkit/internal/fdinfo"
	"fdkit/internal/proto"
)

// Want is what a receiver asks for, in the dialects in which one asks.
type Want struct {
	Names []string // the descriptors of these names; nil: all
	List  bool     // the names only, and no descriptor
	// Explain, if not nil, is called with a line for each thing that either side says,
	// in the dialects that have something to explain. Text from the other program is
	// printable in it.
	Explain func(line string)
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
	if want.Explain != nil && d.Decoder != nil {
		// Who listens has a name, and who connects usually none.
		peer, _ := fdinfo.PeerAddress(q.q.FD)
		conn.Explain(d.Decoder(), proto.Direction(peer.Path != ""), want.Explain)
	}
	next, err := d.Receive(conn, proto.Want{Names: want.Names, List: want.List})
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &Receiver{receive: next, close: conn.Close, pending: conn.Pending}, nil
}

// PassCredentials makes the kernel tell with each message from now on who has sent it
// (SO_PASSCRED, unix(7)), to all that receive from the queue, until Close. Of what is in
// the queue already it may not be known: then the PID is 0, and user and group are 65534.
func (q *Queue) PassCredentials() error { return q.q.PassCredentials() }

// Peer returns the process that has connected the queue's socket, or listens there, or
// of a pair has made it (SO_PEERCRED, unix(7)). Others may send as well. It is not known,
// and ok is false, of datagrams. The queue must not be closed meanwhile.
func (q *Queue) Peer() (who Credentials, ok bool) {
	ucred := fdinfo.PeerCredentials(q.q.FD)
	if ucred == nil {
		return who, false
	}
	return Credentials{PID: int(ucred.Pid), UID: int(ucred.Uid), GID: int(ucred.Gid)}, true
}

// Pending returns how many bytes and descriptors of a message have come that is not
// complete.
func (r *Receiver) Pending() (bytes, descriptors int) {
	if r.pending == nil {
		return 0, 0
	}
	return r.pending()
}
