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
		Flags:  slices.Concat(intakeFlags(), poolFlags(), privilegeFlags(), environFlags(), []cli.Flag{metricsFlag()}, clientLogFlags()),
		Action: runServe,
	}
}

func runServe(c *cli.Context) error {
	addresses, program, err := splitAddresses(c.Args().Slice())
	if err != nil {
		return err
	}
	if len(program) == 0 {
		return usageHint("fdkit serve :8080 cat sends back what it gets", "a program is missing")
	}
	in, err := intakeOf(c, addresses, noQueue)
	if err != nil {
		return addressError(err, addresses)
	}
	o, err := poolOptionsOf(c)
	if err != nil {
		return err
	}
	run, err := runnerOf(c, program, &o.confine, o.environ)
	if err != nil {
		return programError(err, program[0])
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
	if err := in.bind(c, false, metrics); err != nil {
		return err
	}
	defer in.close()
	run.log = in.log
	// Before another root directory hides the socket.
	in.notify = newNotifier(in.log)
	run.notify = in.notify
	defer in.notify.end()
	if err := drop(process); err != nil {
		return err
	}
	if err := in.open(); err != nil {
		return err
	}
	pool, done := run.pool(in.acceptors, o, metrics)
	defer done()
	if in.policy.Busy != nil {
		pool.Full = in.acceptor.RefuseUntil
	}
	run.waiting, run.abandon = in.acceptor.Waiting, in.abandon
	ready := run.notify.follow(pool)
	ended := make(chan error, 1)
	go func() { ended <- pool.Run() }()
	for {
		select {
		case <-ready:
			run.notify.ready()
		case <-run.notify.ticks():
			run.notify.tick()
		case sig := <-controls:
			in.obey(sig)
		case err := <-ended:
			run.notify.stopping()
			return err
		case sig := <-signals:
			run.log.toldToEnd(sig)
			run.notify.stopping()
			in.acceptor.Close()
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
