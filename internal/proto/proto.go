//go:build linux

// Package proto speaks and explains the dialects in which programs pass descriptors
// over Unix sockets: a file for each. fdkit-dialects(7) describes them for users.
package proto

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"fdkit/internal/hint"
	"fdkit/internal/scm"
)

// Dialect is how one family of programs passes descriptors.
type Dialect struct {
	Name  string
	About string // whose it is, in a few words
	// Send begins to speak, which may mean to exchange greetings, and returns a
	// function that sends one parcel and waits for the answer if the dialect has
	// one. It is nil if fdkit does not send in this dialect.
	Send func(c *Conn) (send func(Parcel) error, err error)
	// Receive begins to speak, asks for what is wanted if the dialect has questions,
	// and returns a function that waits for the next message: the descriptors in it
	// are the caller's. It is nil if fdkit does not receive in this dialect.
	Receive func(c *Conn, want Want) (next func(*scm.Message) error, err error)
	// Decoder returns what explains one connection. It is nil if there is nothing to
	// explain.
	Decoder func() Decoder
	// Payload and Names tell whether a parcel's are sent. What is not sent is not to
	// be given.
	Payload, Names bool
	// CheckName returns an error for what cannot be a name, without the name in it. It
	// is nil if names are those that LISTEN_FDNAMES can have, sd_listen_fds(3).
	CheckName func(name string) error
	// Asks tells whether Receive heeds what is wanted.
	Asks bool
	// Resumes tells that after an ErrAnswer the next message can be received: it is
	// known where that one begins.
	Resumes bool
}

// Parcel is what is sent at once.
type Parcel struct {
	FDs     []int    // they stay the caller's
	Names   []string // one for each descriptor; nil: the dialect's own, if it needs some
	Payload []byte   // nil: the dialect's own
}

// Want is what a receiver asks for, in the dialects in which one asks.
type Want struct {
	Names []string // the descriptors of these names; nil: all
	List  bool     // the names only, and no descriptor
}

// ErrAnswer is wrapped by the errors that the other program is at fault for: an answer
// that the dialect does not have, or none.
var ErrAnswer = errors.New("not the answer that the dialect has")

// unanswered returns the error for an answer that has not come, or not whole, where
// io.EOF would say that all is well.
func unanswered(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, scm.ErrGone) {
		return fmt.Errorf("%w: it has closed the connection", ErrAnswer)
	}
	return err
}

// dialects are all there are, in the order in which they are listed.
var dialects = []*Dialect{
	raw,
	fdkit,
	openssh,
	utilLinux,
	python,
	node,
	qmp,
	imsg,
	wayland,
	haproxy,
	s6,
	sdNotify,
	runc,
}

// All returns all dialects.
func All() []*Dialect { return dialects }

// Find returns the dialect of that name.
func Find(name string) (*Dialect, error) {
	var names []string
	for _, d := range dialects {
		if d.Name == name {
			return d, nil
		}
		names = append(names, d.Name)
	}
	return nil, hint.Wrap(fmt.Errorf("there is no dialect %q", name), "there are "+strings.Join(names, ", "))
}

// Fits returns an error if the dialect cannot be spoken on a queue of fdkit's own, on
// which only one end sends.
func Fits(d *Dialect, foreign bool) error {
	if foreign || d == raw || d == fdkit {
		return nil
	}
	return hint.Wrap(fmt.Errorf("dialect %s is for the sockets of other programs, and this is a queue of fdkit", d.Name),
		"such a socket is unix:PATH or unix-listen:PATH")
}
