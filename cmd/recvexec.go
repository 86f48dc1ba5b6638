//go:build linux

package cmd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"fdkit/exec"
	"fdkit/fdrecv"
)

const recvExec = "recv-exec"

func recvExecCommand() *cli.Command {
	return &cli.Command{
		Name:        recvExec,
		Usage:       "receive one descriptor and become a program with it",
		UsageText:   "fdkit recv-exec [OPTION...] PROGRAM [ARGUMENT...]",
		Description: "PROGRAM has the descriptor as stdin and stdout. See fdkit-recv-exec(1).",
		Flags: append(receiveFlags(),
			&cli.GenericFlag{Name: "fd", Usage: "place the descriptor at `N[,N...]` instead of 0,1", Value: &places{list: []int{0, 1}}, DefaultText: "0,1"},
			&cli.BoolFlag{Name: "stderr", Usage: "place it at 2 as well", DisableDefaultText: true},
			logFlag(),
		),
		Action: runRecvExec,
	}
}

// places is the value of an option that takes descriptor numbers.
type places struct{ list []int }

func (p *places) Set(text string) error {
	p.list = nil
	for one := range strings.SplitSeq(text, ",") {
		fd, err := strconv.ParseUint(one, 10, 20) // the kernel's own limit is 2^20, nr_open in proc(5)
		if err != nil {
			return fmt.Errorf("%q is no descriptor number", one)
		}
		p.list = append(p.list, int(fd))
	}
	return nil
}

func (p *places) String() string { return "" }

func runRecvExec(c *cli.Context) error {
	places := c.Generic("fd").(*places).list
	if c.Bool("stderr") {
		places = append(places, 2)
	}
	r, err := receiverOf(c, &exec.Confinement{}, withoutManager(os.Environ()))
	if err != nil {
		return err
	}
	q, m, err := r.first()
	switch {
	case errors.Is(err, fdrecv.ErrEnded):
		return quiet(exitNothing)
	case err != nil:
		return err
	}
	env := r.environ.For(m.FDs[0], m.Payload)
	r.close(q)
	err = r.program.Become(m.FDs[0], places, env)
	if place, ok := errors.AsType[*exec.PlaceError](err); ok {
		err = usagef("option --fd: %w", place)
	}
	return err
}

// endedBy is the exit status that the shell gives a command which a signal ended.
func endedBy(sig os.Signal) error { return quiet(128 + int(sig.(syscall.Signal))) }

// first opens the queue and receives the first message that has a descriptor.
func (r *receiver) first() (*fdrecv.Queue, fdrecv.Message, error) {
	if r.from != "" || r.dialect != nil || !stdinIsReady() {
		return r.await(nil)
	}
	// Somebody sends to stdin already, so there is little to wait for, and nothing that a
	// signal would have to remove. So the queue is opened, and what is in it is taken,
	// without the threads and system calls of handlers, which take a third of the time
	// until exec.
	q, err := fdrecv.Open("", r.options)
	if err != nil {
		return nil, fdrecv.Message{}, err
	}
	receiver := q.Receiver()
	m, _ := r.one(func(m *fdrecv.Message) error {
		came, err := receiver.ReceiveNow(m)
		if !came && err == nil {
			err = errEmpty
		}
		return err
	})
	if len(m.FDs) > 0 {
		return q, m, nil
	}
	return r.await(q) // finds any lasting error again
}

// stdinIsReady tells whether a sender has written to the pipe or socket at stdin.
func stdinIsReady() bool {
	fds := []unix.PollFd{{Fd: 0, Events: unix.POLLIN}}
	_, err := unix.Poll(fds, 0)
	return err == nil && fds[0].Revents&unix.POLLIN != 0
}

var errEmpty = errors.New("no message is there")

// await is first that waits, for a queue that is open unless it is nil. A signal that comes
// while there is no connection ends the wait, and removes what this process has made; later
// ones are for the program.
func (r *receiver) await(q *fdrecv.Queue) (_ *fdrecv.Queue, m fdrecv.Message, err error) {
	startTimers()
	signals := endings()
	var sig os.Signal
	if q == nil {
		q, sig, err = r.open(signals)
	}
	switch {
	case sig != nil && err != nil:
		return nil, m, endedBy(sig)
	case err != nil:
		return nil, m, err
	}
	if sig == nil {
		sig = unless(signals, func(stop <-chan struct{}) {
			go func() {
				<-stop
				q.Stop()
			}()
			m, err = r.one(r.messages(q).Receive)
		})
	}
	if len(m.FDs) > 0 {
		return q, m, nil
	}
	r.close(q)
	if sig != nil {
		err = endedBy(sig)
	}
	return nil, m, err
}

// one receives the one message that has a descriptor.
func (r *receiver) one(receive func(*fdrecv.Message) error) (m fdrecv.Message, err error) {
	for {
		err := receive(&m)
		switch {
		case errors.Is(err, io.EOF):
			return m, quiet(exitNothing)
		case r.lost(err):
			r.log.error(fmt.Errorf("a connection is lost: %w", err))
		case err != nil:
			return m, err
		case len(m.FDs) == 0:
			r.log.error(errors.New("a message came without a descriptor"))
		default:
			if extra := m.FDs[1:]; len(extra) > 0 {
				r.log.error(errors.New("a message came with " + count(len(extra),
					"more descriptor than one connection; it is closed", "more descriptors than one connection; they are closed")))
				for _, fd := range extra {
					_ = unix.Close(fd)
				}
			}
			return m, nil
		}
	}
}
