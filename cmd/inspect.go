//go:build linux

package cmd

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"fdkit/internal/fdinfo"
	"fdkit/internal/hint"
)

func inspectCommand() *cli.Command {
	return &cli.Command{
		Name:      "inspect",
		Usage:     "tell what descriptors are, one's own or another process's",
		UsageText: "fdkit inspect [OPTION...] [FD|PID[:FD]...]",
		Description: "Without an operand: what this command has inherited. A number is a descriptor\n" +
			"if that one is inherited, else a process; :FD and PID: are never anything else.\n" +
			"See fdkit-inspect(1).",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "json", Usage: "print an object of JSON for each descriptor, with all that is known", DisableDefaultText: true},
			&cli.BoolFlag{Name: "v", Usage: "print all that is known, a line for each fact", DisableDefaultText: true},
		},
		Action: runInspect,
	}
}

func runInspect(c *cli.Context) error {
	if c.Bool("json") && c.Bool("v") {
		return usagef("options -v and --json: only one of them at a time")
	}
	if err := refuseOptions(c.Args().Slice(), "descriptor"); err != nil {
		return err
	}
	var asked []target
	for _, operand := range c.Args().Slice() {
		t, err := parseTarget(operand)
		if err != nil {
			return err
		}
		asked = append(asked, t)
	}
	i := inspection{log: loggerOf(c), out: bufio.NewWriter(c.App.Writer), format: asLine}
	switch {
	case c.Bool("json"):
		i.format = asJSON
	case c.Bool("v"):
		i.format = asFacts
	}
	if len(asked) == 0 {
		asked = []target{{whole: true}}
	}
	for _, t := range asked {
		i.target(t)
		if err := i.out.Flush(); err != nil {
			return cannotWrite(err)
		}
	}
	if i.failed {
		return quiet(exitSystem)
	}
	return nil
}

// cannotWrite is the error of what could not be printed, by the system call.
func cannotWrite(err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		err = os.NewSyscallError(path.Op, path.Err)
	}
	return fmt.Errorf("cannot write to stdout: %w", err)
}

// target is a descriptor, or all of a process.
type target struct {
	pid   int  // 0: this process
	fd    int  // if not whole
	whole bool // all that the process has, or that this one has inherited
}

// parseTarget parses FD, PID, :FD, PID: and PID:FD.
func parseTarget(operand string) (t target, err error) {
	wrong := usageHint("a descriptor is written FD, :FD or PID:FD, a process PID or PID:", "%q is neither a descriptor nor a process", operand)
	process, descriptor, colon := strings.Cut(operand, ":")
	if process == "" && descriptor == "" {
		return t, wrong
	}
	if t.pid, t.whole = 0, descriptor == ""; process != "" {
		if t.pid, err = decimal(process); err != nil {
			return t, wrong
		}
	}
	if !t.whole {
		if t.fd, err = decimal(descriptor); err != nil {
			return t, wrong
		}
	}
	switch {
	case !colon && inherited(t.pid):
		return target{fd: t.pid}, nil
	case process != "" && t.pid == 0 && !colon:
		// No process has this number.
		return target{fd: 0}, nil
	case process != "" && t.pid == 0:
		return t, wrong
	}
	return t, nil
}

// decimal parses digits and nothing else, up to what a pid_t or a descriptor can be.
func decimal(text string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 31)
	return int(n), err
}

// What one description is printed as.
func asLine(w io.Writer, d fdinfo.Description) { fmt.Fprintln(w, d.Line()) }

func asFacts(w io.Writer, d fdinfo.Description) {
	fmt.Fprint(w, d.Line(), "\n", d.Verbose("    "))
}

func asJSON(w io.Writer, d fdinfo.Description) { fmt.Fprintf(w, "%s\n", d.JSON()) }

// inspection is one run of the command.
type inspection struct {
	log    logger
	out    *bufio.Writer
	format func(io.Writer, fdinfo.Description)
	failed bool
	less   int // the process that was last said to be seen in part
}

// failure says why something is not described; the rest is.
func (i *inspection) failure(err error, format string, args ...any) {
	i.failed = true
	_ = i.out.Flush() // what came before is to be seen before; the error comes again
	err = fmt.Errorf("cannot describe "+fmt.Sprintf(format, args...)+": %w", err)
	if errors.Is(err, fs.ErrPermission) {
		err = hint.Wrap(err, "root may look at it")
	}
	i.log.error(err)
}

func (i *inspection) target(t target) {
	if t.pid == 0 {
		i.own(t)
		return
	}
	p, err := fdinfo.Open(t.pid)
	if err != nil {
		i.failure(err, "process %d", t.pid)
		return
	}
	defer p.Close()
	fds := []int{t.fd}
	if t.whole {
		if fds, err = p.List(); err != nil {
			i.failure(err, "process %d", t.pid)
			return
		}
	}
	for _, fd := range fds {
		d, err := p.Describe(fd)
		switch {
		case err == fdinfo.ErrEnded:
			i.failure(err, "process %d", t.pid)
			return
		case err == fdinfo.ErrNotOpen && t.whole: // any more
		case err != nil:
			i.failure(err, "descriptor %d of process %d", fd, t.pid)
		default:
			i.format(i.out, d)
		}
		if d.Partial != "" && i.less != t.pid {
			i.less = t.pid // once is enough
			i.log.say(isNotice, "notice", fmt.Sprintf("of sockets, pipes and memfds of process %d only what /proc has is known: %s", t.pid, d.Partial),
				"root may see more, or whoever may trace the process: see ptrace(2)", nil)
		}
	}
}

func (i *inspection) own(t target) {
	fds := []int{t.fd}
	if t.whole {
		var err error
		if fds, err = fdinfo.Inherited(); err != nil {
			i.failure(err, "what is inherited")
			return
		}
	}
	for _, fd := range fds {
		d, err := fdinfo.Describe(fd)
		if !inherited(fd) {
			err = fdinfo.ErrNotOpen // it is this program's own, if at all
		}
		if err != nil {
			i.failure(err, "descriptor %d", fd)
			continue
		}
		i.format(i.out, d)
	}
}
