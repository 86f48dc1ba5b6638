//go:build linux

package cmd

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"fdkit/fdrecv"
	"fdkit/internal/hint"
)

// receiving is what fdkit recv has to do, and how far it is.
type receiving struct {
	log     logger
	from    string // as the user has it, or stdin
	options fdrecv.Options
	count   int           // messages; 0: all
	timeout time.Duration // negative: none
	dialect string
	asks    bool // in that dialect a receiver asks, and nothing may be the answer
	want    fdrecv.Want
	printer arrivalPrinter
	program *successor // nil: none

	open    bool      // the queue is
	asked   bool      // the dialect has begun
	peer    queuePeer // with whom it is connected
	came    int       // messages
	lost    int       // those of them that had lost descriptors
	passed  int       // messages without a descriptor, of which no program is run
	pending func() (bytes, descriptors int)
	said    []string       // by the dialect's decoder, of the next message
	message fdrecv.Message // the one that the program is for
}

// run receives, and returns when all is done or stop is closed.
func (r *receiving) run(from string, stop <-chan struct{}) error {
	r.options.Stop = stop
	q, err := fdrecv.Open(from, r.options)
	switch {
	case errors.Is(err, fdrecv.ErrEnded):
		return r.ended()
	case err != nil:
		return err
	}
	defer closeQueue(r.log, q)
	go func() {
		<-stop
		r.printer.out.calls.Stop()
		q.Stop()
	}()
	r.open, r.peer = true, peerOf(q)
	r.log.info("receiving from %s%s", r.from, r.peer)
	if err := q.PassCredentials(); err != nil {
		r.log.info("who sends is not known: %v", err)
	}
	defer func() {
		for _, line := range r.said { // of a message that has not come
			r.log.notice("%s", line)
		}
	}()
	receiver, err := q.Speak(r.dialect, r.want)
	if err != nil {
		return fmt.Errorf("dialect %s: %w", r.dialect, err)
	}
	defer receiver.Close()
	r.asked, r.pending = true, receiver.Pending
	if r.program != nil {
		return r.one(receiver)
	}
	return r.all(receiver)
}

// all receives and prints messages.
func (r *receiving) all(receiver *fdrecv.Receiver) error {
	var m fdrecv.Message
	for r.count == 0 || r.came < r.count {
		err := receiver.Receive(&m)
		lost, isLost := errors.AsType[*fdrecv.LostError](err)
		switch {
		case errors.Is(err, io.EOF):
			return r.ended()
		case isLost && !r.printer.spoken: // in dialects it is part of more
			r.lost++
			r.log.error(r.losing(lost))
		case err != nil:
			return r.failed(err)
		}
		r.came++
		a := arrivalOf(r.came, &m, lost, r.peer)
		a.said, r.said = r.said, nil
		m.Close()
		if err := r.printer.print(a); err != nil {
			return err
		}
	}
	return r.done()
}

// one receives the one message that is for the program.
func (r *receiving) one(receiver *fdrecv.Receiver) error {
	for {
		err := receiver.Receive(&r.message)
		switch {
		case errors.Is(err, io.EOF):
			return r.ended()
		case err != nil:
			return r.failed(err)
		}
		a := arrivalOf(1, &r.message, nil, r.peer)
		r.log.info("%s", strings.TrimPrefix(a.header(), "message 1: "))
		if len(r.message.FDs) > 0 {
			return nil
		}
		r.passed++
		r.log.error(errors.New("a message came without a descriptor"))
	}
}

// failed is the error of a Receive that failed.
func (r *receiving) failed(err error) error {
	lost, isLost := errors.AsType[*fdrecv.LostError](err)
	switch {
	case isLost:
		return r.losing(lost)
	case errors.Is(err, fdrecv.ErrStopped):
		return err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%s has ended in the middle of message %d", r.from, r.came+1)
	case r.printer.spoken:
		return fmt.Errorf("dialect %s: %w", r.dialect, err)
	}
	return fmt.Errorf("cannot receive from %s: %w", r.from, err)
}

// losing adds to the loss what can be done about it.
func (r *receiving) losing(lost *fdrecv.LostError) error {
	err := fmt.Errorf("message %d: %w", r.came+1, lost)
	if lost.Full {
		return hint.Wrap(err, "ulimit -n shows and raises the limit (RLIMIT_NOFILE)")
	}
	return hint.Wrap(err, "the log of SELinux or AppArmor tells of it: dmesg, or ausearch -m avc")
}

// ended is the end of a queue to which no sender is left.
func (r *receiving) ended() error {
	switch {
	case r.passed > 0:
		r.log.notice("%s has ended, and no descriptor has come", r.from)
		return quiet(exitNothing)
	case r.came == 0 && r.asks:
	case r.came == 0:
		r.log.notice("%s has ended, and nothing has come", r.from)
		return quiet(exitNothing)
	}
	return r.done()
}

func (r *receiving) done() error {
	if r.lost > 0 {
		return quiet(exitLost)
	}
	return nil
}

// awaited tells what has not come.
func (r *receiving) awaited() string {
	kind, _, _ := strings.Cut(r.from, ":")
	switch {
	case !r.open && strings.HasSuffix(kind, "-listen"):
		return "nobody has connected to " + r.from
	case !r.open && isForeign(r.from):
		return "nobody listens at " + r.from
	case !r.open:
		return fmt.Sprintf("queue %s is not open yet", r.from)
	case r.printer.out.writing:
		return "nobody reads what is printed"
	case !r.asked:
		return fmt.Sprintf("%s%s does not answer in dialect %s", r.from, r.peer, r.dialect)
	}
	if bytes, fds := r.pending(); bytes > 0 || fds > 0 {
		return fmt.Sprintf("of message %d only %s and %s have come from %s%s", r.came+1,
			count(bytes, "byte", "bytes"), count(fds, "descriptor", "descriptors"), r.from, r.peer)
	}
	switch {
	case r.program != nil && r.passed > 0:
		return fmt.Sprintf("no descriptor has come from %s%s", r.from, r.peer)
	case r.came == 0:
		return fmt.Sprintf("nothing has come from %s%s", r.from, r.peer)
	case r.count > 0:
		return fmt.Sprintf("%d of %s have come from %s%s", r.came, count(r.count, "message", "messages"), r.from, r.peer)
	}
	return fmt.Sprintf("%s%s has not ended after %s", r.from, r.peer, count(r.came, "message", "messages"))
}
