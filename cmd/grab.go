//go:build linux

package cmd

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"fdkit/exec"
	"fdkit/fdsend"
	"fdkit/internal/hint"
)

func grabCommand() *cli.Command {
	return &cli.Command{
		Name:      "grab",
		Usage:     "become a program with copies of another process's descriptors, or send them",
		UsageText: "fdkit grab [OPTION...] PID:FD... [[--] PROGRAM [ARGUMENT...]]",
		Description: "FD is a number, stdin, stdout, stderr, or the address of a socket that listens.\n" +
			"PROGRAM has one descriptor as stdin, or as stdout if nothing can be read from it;\n" +
			"several, and sockets that listen, from 3 on. See fdkit-grab(1).",
		Flags: slices.Concat([]cli.Flag{
			&cli.StringFlag{Name: "to", Usage: "without PROGRAM: send to `QUEUE` instead of stdout"},
			&cli.GenericFlag{Name: "fd", Usage: "place the descriptor at `N[,N...]`, or each of several at its own N", Value: &places{}},
			&cli.StringSliceFlag{Name: "name", Usage: "call the next descriptor `NAME`; one for each, in order"},
			&cli.BoolFlag{Name: "blocking", Usage: "clear O_NONBLOCK, for the other process too", DisableDefaultText: true},
		}, queueFlags(), verbosityFlags()),
		Action: runGrab,
	}
}

func runGrab(c *cli.Context) error {
	sources, command, err := splitSources(c.Args().Slice())
	if err != nil {
		return err
	}
	s := &sending{log: loggerOf(c), sources: sources, timeout: -1}
	s.payload.names = c.StringSlice("name")
	if err := checkNames(s.payload.names, len(sources), "descriptor", "descriptors", checkListenName); err != nil {
		return err
	}
	if len(sources) > fdsend.MaxFDs {
		return usagef("there are %d descriptors, and a message has at most %d (SCM_MAX_FD)", len(sources), fdsend.MaxFDs)
	}
	if command == nil {
		return grabAndSend(c, s)
	}
	for _, option := range []string{"to", "mode", "owner"} {
		if c.IsSet(option) {
			return usagef("option --%s: a program is given, so nothing is sent", option)
		}
	}
	at := c.Generic("fd").(*places).list
	if at != nil && len(sources) > 1 && len(at) != len(sources) {
		return usageHint("each of several has one place, in order", "option --fd: there are %s for %d descriptors",
			count(len(at), "place", "places"), len(sources))
	}
	if once := slices.Compact(slices.Sorted(slices.Values(at))); len(sources) > 1 && len(once) != len(at) {
		return usagef("option --fd: there is one descriptor at each place")
	}
	program, err := exec.Find(command[0], command[1:]...)
	if err != nil {
		return err
	}
	fds, release, err := s.acquire(nil)
	defer release()
	if err != nil {
		return err
	}
	if err := s.mode(fds, c.Bool("blocking")); err != nil {
		return err
	}
	return s.become(program, fds, at)
}

func grabAndSend(c *cli.Context, s *sending) error {
	for _, option := range []string{"fd", "blocking"} {
		if c.IsSet(option) {
			return usageHint("the program stands after the descriptors", "option --%s: it is for a program, and none is given", option)
		}
	}
	s.payload = s.payload.to(c.String("to"))
	if err := checkQueue(c, "to"); err != nil {
		return err
	}
	return s.send(c)
}

// splitSources divides operands into descriptors of other processes and the program
// that follows them. An operand that begins with digits and a colon is a descriptor; an
// operand -- ends them. The errors are those of wrong usage.
func splitSources(operands []string) (sources []source, program []string, err error) {
	i := 0
	for ; i < len(operands); i++ {
		pid, _, found := strings.Cut(operands[i], ":")
		if !found || pid == "" || strings.Trim(pid, "0123456789") != "" {
			break
		}
		s, err := parseSource(operands[i])
		if err != nil {
			return nil, nil, err
		}
		sources = append(sources, s)
	}
	program = operands[i:]
	ended := len(program) > 0 && program[0] == endOfAddresses
	if ended {
		program = program[1:]
	}
	switch {
	case len(sources) == 0:
		return nil, nil, usageHint("of process 4711, 4711:3 is descriptor 3", "a descriptor is missing: PID:FD")
	case len(program) == 0 && ended:
		return nil, nil, usagef("a program is missing after --")
	case len(program) == 0:
		return sources, nil, nil
	case program[0] == "":
		return nil, nil, usagef("the program's name is empty")
	case !ended:
		return sources, program, refuseOptions(program[:1], "descriptor")
	}
	return sources, program, nil
}

