//go:build linux

package cmd

import (
	"errors"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/urfave/cli/v2"

	"fdkit/exec"
	"fdkit/fdrecv"
	"fdkit/internal/proto"
)

// runner is what the commands that run programs on connections have in common.
type runner struct {
	log     logger
	program *exec.Program
	environ *exec.Environ
	ending  atomic.Bool // the programs are being ended by us
	waiting func() int  // how many connections were accepted and are yet to come; nil: none
	abandon func()      // gives them up; may be nil
	notify  *notifier
}

// runnerOf checks that the program can be run, in the confinement. It will inherit the
// variables in base.
func runnerOf(c *cli.Context, operands []string, confine *exec.Confinement, base []string) (*runner, error) {
	program, err := exec.FindConfined(confine, operands[0], operands[1:]...)
	if err != nil {
		return nil, err
	}
	environ, err := exec.NewEnviron(base, c.StringSlice("accept-env")...)
	if err != nil {
		return nil, usagef("option --accept-env: %w", err)
	}
	environ.AddDialects(dialectsOf(c)...)
	return &runner{log: loggerOf(c), program: program, environ: environ}, nil
}

// receiver is what the commands that receive have in common.
type receiver struct {
	*runner
	from    string
	options fdrecv.Options
	dialect *proto.Dialect // nil: of fdkit, or whatever comes
	speaker *speaker       // once it is open, with a dialect
}

// receiverOf checks all that can be checked before a connection is taken. The
// program will run in the confinement, and inherit the variables in base.
func receiverOf(c *cli.Context, confine *exec.Confinement, base []string) (*receiver, error) {
	name := "fdkit " + c.Command.Name
	if c.NArg() == 0 || c.Args().First() == "" {
		return nil, usageHint(name+" cat sends back what it gets", "a program is missing")
	}
	if err := checkQueue(c, "from"); err != nil {
		return nil, err
	}
	if err := checkProto(c, "from"); err != nil {
		return nil, err
	}
	run, err := runnerOf(c, c.Args().Slice(), confine, base)
	if err != nil {
		return nil, err
	}
	options := fdrecv.Options(queueOptionsOf(c, run.log))
	options.Wait = waitOf(c)
	return &receiver{runner: run, from: c.String("from"), options: options, dialect: protoOf(c)}, nil
}

// waitOf returns what option --wait says, as fdsend.Options and fdrecv.Options have it.
func waitOf(c *cli.Context) time.Duration {
	switch wait := durationOf(c, "wait"); {
	case wait == 0:
		return time.Nanosecond // look once
	case wait > 0:
		return wait
	}
	return 0
}

// open opens the queue. If one of the signals comes meanwhile, it is returned; the
// queue may be open all the same.
func (r *receiver) open(signals <-chan os.Signal) (q *fdrecv.Queue, sig os.Signal, err error) {
	sig = unless(signals, func(stop <-chan struct{}) {
		r.options.Stop = stop
		if q, err = fdrecv.Open(r.from, r.options); err != nil || r.dialect == nil {
			return
		}
		if r.speaker, err = speakFrom(q, r.dialect, stop); err != nil {
			_, _ = q.Close()
		}
	})
	return q, sig, err
}

// messages returns what one goroutine receives from.
func (r *receiver) messages(q *fdrecv.Queue) messages {
	if r.speaker != nil {
		return r.speaker
	}
	return q.Receiver()
}

// lost tells whether err is that of one message, after which others can be received.
func (r *receiver) lost(err error) bool {
	if r.speaker != nil {
		return r.speaker.lost(err)
	}
	_, lost := errors.AsType[*fdrecv.LostError](err)
	return lost
}

// close gives up the queue.
func (r *receiver) close(q *fdrecv.Queue) {
	closeQueue(r.log, q)
	if r.speaker != nil {
		r.speaker.close()
	}
}

// closeQueue gives up the queue, and says what is lost with it.
func closeQueue(log logger, q *fdrecv.Queue) {
	if lost, _ := q.Close(); lost > 0 {
		log.event(isError, "closed", "nobody else holds the queue: closed "+count(lost, "connection that was", "connections that were")+" in it",
			slog.Int("connections", lost))
	}
}
