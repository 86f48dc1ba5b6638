//go:build linux

package cmd

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"fdkit/internal/fdinfo"
	"fdkit/internal/hint"
)

func queueCommand() *cli.Command {
	return &cli.Command{
		Name:        "queue",
		Usage:       "show what is in flight in Unix sockets, and leave it there",
		UsageText:   "fdkit queue [OPTION...] PID[:FD]...\n   fdkit queue --all [OPTION...]",
		Description: "Of a process: all its Unix sockets in which anything is. See fdkit-queue(1).",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Usage: "show every socket with descriptors in flight, of all processes", DisableDefaultText: true},
			&cli.BoolFlag{Name: "v", Usage: "with --all: also show sockets with bytes in flight and no descriptors", DisableDefaultText: true},
			&cli.BoolFlag{Name: "json", Usage: "print an object of JSON for each socket, with all that is known", DisableDefaultText: true},
		},
		Action: runQueue,
	}
}

func runQueue(c *cli.Context) error {
	operands := c.Args().Slice()
	if err := refuseOptions(operands, "process"); err != nil {
		return err
	}
	switch all := c.Bool("all"); {
	case all && len(operands) > 0:
		return usagef("option --all: %q stands for itself, and all for every process", operands[0])
	case !all && len(operands) == 0:
		return usageHint("--all looks at every process that may be looked at", "a process is missing")
	case !all && c.Bool("v"):
		return usageHint("of a process they are shown anyway", "option -v: it is for --all, to show sockets without descriptors in flight")
	}
	var asked []scope
	for _, operand := range operands {
		s, err := parseScope(operand)
		if err != nil {
			return err
		}
		asked = append(asked, s)
	}
	if c.Bool("all") {
		asked = []scope{{bytes: c.Bool("v")}}
	}
	s := &survey{log: loggerOf(c), shown: map[uint64]bool{}, print: (*inFlight).text}
	if c.Bool("json") {
		s.print = (*inFlight).json
	}
	// A signal that came while an offset is set would leave it to the program. So none
	// ends this process, until all has been looked at; the rest is only printing.
	signals := endings()
	sig := unless(signals, func(stop <-chan struct{}) {
		for _, a := range asked {
			s.look(a, stop)
		}
	})
	if sig != nil {
		return endedBy(sig)
	}
	defaultSignals()
	if _, err := c.App.Writer.Write(s.out.Bytes()); err != nil {
		return cannotWrite(err)
	}
	if s.failed {
		return quiet(exitSystem)
	}
	return nil
}

// scope is what is looked at: one socket, all of a process, or everything.
type scope struct {
	pid   int  // 0: all processes
	fd    int  // -1: all of the process
	bytes bool // of all processes: also what has bytes only
}

// one tells whether it is one socket.
func (a scope) one() bool { return a.pid != 0 && a.fd >= 0 }

// parseScope parses PID, PID: and PID:FD.
func parseScope(operand string) (scope, error) {
	process, descriptor, _ := strings.Cut(operand, ":")
	a := scope{fd: -1}
	var err, fdErr error
	if a.pid, err = decimal(process); descriptor != "" {
		a.fd, fdErr = decimal(descriptor)
	}
	if err != nil || fdErr != nil || a.pid == 0 {
		cure := "a process is written PID, one of its sockets PID:FD"
		if strings.ContainsAny(operand, "/@") {
			cure = "a queue is looked at through a process that has it: --all shows which has something"
		}
		return a, usageHint(cure, "%q is no process", operand)
	}
	return a, nil
}

// survey is one run of the command.
type survey struct {
	log    logger
	out    bytes.Buffer
	print  func(*inFlight, *bytes.Buffer)
	shown  map[uint64]bool // sockets whose queues were looked at, by inode
	failed bool
}

// failure says why something is not shown; the rest is.
func (s *survey) failure(err error, format string, args ...any) {
	s.failed = true
	s.log.error(fmt.Errorf("cannot look at "+fmt.Sprintf(format, args...)+": %w", explainTrace(err)))
}

// explainTrace gives the cure of what may not be looked at.
func explainTrace(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return hint.Wrap(err, "it takes the right to trace the process: root, or its own user where /proc/sys/kernel/yama/ptrace_scope is 0 or missing")
	}
	return explainFiles(err)
}

func (s *survey) look(a scope, stop <-chan struct{}) {
	pids := []int{a.pid}
	if a.pid == 0 {
		var err error
		if pids, err = fdinfo.Processes(); err != nil {
			s.failure(err, "/proc")
			return
		}
	}
	sockets, processes := s.find(pids, a, stop)
	hidden := s.show(sockets, a, stop)
	if processes+hidden > 0 {
		s.log.say(isNotice, "notice", "what may not be looked at: "+count(processes, "process", "processes")+", and of others "+count(hidden, "socket", "sockets"),
			"root may look at all, and others at what they may trace: see ptrace(2)", nil)
	}
}

