//go:build linux

package cmd

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"fdkit/fdsend"
	"fdkit/internal/hint"
)

// Why what is sent does not arrive.
var (
	errNoReceiver = errors.New("no receiver is left")
	errFull       = errors.New("the queue is full")
	errUnreceived = errors.New("nobody has received it yet")
	errUnanswered = errors.New("the other program has not answered yet")
	errInFlight   = hint.Wrap(errors.New("too many descriptors of this user are in flight"),
		"receive those that are in queues, or allow more with ulimit -n (RLIMIT_NOFILE)")
)

// openOutput opens the queue that --to names, for which it waits that long. It ends
// when stop is closed.
func openOutput(c *cli.Context, log logger, wait time.Duration, stop <-chan struct{}) (*fdsend.Queue, error) {
	o := fdsend.Options(queueOptionsOf(c, log))
	o.Wait, o.Stop = wait, stop
	return fdsend.Open(c.String("to"), o)
}

// outgoing is a message that is to be sent. Its descriptors stay whose they are.
type outgoing struct {
	payload []byte
	fds     []int
}

// deliver sends the messages, waits until they are received or safe with others, and
// closes the queue. If that ends early, lost is how many are not received, as far as
// that is known, and the error is errNoReceiver, or why they were still waiting when
// stop was closed, or what a system call said.
func deliver(log logger, q *fdsend.Queue, messages []outgoing, stop <-chan struct{}) (lost int, err error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	sender := q.Sender()
	var sent atomic.Int64
	waiting := func() error {
		if int(sent.Load()) == len(messages) {
			return errUnreceived
		}
		return hindrance(sender)
	}
	go func() {
		slow := time.NewTimer(time.Second)
		defer slow.Stop()
		for ctx.Err() == nil {
			select {
			case <-slow.C:
				if why := waiting(); why != errUnreceived && log.enabled(isNotice) {
					log.say(isNotice, "notice", fmt.Sprintf("still waiting: %v", why), hint.Of(why), nil)
				}
				continue
			case <-stop:
				cancel(waiting())
			case <-q.Gone(): // nobody makes room in a queue that this process holds too
				cancel(errNoReceiver)
			case <-ctx.Done():
				return
			}
			_, _ = q.Close()
		}
	}()
	for _, m := range messages {
		if err = sender.Send(m.payload, m.fds...); err != nil {
			break
		}
		sent.Add(1)
	}
	if err == nil {
		err = q.Drain(ctx)
	}
	lost, closeErr := q.Close()
	lost += len(messages) - int(sent.Load())
	ended := context.Cause(ctx)
	gone := err == nil || errors.Is(err, fdsend.ErrGone) || ended == errNoReceiver
	switch {
	case gone && lost > 0:
		return lost, errNoReceiver
	case gone:
		return 0, closeErr
	case ended != nil:
		return lost, ended
	}
	return lost, explainSend(err)
}

// hindrance returns what a Send under way waits for.
func hindrance(s *fdsend.Sender) error {
	switch err := s.Delay(); {
	case errors.Is(err, unix.ETOOMANYREFS):
		return errInFlight
	case err != nil:
		return err
	}
	return errFull
}

// isWaiting tells whether err is what deliver has waited for.
func isWaiting(err error) bool {
	return errors.Is(err, errFull) || errors.Is(err, errInFlight) || errors.Is(err, errUnreceived) || errors.Is(err, errUnanswered)
}

// explainSend gives the cure, where one is known.
func explainSend(err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return hint.Wrap(err, "the receiver takes no descriptors (SO_PASSRIGHTS), or a security module forbids it")
	case errors.Is(err, unix.EINVAL):
		return hint.Wrap(err, "the kernel passes no io_uring descriptors")
	}
	return err
}
