//go:build linux

package cmd

import (
	"os"
	"slices"

	"github.com/urfave/cli/v2"

	"fdkit/exec"
	"fdkit/fdsend"
	"fdkit/listen"
)

func serveCommand() *cli.Command {
	return &cli.Command{
		Name:      "serve",
		Usage:     "accept connections and run a program for each, in one process",
		UsageText: "fdkit serve [OPTION...] ADDRESS... PROGRAM [ARGUMENT...]",
		Description: "It does what fdkit listen ADDRESS... | fdkit pool PROGRAM does, and has their\n" +
			"options. See fdkit-serve(1).",
		Flags: slices.Concat(intakeFlags(), poolFlags(), privilegeFlags(), environFlags(), []cli.Flag{
			metricsFlag(),
			&cli.StringFlag{Name: "takeover", Usage: "take the place of the fdkit serve with the same named `QUEUE` here, with its sockets"},
		}, clientLogFlags()),
		Action: runServe,
	}
}

func runServe(c *cli.Context) error {
	keepProcessors(poolBlockers)
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
	succession, err := successionOf(c, "takeover", in.log)
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
	meeting, sig, err := in.meet(c.String("takeover"), signals)
	if meeting != nil {
		defer meeting.Close()
	}
	if sig != nil || err != nil {
		return err
	}
	defer succession.leave()
	if succession.takeover {
		if err := succession.open(meeting); err != nil {
			return err
		}
		in.options.Kept = &succession.kept
	}
	if err := in.bind(c, false, metrics); err != nil {
		return err
	}
	defer in.close()
	defer succession.leave() // before the log ends, which is written in the background since bind
	succession.log = in.log
	if err := succession.enter(in.listeners); err != nil {
		return err
	}
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
	begun := whenReady(pool)
	ended := make(chan error, 1)
	go func() { ended <- pool.Run() }()
	for {
		select {
		case <-begun:
			succession.relieve(meeting, metrics)
			begun = nil
		case <-ready:
			run.notify.ready()
		case <-run.notify.ticks():
			run.notify.tick()
		case sig := <-controls:
			in.obey(sig)
		case err := <-ended:
			run.notify.stopping()
			return err
		case <-succession.seat.Replaced():
			succession.replaced()
			run.notify.stopping()
			in.acceptor.Leave()
			succession.leave()
			metrics.Close()
			return run.finish(pool, ended, signals, o.grace)
		case sig := <-signals:
			run.log.toldToEnd(sig)
			run.notify.stopping()
			in.acceptor.Close()
			succession.leave()
			return run.finish(pool, ended, signals, o.grace)
		}
	}
}

// meet opens the named queue whose register tells of others that can be replaced. Nothing
// goes through it. If a signal comes meanwhile, it is returned.
func (in *intake) meet(name string, signals <-chan os.Signal) (q *fdsend.Queue, sig os.Signal, err error) {
	if name == "" {
		return nil, nil, nil
	}
	notice := func(text string) { in.log.notice("%s", text) }
	sig = unless(signals, func(stop <-chan struct{}) {
		q, err = fdsend.Open(name, fdsend.Options{Notice: notice, Keeping: notice, Stop: stop})
	})
	if sig != nil {
		err = nil
	}
	return q, sig, err
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
