//go:build linux

package cmd

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/urfave/cli/v2"

	"fdkit/internal/fdinfo"
	"fdkit/internal/hint"
	"fdkit/internal/holders"
)

func whoCommand() *cli.Command {
	return &cli.Command{
		Name:      "who",
		Usage:     "tell which processes hold an open socket, pipe or file",
		UsageText: "fdkit who [OPTION...] FD|PID:FD|PATH|INODE|ADDRESS...",
		Description: "A number is a descriptor if that one is inherited, else the inode of a socket or\n" +
			"pipe, which is also written socket:[N] or pipe:[N]. ADDRESS is where a socket\n" +
			"listens: :8080, udp::53, unix:/run/a.sock. See fdkit-who(1).",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "json", Usage: "print an object of JSON for each thing that is held", DisableDefaultText: true},
		},
		Action: runWho,
	}
}

func runWho(c *cli.Context) error {
	operands := c.Args().Slice()
	if len(operands) == 0 {
		return usageHint("fdkit who :8080 tells who listens there, fdkit who 4711:3 who has that descriptor's file", "an operand is missing")
	}
	if err := refuseOptions(operands, "operand"); err != nil {
		return err
	}
	w := who{log: loggerOf(c), out: bufio.NewWriter(c.App.Writer), print: asText}
	if c.Bool("json") {
		w.print = asObject
	}
	for _, operand := range operands {
		q, err := parseQuestion(operand)
		if err != nil {
			return err
		}
		w.questions = append(w.questions, q)
	}
	// A look into a queue is not to be left off in the middle.
	signals := endings()
	var err error
	if sig := unless(signals, func(stop <-chan struct{}) { err = w.answer(stop) }); sig != nil {
		return endedBy(sig)
	}
	return err
}

// question is an operand, and what is to be told of it.
type question struct {
	operand string
	things  func() ([]subject, error) // what it means, as things are now
}

// subject is one thing that a question is about.
type subject struct {
	holders.Thing
	what   fdinfo.Description
	unsure bool // whether there is such a thing: it is told of only if somebody holds it
}

// who is one run of the command.
type who struct {
	log       logger
	out       *bufio.Writer
	print     func(*bufio.Writer, answer)
	questions []question
}

// answer looks once for all, and prints. It ends early, and then prints nothing, when
// stop is closed.
func (w *who) answer(stop <-chan struct{}) error {
	var things []holders.Thing
	answers := make([][]answer, len(w.questions))
	failed := false
	failure := func(q question, err error) {
		failed = true
		if errors.Is(err, fs.ErrPermission) {
			err = hint.Wrap(err, "root may look at it")
		}
		w.log.error(fmt.Errorf("cannot tell who holds %s: %w", q.operand, err))
	}
	for i, q := range w.questions {
		subjects, err := q.things()
		if err != nil {
			failure(q, err)
			continue
		}
		for _, s := range subjects {
			peer, err := holders.PeerOf(s.Thing)
			if err != nil {
				w.log.notice("the other end of %s is not known: %v", q.operand, err)
			}
			a := answer{operand: q.operand, subject: s, peer: peer, first: len(things)}
			if things = append(things, s.Thing); peer != nil && peer.Inode != 0 {
				things = append(things, peer.Thing())
			}
			answers[i] = append(answers[i], a)
		}
		if subjects == nil {
			answers[i] = []answer{{operand: q.operand, first: -1}}
		}
	}
	found, err := holders.Find(things, stop)
	if err != nil {
		return fmt.Errorf("cannot look at all processes: %w", explainFiles(err))
	}
	select {
	case <-stop:
		return nil
	default:
	}
	nobody := false
	for _, of := range answers {
		held := false
		for i := range of {
			of[i].fill(found)
			held = held || len(of[i].holders) > 0
		}
		for i, a := range of {
			if !a.subject.unsure || len(a.holders) > 0 || !held && i == 0 {
				w.print(w.out, a)
			}
		}
		nobody = nobody || of != nil && !held
	}
	if err := w.out.Flush(); err != nil {
		if path, ok := errors.AsType[*fs.PathError](err); ok {
			err = os.NewSyscallError(path.Op, path.Err)
		}
		return fmt.Errorf("cannot write to stdout: %w", err)
	}
	w.unseen(found)
	switch {
	case failed:
		return quiet(exitSystem)
	case nobody:
		return quiet(exitNothing)
	}
	return nil
}

// unseen says what could not be looked at.
func (w *who) unseen(found holders.Found) {
	if found.Processes > 0 && w.log.enabled(isNotice) {
		cure := "root may look at all"
		if os.Geteuid() == 0 {
			cure = "" // without CAP_SYS_PTRACE, or a security module forbids it
		}
		w.log.say(isNotice, "notice", count(found.Processes, "process", "processes")+" could not be looked at", cure, nil)
	}
	if found.Queues > 0 {
		w.log.notice("descriptors are in the queues of %s that could not be looked into", count(found.Queues, "socket", "sockets"))
	}
}
