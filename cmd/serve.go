//go:build linux

package cmd

import (
	"slices"

	"github.com/urfave/cli/v2"

	"fdkit/exec"
	"fdkit/listen"
)

func serveCommand() *cli.Command {
	return &cli.Command{
		Name:      "serve",
		Usage:     "accept connections and run a program for each, in one process",
		UsageText: "fdkit serve [OPTION...] ADDRESS... PROGRAM [ARGUMENT...]",
		Description: "It does what fdkit listen ADDRESS... | fdkit pool PROGRAM does, and has their\n" +
			"options. See fdkit-serve(1).",
		Flags:  slices.Concat(intakeFlags(), poolFlags(), privilegeFlags(), environFlags(), []cli.Flag{metricsFlag()}, verbosityFlags()),
		Action: runServe,
	}
}

func runServe(c *cli.Context) error {
	addresses, program, err := splitAddresses(c.Args().Slice())
	if err != nil {
		return err
	}
	const echo = "fdkit serve :8080 cat sends back what it gets"
	switch {
	case len(addresses) == 0:
		return usageHint(echo, "an address is missing")
	case len(program) == 0:
		return usageHint(echo, "a program is missing")
	}
	in, err := intakeOf(c, addresses, noQueue)
	if err != nil {
		return err
	}
	o, err := poolOptionsOf(c)
	if err != nil {
		return err
	}
	run, err := runnerOf(c, program, &o.confine, o.environ)
	if err != nil {
		return err
	}
	// This process gives up its privileges, and programs inherit that.
	process := exec.Confinement{User: o.confine.User, Chroot: o.confine.Chroot, NoNewPrivs: o.confine.NoNewPrivs}
	o.confine.User, o.confine.Chroot, o.confine.NoNewPrivs = nil, "", false
	signals, controls := in.signals()
	metrics, err := metricsOf(c, in.log, true, true)
	if err != nil {
		return err
	}
	defer metrics.Close()
	if err := in.bind(c, nil, metrics); err != nil {
		return err
	}
	defer in.acceptor.Close()
	if err := drop(process); err != nil {
		return err
	}
	if err := in.open(); err != nil {
		return err
	}
	run.log.journal = newJournal(run.log)
	defer run.log.journal.end()
	in.log = run.log
	pool, done := run.pool(in.acceptors, o, metrics)
	defer done()
	if in.policy.Busy != nil {
		pool.Full = in.acceptor.RefuseUntil
	}
	run.abandon = in.abandon
	ended := make(chan error, 1)
	go func() { ended <- pool.Run() }()
	for {
		select {
		case sig := <-controls:
			in.obey(sig)
		case err := <-ended:
			return err
		case <-signals:
			in.acceptor.Close()
			defer in.abandon()
			return run.finish(pool, ended, signals, o.grace)
		}
	}
}

// acceptors makes the accepting goroutine the one that starts the program: what is
// accepted has a slot already, and goes through no queue.
func (in *intake) acceptors() func(*exec.Connection) error {
	var accepted listen.Conn
	var fds [1]int
	var payload []byte
	return func(c *exec.Connection) error {
		if err := in.acceptor.Accept(&accepted); err != nil {
			return err
		}
		payload = accepted.AppendPayload(payload[:0])
		fds[0] = accepted.FD
		c.FDs, c.Payload = fds[:], payload
		return nil
	}
}