// mode sees to O_NONBLOCK, which belongs to the open file description: the other
// process, whose event loop may rely on it, has what is set here.
func (s *sending) mode(fds []int, blocking bool) error {
	for i, fd := range fds {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err != nil || flags&unix.O_NONBLOCK == 0 || flags&unix.O_PATH != 0 {
			continue
		}
		if !blocking {
			if s.log.enabled(isNotice) {
				s.log.say(isNotice, "notice", s.sources[i].text+" is non-blocking, and many programs fail with that (EAGAIN)",
					"--blocking clears the flag, for the other process too", nil)
			}
			continue
		}
		if err := unix.SetNonblock(fd, false); err != nil {
			return fmt.Errorf("cannot make %s blocking: %w", s.sources[i].text, os.NewSyscallError("fcntl", err))
		}
	}
	return nil
}

// become becomes the program with the descriptors at those places, or at the usual ones
// if they are nil.
func (s *sending) become(program *exec.Program, fds, at []int) error {
	const first = 3 // SD_LISTEN_FDS_START, sd_listen_fds(3)
	passed := true  // as sd_listen_fds(3) has it
	var all []exec.Place
	switch {
	case at == nil && len(fds) == 1 && !listens(fds[0]):
		all, passed = []exec.Place{{FD: fds[0], At: usualPlace(fds[0])}}, false
	case at != nil && len(fds) == 1:
		for _, n := range at {
			all = append(all, exec.Place{FD: fds[0], At: n})
		}
		passed = len(at) == 1 && at[0] == first
	default:
		for i, fd := range fds {
			n := first + i
			if at != nil {
				n = at[i]
			}
			all, passed = append(all, exec.Place{FD: fd, At: n}), passed && n == first+i
		}
	}
	env, err := s.environ(fds, passed)
	if err != nil {
		return err
	}
	err = program.BecomeWith(all, env)
	if place, ok := errors.AsType[*exec.PlaceError](err); ok {
		err = hint.Wrap(fmt.Errorf("cannot place a descriptor at %d: %w", place.Place, place.Err),
			"ulimit -n shows and raises the limit (RLIMIT_NOFILE)")
		if at != nil {
			err = usagef("option --fd: %w", err)
		}
	}
	return err
}

// usualPlace is stdin, or stdout for what can only be written to.
func usualPlace(fd int) int {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err == nil && flags&unix.O_ACCMODE == unix.O_WRONLY && flags&unix.O_PATH == 0 {
		return 1
	}
	return 0
}

func listens(fd int) bool {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	return err == nil && n != 0
}

// environ returns the program's environment. It describes a connection, if that is all
// there is, and what is passed as systemd does.
func (s *sending) environ(fds []int, passed bool) ([]string, error) {
	base := withoutSockets(os.Environ())
	if passed {
		names := s.payload.names
		if names == nil {
			names = slices.Repeat([]string{"unknown"}, len(fds)) // as sd_listen_fds_with_names(3) has it
		}
		base = append(base, "LISTEN_PID="+strconv.Itoa(os.Getpid()), "LISTEN_FDS="+strconv.Itoa(len(fds)),
			"LISTEN_FDNAMES="+strings.Join(names, ":"))
	}
	environ, err := exec.NewEnviron(base)
	if err != nil {
		return nil, err
	}
	payload := []byte(fdsend.Begin) // nothing is known
	if conn, ok := describe(fds[0]); ok && len(fds) == 1 {
		payload = conn.AppendVars(payload)
	}
	return environ.For(fds[0], payload), nil
}
