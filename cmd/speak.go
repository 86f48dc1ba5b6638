//go:build linux

package cmd

import (
	"errors"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"fdkit/fdsend"
	"fdkit/internal/proto"
	"fdkit/listen"
)

// closeOn closes the queue when stop is closed, until release is called.
func closeOn(q *fdsend.Queue, stop <-chan struct{}) (release func()) {
	released := make(chan struct{})
	go func() {
		select {
		case <-stop:
			_, _ = q.Close()
		case <-released:
		}
	}()
	return func() { close(released) }
}

// parcelOf makes a parcel of a message of fdkit's, which has variables for a payload:
// other dialects have no place for them.
func parcelOf(d *proto.Dialect, payload []byte, fds ...int) fdsend.Parcel {
	p := fdsend.Parcel{FDs: fds}
	if d.Name == "fdkit" {
		p.Payload = payload
	}
	return p
}

// speakAll sends the parcels in the dialect, each when the one before has been answered.
// It closes the queue, also when stop is closed.
func speakAll(q *fdsend.Queue, d *proto.Dialect, parcels []fdsend.Parcel, stop <-chan struct{}) error {
	defer q.Close()
	defer closeOn(q, stop)()
	send, err := q.Speak(d.Name)
	for _, p := range parcels {
		if err == nil {
			err = send(p)
		}
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fdsend.ErrStopped):
		err = errUnanswered
	}
	return dialectError(d, err)
}

// openSink opens the queue that --to names, and begins to speak the dialect of --proto.
// It ends when stop is closed.
func openSink(c *cli.Context, log logger, stop <-chan struct{}) (*fdsend.Queue, listen.Sink, error) {
	q, err := openOutput(c, log, 0, stop)
	if err != nil {
		return nil, nil, err
	}
	d := protoOf(c)
	if d == nil {
		return q, q.Sender(), nil
	}
	defer closeOn(q, stop)()
	send, err := q.Speak(d.Name)
	if err != nil {
		_, _ = q.Close()
		return nil, nil, dialectError(d, err)
	}
	return q, dialectSink{q.Sender(), d, send}, nil
}

// dialectSink is where listen.Serve sends connections in a dialect. An answer that the
// dialect has is waited for, and meanwhile nothing is accepted.
type dialectSink struct {
	*fdsend.Sender // for FD
	dialect        *proto.Dialect
	send           func(fdsend.Parcel) error
}

func (s dialectSink) Send(payload []byte, fds ...int) error {
	err := s.send(parcelOf(s.dialect, payload, fds...))
	if err == nil {
		return nil
	}
	// A receiver that goes, where an answer of its was waited for, has gone as any other.
	poll := []unix.PollFd{{Fd: int32(s.FD())}}
	if _, pollErr := unix.Poll(poll, 0); pollErr == nil && poll[0].Revents&unix.POLLHUP != 0 {
		return fdsend.ErrGone
	}
	return dialectError(s.dialect, err)
}
