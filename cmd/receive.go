//go:build linux

package cmd

import (
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/urfave/cli/v2"

	"fdkit/exec"
	"fdkit/fdrecv"
)

// receiver is what the commands that receive have in common.
type receiver struct {
	log     logger
	program *exec.Program
	environ *exec.Environ
	from    string
	options fdrecv.Options
	ending  atomic.Bool // the programs are being ended by us
	notify  *notifier   // of pool
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
	program, err := exec.FindConfined(confine, c.Args().First(), c.Args().Tail()...)
	if err != nil {
		return nil, err
	}
	environ, err := exec.NewEnviron(base, c.StringSlice("accept-env")...)
	if err != nil {
		return nil, usagef("option --accept-env: %w", err)
	}
	log := loggerOf(c)
	options := fdrecv.Options(queueOptionsOf(c, log))
	switch wait := durationOf(c, "wait"); {
	case wait == 0:
		options.Wait = time.Nanosecond // look once
	case wait > 0:
		options.Wait = wait
	}
	return &receiver{log: log, program: program, environ: environ, from: c.String("from"), options: options}, nil
}

// open opens the queue. If one of the signals comes meanwhile, it is returned; the
// queue may be open all the same.
func (r *receiver) open(signals <-chan os.Signal) (q *fdrecv.Queue, sig os.Signal, err error) {
	sig = unless(signals, func(stop <-chan struct{}) {
		r.options.Stop = stop
		q, err = fdrecv.Open(r.from, r.options)
	})
	return q, sig, err
}

// close gives up the queue, and says what is lost with it.
func (r *receiver) close(q *fdrecv.Queue) {
	if lost, _ := q.Close(); lost > 0 {
		r.log.error(fmt.Errorf("nobody else holds the queue: closed %d connections that were in it", lost))
	}
}
