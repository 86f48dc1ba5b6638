//go:build linux

package cmd

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"fdkit/internal/fdinfo"
	"fdkit/internal/hint"
	"fdkit/internal/queue"
)

func queueCommand() *cli.Command {
	return &cli.Command{
		Name:      "queue",
		Usage:     "show what is in flight in Unix sockets, and leave it there",
		UsageText: "fdkit queue [OPTION...] PID[:FD]|QUEUE...\n   fdkit queue --all [OPTION...]",
		Description: "Of a process: all its Unix sockets in which anything is. QUEUE is the name of a\n" +
			"queue of fdkit's, /PATH, ./PATH or @NAME. See fdkit-queue(1).",
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
		return usageHint("--all looks at every process that may be looked at", "a process or a queue is missing")
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
		return fmt.Errorf("cannot write to stdout: %w", err)
	}
	if s.failed {
		return quiet(exitSystem)
	}
	return nil
}

// scope is what an operand of fdkit queue stands for: one socket, all of a process, a
// queue of fdkit's, or everything.
type scope struct {
	name  string // of a queue
	pid   int    // 0: all processes
	fd    int    // -1: all of the process
	bytes bool   // of all processes: also what has bytes only
}

// parseScope parses PID, PID:FD, /PATH, ./PATH and @NAME.
func parseScope(operand string) (scope, error) {
	if strings.HasPrefix(operand, "/") || strings.HasPrefix(operand, ".") || strings.HasPrefix(operand, "@") {
		return scope{name: operand}, nil
	}
	t, err := parseTarget(operand)
	process, _, _ := strings.Cut(operand, ":")
	if pid, pidErr := decimal(process); err != nil || pidErr != nil || pid == 0 {
		return scope{}, usageHint("a process is written PID, a socket PID:FD, a queue of fdkit /PATH, ./PATH or @NAME",
			"%q is neither a process nor a queue", operand)
	} else if t.pid == 0 {
		return scope{pid: pid, fd: -1}, nil // the number is an own descriptor's, too
	}
	if t.whole {
		t.fd = -1
	}
	return scope{pid: t.pid, fd: t.fd}, nil
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
	if a.name != "" {
		s.named(a.name, stop)
		return
	}
	pids := []int{a.pid}
	if a.pid == 0 {
		var err error
		if pids, err = fdinfo.Processes(); err != nil {
			s.failure(err, "/proc")
			return
		}
	}
	sockets, unseen := s.find(pids, a, stop)
	s.show(sockets, func(f *inFlight) bool {
		return a.fd >= 0 && a.pid != 0 || f.Descriptors() > 0 || (a.pid != 0 || a.bytes) && f.pending
	}, stop)
	if unseen > 0 {
		s.log.say(isNotice, "notice", count(unseen, "process", "processes")+" may not be looked at",
			"root may look at all, and others at what they may trace: see ptrace(2)", nil)
	}
}

// holders are the descriptors by which processes hold one socket.
type holders struct {
	inode uint64
	who   []holder
}

// find returns the Unix sockets of the processes in the order in which they are found,
// each once, and how many processes may not be looked at. Of all processes only the
// sockets are returned in which something may be.
func (s *survey) find(pids []int, a scope, stop <-chan struct{}) (found []*holders, unseen int) {
	by := map[uint64]*holders{}
	for _, pid := range pids {
		if stopped(stop) || a.pid == 0 && pid == os.Getpid() {
			continue
		}
		switch err := s.socketsOf(pid, a, func(inode uint64, h holder) {
			if by[inode] == nil {
				by[inode] = &holders{inode: inode}
				found = append(found, by[inode])
			}
			by[inode].who = append(by[inode].who, h)
		}); {
		case err == nil:
		case a.pid != 0 && a.fd >= 0:
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
	if one := a.pid != 0 && a.fd >= 0; !one {
		if fds, err = p.List(); err != nil {
			return err
		}
	}
	for _, fd := range fds {
		inode, descriptors, ok, err := p.UnixSocket(fd)
		switch one := a.pid != 0 && a.fd >= 0; {
		case one && errors.Is(err, fs.ErrNotExist):
			return fdinfo.ErrNotOpen
		case one && err == nil && !ok:
			return errNotUnixSocket
		case one && err != nil:
			return err
		case err == nil && ok && (a.pid != 0 || a.bytes || descriptors > 0):
			yield(inode, holder{PID: pid, FD: fd, Command: p.Command()})
		}
	}
	return nil
}

// show looks at sockets, and prints those that are wanted.
func (s *survey) show(sockets []*holders, wanted func(*inFlight) bool, stop <-chan struct{}) {
	for _, h := range sockets {
		if stopped(stop) || s.shown[h.inode] {
			continue
		}
		f, err := s.through(h)
		switch first := h.who[0]; {
		case err == fdinfo.ErrEnded, err == fdinfo.ErrNoProcess, err == fdinfo.ErrNotOpen: // meanwhile
		case err != nil:
			s.failure(err, "descriptor %d of process %d", first.FD, first.PID)
		case wanted(f.inFlight):
			f.Queue = s.queued(f.own, &f.Socket, 0)
			s.print(f.inFlight, &s.out)
		}
		if f != nil {
			_ = unix.Close(f.own)
		}
	}
}

// copied is a socket of another process with a copy of it.
type copied struct {
	*inFlight
	own int
}

// through describes a socket with the help of the first holder that allows it.
func (s *survey) through(h *holders) (f *copied, err error) {
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

// named shows a queue of fdkit's, in which this process takes part meanwhile.
func (s *survey) named(name string, stop <-chan struct{}) {
	q, err := queue.OpenReceive(name, queue.Options{Wait: 1, Stop: stop, Notice: func(text string) { s.log.notice("%s", text) }})
	if err != nil {
		s.failed = true
		s.log.error(err)
		return
	}
	defer func() {
		if lost, _ := q.Close(); lost > 0 {
			s.log.error(fmt.Errorf("nobody else holds queue %s any more: closed %s that were in it", name, count(lost, "message", "messages")))
		}
	}()
	var st unix.Stat_t
	if err := unix.Fstat(q.FD, &st); err != nil {
		s.failure(os.NewSyscallError("fstat", err), "queue %s", name)
		return
	}
	pids, err := fdinfo.Processes()
	if err != nil {
		s.failure(err, "/proc")
		return
	}
	found, _ := s.find(pids, scope{bytes: true}, stop)
	found = slices.DeleteFunc(found, func(h *holders) bool { return h.inode != st.Ino })
	if len(found) > 0 {
		s.show(found, func(*inFlight) bool { return true }, stop)
		return
	}
	// Who holds it may not be looked at.
	if d, err := fdinfo.Describe(q.FD); err == nil && !s.shown[st.Ino] {
		f := &inFlight{Socket: d}
		f.Queue = s.queued(q.FD, &d, 0)
		s.print(f, &s.out)
	}
}

func stopped(stop <-chan struct{}) bool {
	select {
	case <-stop:
		return true
	default:
		return false
	}
}