// heldSocket is a socket, and the descriptors by which processes hold it.
type heldSocket struct {
	inode uint64
	who   []holder
}

// find returns the Unix sockets of the processes in the order in which they are found,
// each once, and how many processes may not be looked at. Of all processes only the
// sockets are returned in which something may be.
func (s *survey) find(pids []int, a scope, stop <-chan struct{}) (found []*heldSocket, unseen int) {
	by := map[uint64]*heldSocket{}
	for _, pid := range pids {
		if stopped(stop) || a.pid == 0 && pid == os.Getpid() {
			continue
		}
		switch err := s.socketsOf(pid, a, func(inode uint64, h holder) {
			if by[inode] == nil {
				by[inode] = &heldSocket{inode: inode}
				found = append(found, by[inode])
			}
			by[inode].who = append(by[inode].who, h)
		}); {
		case err == nil:
		case a.one():
			s.failure(err, "descriptor %d of process %d", a.fd, pid)
		case a.pid != 0:
			s.failure(err, "process %d", pid)
		case errors.Is(err, fs.ErrPermission):
			unseen++
		}
	}
	return found, unseen
}

var errNotUnixSocket = errors.New("it is no Unix socket")

// socketsOf yields the Unix sockets of a process that the scope has.
func (s *survey) socketsOf(pid int, a scope, yield func(inode uint64, h holder)) error {
	p, err := fdinfo.Open(pid)
	if err != nil {
		return err
	}
	defer p.Close()
	fds := []int{a.fd}
	if !a.one() {
		if fds, err = p.List(); err != nil {
			return err
		}
	}
	for _, fd := range fds {
		inode, descriptors, ok, err := p.UnixSocket(fd)
		switch {
		case a.one() && errors.Is(err, fs.ErrNotExist):
			return fdinfo.ErrNotOpen
		case a.one() && err == nil && !ok:
			return errNotUnixSocket
		case a.one() && err != nil:
			return err
		case err == nil && ok && (a.pid != 0 || a.bytes || descriptors > 0):
			yield(inode, holder{PID: pid, FD: fd, Command: p.Command()})
		}
	}
	return nil
}

// show looks at sockets, and prints those in which anything is. It returns how many of
// all processes may not be looked at.
func (s *survey) show(sockets []*heldSocket, a scope, stop <-chan struct{}) (hidden int) {
	for _, h := range sockets {
		if stopped(stop) || s.shown[h.inode] {
			continue
		}
		f, err := s.through(h)
		switch first := h.who[0]; {
		case err == fdinfo.ErrEnded, err == fdinfo.ErrNoProcess, err == fdinfo.ErrNotOpen: // meanwhile
		case a.pid == 0 && errors.Is(err, fs.ErrPermission):
			hidden++
		case err != nil:
			s.failure(err, "descriptor %d of process %d", first.FD, first.PID)
		case a.one(), f.Descriptors() > 0, f.pending && (a.pid != 0 || a.bytes):
			f.Queue = s.queued(f.own, &f.Socket, 0)
			s.print(f.inFlight, &s.out)
		}
		if f != nil {
			_ = unix.Close(f.own)
		}
	}
	return hidden
}

// copied is a socket of another process with a copy of it.
type copied struct {
	*inFlight
	own int
}

// through describes a socket with the help of the first holder that allows it.
func (s *survey) through(h *heldSocket) (f *copied, err error) {
	for _, who := range h.who {
		var p *fdinfo.Process
		if p, err = fdinfo.Open(who.PID); err != nil {
			continue
		}
		f, err = copyOf(p, who.FD, h.inode)
		p.Close()
		if err == nil {
			f.Holders = h.who
			return f, nil
		}
	}
	return nil, err
}

func copyOf(p *fdinfo.Process, fd int, inode uint64) (*copied, error) {
	own, err := p.Copy(fd)
	if err != nil {
		return nil, err
	}
	d, err := p.Describe(fd)
	here, ownErr := fdinfo.Describe(own)
	switch err = errors.Join(err, ownErr); {
	case err == nil && (d.Inode != inode || here.Inode != inode):
		err = fdinfo.ErrNotOpen // it is another one by now
		fallthrough
	case err != nil:
		_ = unix.Close(own)
		return nil, err
	}
	return &copied{&inFlight{Socket: d, pending: pending(&d, own)}, own}, nil
}

// pending tells whether anything can be in the socket's queue: a message of no bytes is
// not counted by what counts bytes.
func pending(d *fdinfo.Description, fd int) bool {
	if s := d.Socket; s == nil || s.Unread != nil && *s.Unread > 0 || s.Type != "dgram" && !s.Listening {
		return s != nil && s.Unread != nil && *s.Unread > 0
	}
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	_, err := unix.Poll(fds, 0)
	return err == nil && fds[0].Revents&unix.POLLIN != 0
}

func stopped(stop <-chan struct{}) bool {
	select {
	case <-stop:
		return true
	default:
		return false
	}
}
