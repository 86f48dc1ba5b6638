//go:build linux

package listen

import (
	"fmt"

	"golang.org/x/sys/unix"

	"fdkit/internal/scm"
	"fdkit/internal/thread"
)

// Sink is where Serve sends connections; *fdsend.Sender is one.
type Sink interface {
	// FD is a descriptor on which poll(2) reports POLLOUT while there is room.
	FD() int
	// Send sends copies of the descriptors and waits for room if it must.
	Send(payload []byte, fds ...int) error
}

// SendError says that an accepted connection could not be sent and was closed.
type SendError struct {
	Remote string // the client's address
	Err    error
}

func (e *SendError) Error() string {
	return fmt.Sprintf("cannot send the connection of %s: %v", e.Remote, e.Err)
}

func (e *SendError) Unwrap() error { return e.Err }

// Serve accepts connections and sends each to the sink, until Stop, which makes
// it return ErrStopped, or until the sink fails, which it returns as a *SendError.
//
// A connection is accepted only when the sink has room for it: the others wait in
// the kernel's backlog.
func (a *Acceptor) Serve(sink Sink) error {
	var c Conn
	payload := make([]byte, 0, scm.MaxPayload)
	fds := make([]int, 1) // made once, as Send lets it escape
	var turn thread.Turn
	for {
		if err := a.next(&c, sink.FD()); err != nil {
			return err
		}
		payload = c.AppendPayload(payload[:0])
		fds[0] = c.FD
		err := sink.Send(payload, fds...)
		_ = unix.Close(c.FD)
		turn.Yield(c.Accepted)
		if err != nil {
			return &SendError{c.Remote(), err}
		}
	}
}
