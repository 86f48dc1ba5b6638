//go:build linux

package cmd

import (
	"os"
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
	open    func() (*fdrecv.Queue, error)
}

// receiverOf checks all that can be checked before a connection is taken.
func receiverOf(c *cli.Context) (*receiver, error) {
	name := "fdkit " + c.Command.Name
	if c.NArg() == 0 || c.Args().First() == "" {
		return nil, usageHint(name+" cat sends back what it gets", "a program is missing")
	}
	program, err := exec.Find(c.Args().First(), c.Args().Tail()...)
	if err != nil {
		return nil, err
	}
	environ, err := exec.NewEnviron(os.Environ(), c.StringSlice("accept-env")...)
	if err != nil {
		return nil, usagef("option --accept-env: %w", err)
	}
	log := loggerOf(c)
	return &receiver{log, program, environ, func() (*fdrecv.Queue, error) {
		o := fdrecv.Options(queueOptionsOf(c, log))
		switch wait := durationOf(c, "wait"); {
		case wait == 0:
			o.Wait = time.Nanosecond // look once
		case wait > 0:
			o.Wait = wait
		}
		return fdrecv.Open(c.String("from"), o)
	}}, nil
}
