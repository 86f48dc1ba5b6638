//go:build linux

package cmd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"fdkit/fdsend"
	"fdkit/internal/interrupt"
	"fdkit/internal/proto"
)

func sendCommand() *cli.Command {
	return &cli.Command{
		Name:      "send",
		Usage:     "send open descriptors, files, or descriptors of another process",
		UsageText: "fdkit send [OPTION...] DESCRIPTOR...",
		Description: "DESCRIPTOR is a number, stdin, stdout, stderr, PID:FD, or a file, r:PATH, w:PATH,\n" +
			"a:PATH or rw:PATH. See fdkit-send(1).",
		Flags: slices.Concat([]cli.Flag{
			&cli.StringFlag{Name: "to", Usage: "send to `QUEUE` instead of stdout"},
			&cli.BoolFlag{Name: "each", Usage: "send each descriptor as a message of its own", DisableDefaultText: true},
			&cli.StringSliceFlag{Name: "env", Usage: "send the variable `NAME=VALUE` along"},
			&cli.StringSliceFlag{Name: "name", Usage: "call the next descriptor `NAME`; one for each, in order"},
			&cli.GenericFlag{Name: "payload", Usage: "send this `TEXT` along instead of variables", Value: &payloadText{}},
			&cli.GenericFlag{Name: "payload-hex", Usage: "the same in hexadecimal `DIGITS`", Value: &payloadText{hex: true}},
			protoFlag("send in dialect `NAME`", true),
			durationFlag("timeout", "give up after `TIME`"),
			durationFlag("wait", "wait at most `TIME` for somebody else to make the queue or to listen"),
		}, queueFlags(), verbosityFlags()),
		Action: runSend,
	}
}

// sending is what fdkit send has to do.
type sending struct {
	log     logger
	sources []source
	each    bool // a message for each
	payload payload
	dialect *proto.Dialect // nil: of fdkit, or whatever is told to
	timeout time.Duration  // negative: none
	wait    time.Duration  // for somebody else to make the queue, as waitOf has it
	awaited string         // what is not open yet; "": all is
}

func runSend(c *cli.Context) error {
	s, err := sendingOf(c)
	if err != nil {
		return err
	}
	return s.send(c)
}

// send does it, unless a signal comes.
func (s *sending) send(c *cli.Context) (err error) {
	// From here on the signals are ours: none may leave a socket file behind.
	signals := endings()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if s.timeout > 0 {
		var done context.CancelFunc
		ctx, done = context.WithTimeout(ctx, s.timeout)
		defer done()
	}
	sig := unless(signals, func(stop <-chan struct{}) {
		go func() {
			select {
			case <-stop:
				cancel()
			case <-ctx.Done():
			}
		}()
		err = s.run(c, ctx.Done())
	})
	waited := isWaiting(err)
	if errors.Is(err, fdsend.ErrStopped) {
		err = fmt.Errorf("%s is not open yet", s.awaited)
		waited = true
	}
	switch {
	case err != nil && sig != nil:
		s.log.error(err)
		return endedBy(sig)
	case waited:
		return fmt.Errorf("not done after %v: %w", s.timeout, err)
	}
	return err
}

// sendingOf checks all that can be checked before anything is opened.
func sendingOf(c *cli.Context) (*sending, error) {
	operands := c.Args().Slice()
	if len(operands) == 0 {
		return nil, usageHint("fdkit send r:FILE opens a file and sends the descriptor", "a descriptor is missing")
	}
	if err := refuseOptions(operands, "descriptor"); err != nil {
		return nil, err
	}
	s := &sending{log: loggerOf(c), each: c.Bool("each"), dialect: protoOf(c), timeout: durationOf(c, "timeout"), wait: waitOf(c)}
	for _, operand := range operands {
		source, err := parseSource(operand)
		if err == nil {
			err = source.check(queueFD(c.String("to")))
		}
		if err != nil {
			return nil, err
		}
		s.sources = append(s.sources, source)
	}
	if !s.each && len(operands) > fdsend.MaxFDs {
		return nil, usageHint("--each sends each as a message of its own",
			"there are %d descriptors, and a message has at most %d (SCM_MAX_FD)", len(operands), fdsend.MaxFDs)
	}
	if s.timeout == 0 {
		return nil, usagef("option --timeout: nothing is sent in no time")
	}
	var err error
	if s.payload, err = payloadOf(c, len(operands)); err != nil {
		return nil, err
	}
	if c.IsSet("wait") && queueFD(c.String("to")) != noQueue {
		return nil, usageHint("a named queue is --to PATH", "option --wait: it is for a queue that others make, and this one is inherited")
	}
	return s, checkQueue(c, "to")
}

// run sends the descriptors, and returns when they have been received or stop is
// closed.
func (s *sending) run(c *cli.Context, stop <-chan struct{}) error {
	fds, release, err := s.acquire(stop)
	defer release()
	if err != nil {
		return err
	}
	messages, err := s.messages(fds)
	if err != nil {
		return err
	}
	to := c.String("to")
	if to == "" {
		to = "stdout"
	}
	s.awaited = "queue " + to
	q, err := openOutput(c, s.log, s.wait, stop)
	if err != nil {
		return err
	}
	if s.dialect != nil {
		return s.speak(q, messages, stop)
	}
	lost, err := deliver(s.log, q, messages, stop)
	switch {
	case errors.Is(err, errNoReceiver) && len(messages) > 1:
		return fmt.Errorf("%w: %d of %d messages are not received", err, lost, len(messages))
	case errors.Is(err, errNoReceiver):
		return fmt.Errorf("%w: the message is not received", err)
	case err == nil:
		s.log.info("sent %s to %s", count(len(fds), "descriptor", "descriptors"), to)
	case !isWaiting(err):
		return fmt.Errorf("cannot send to %s: %w", to, err)
	}
	return err
}

// speak sends the messages in the dialect.
func (s *sending) speak(q *fdsend.Queue, messages []outgoing, stop <-chan struct{}) error {
	var parcels []fdsend.Parcel
	names := s.payload.names
	for _, m := range messages {
		p := parcelOf(s.dialect, m.payload, m.fds...)
		if s.payload.fixed != nil {
			p.Payload = s.payload.fixed
		}
		if names != nil {
			p.Names, names = names[:len(m.fds)], names[len(m.fds):]
		}
		parcels = append(parcels, p)
	}
	return speakAll(q, s.dialect, parcels, stop)
}

// acquire opens what is to be opened. Release closes it again, also after an error.
func (s *sending) acquire(stop <-chan struct{}) (fds []int, release func(), err error) {
	var calls interrupt.Calls
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-stop:
			calls.Stop()
		case <-done:
		}
	}()
	var ours []int
	release = func() {
		for _, fd := range ours {
			_ = unix.Close(fd)
		}
	}
	for _, source := range s.sources {
		s.awaited = source.text
		fd, own, err := source.acquire(&calls)
		if err != nil {
			return nil, release, err
		}
		if !own {
			ours = append(ours, fd)
		}
		fds = append(fds, fd)
	}
	return fds, release, nil
}

// messages packs the descriptors.
func (s *sending) messages(fds []int) (all []outgoing, err error) {
	size := len(fds)
	if s.each {
		size = 1
	}
	first := 0
	for some := range slices.Chunk(fds, size) {
		var payload []byte
		if s.dialect == nil || s.dialect.Name == "fdkit" { // others have no variables
			if payload, err = s.payload.of(first, some); err != nil {
				return nil, err
			}
		}
		all = append(all, outgoing{payload, some})
		first += len(some)
	}
	return all, nil
}
