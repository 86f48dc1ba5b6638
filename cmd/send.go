//go:build linux

package cmd

import (
	"errors"
	"fmt"
	"slices"
	"strings"
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
	sig := within(s.timeout, func(stop <-chan struct{}) { err = s.run(c, stop) })
	waited := isWaiting(err)
	if errors.Is(err, fdsend.ErrStopped) {
		err = s.notOpen()
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
	if err := s.checkDialect(len(operands), c.IsSet("name")); err != nil {
		return nil, err
	}
	if err := checkQueue(c, "to"); err != nil {
		return nil, err
	}
	return s, checkProto(c, "to")
}

// checkDialect checks that n descriptors can be sent in the dialect: afterwards files are
// made, and the only message that a connection has may be sent.
func (s *sending) checkDialect(n int, named bool) error {
	switch d := s.dialect; {
	case d == nil:
	case d.Named && !named:
		return usageHint("--name NAME, once for each descriptor, in order", "option --proto: in dialect %s each descriptor has a name", d.Name)
	case n == 1:
	case d.Single && d.Once:
		return usagef("there are %d descriptors, and dialect %s has one", n, d.Name)
	case d.Single && !s.each:
		return usageHint("--each sends each as a message of its own", "there are %d descriptors, and a message of dialect %s has one", n, d.Name)
	case d.Once && s.each:
		return usagef("option --each: dialect %s has one message", d.Name)
	}
	return nil
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
	lost, err := deliverIn(s.log, q, s.dialect, messages, stop)
	switch {
	case errors.Is(err, errNoReceiver) && len(messages) > 1:
		return fmt.Errorf("%w: %d of %d messages are not received", err, lost, len(messages))
	case errors.Is(err, errNoReceiver):
		return fmt.Errorf("%w: the message is not received", err)
	case err == nil:
		s.log.info("sent %s to %s", count(len(fds), "descriptor", "descriptors"), to)
	case !isWaiting(err) && (s.dialect == nil || s.dialect.Plain()): // others say whose it is
		return fmt.Errorf("cannot send to %s: %w", to, err)
	}
	return err
}

// notOpen tells what has kept this command from opening all.
func (s *sending) notOpen() error {
	to, isQueue := strings.CutPrefix(s.awaited, "queue ")
	kind, _, _ := strings.Cut(to, ":")
	switch {
	case isQueue && strings.HasSuffix(kind, "-listen"):
		return fmt.Errorf("nobody has connected to %s", to)
	case isQueue && isForeign(to):
		return fmt.Errorf("nobody listens at %s", to)
	}
	return fmt.Errorf("%s is not open yet", s.awaited)
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
		m := outgoing{payload: s.payload.fixed, fds: some}
		if s.payload.names != nil {
			m.names = s.payload.names[first : first+len(some)]
		}
		switch {
		case s.dialect == nil, s.dialect.Name == "fdkit":
			if m.payload, err = s.payload.of(first, some); err != nil {
				return nil, err
			}
		case m.payload == nil:
			m.payload = payloadIn(s.dialect, nil)
		}
		all = append(all, m)
		first += len(some)
	}
	return all, nil
}
