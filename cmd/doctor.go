//go:build linux

package cmd

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"fdkit/internal/doctor"
)

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name:        "doctor",
		Usage:       "find out what decides on this machine whether descriptors pass",
		UsageText:   "fdkit doctor [OPTION...]",
		Description: "Exit status 1 if there is an error among the findings. See fdkit-doctor(1).",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "json", Usage: "print an object of JSON for each check", DisableDefaultText: true},
			&cli.GenericFlag{Name: "pid", Usage: "look at the limits and the confinement of process `PID`", Value: &number{min: 1, max: math.MaxInt32}, DefaultText: "none"},
			numberFlag("sndbuf", "measure a queue with an SO_SNDBUF of `BYTES`", 1, 1<<30, doctor.QueueBuffer),
			&cli.GenericFlag{Name: "user", Usage: "count what is in flight of `USER`", Value: &owner{}},
			&cli.BoolFlag{Name: "v", Usage: "print all checks, also those that have found nothing", DisableDefaultText: true},
		},
		Action: runDoctor,
	}
}

func runDoctor(c *cli.Context) error {
	if c.Bool("json") && c.Bool("v") {
		return usagef("options -v and --json: only one of them at a time")
	}
	if c.NArg() > 0 {
		return usageHint("fdkit doctor --pid PID looks at a process", "%q is one too many: there are no operands", c.Args().First())
	}
	m := doctor.NewMachine()
	m.SendBuffer, m.Child = numberOf(c, "sndbuf"), doctorChild
	if m.PID = numberOf(c, "pid"); m.PID != 0 {
		if err := unix.Kill(m.PID, 0); errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("there is no process %d", m.PID)
		}
	}
	if user := c.Generic("user").(*owner); user.gid != nil {
		return usagef("option --user: a group has no limit")
	} else if user.uid != nil {
		m.UID = *user.uid
	}
	findings := m.Examine()
	out := bufio.NewWriter(c.App.Writer)
	if c.Bool("json") {
		for _, f := range findings {
			line, _ := json.Marshal(f) // strings only
			fmt.Fprintf(out, "%s\n", line)
		}
	} else {
		report(out, findings, c.Bool("v"))
	}
	if err := out.Flush(); err != nil {
		if path, ok := errors.AsType[*fs.PathError](err); ok {
			err = os.NewSyscallError(path.Op, path.Err)
		}
		return fmt.Errorf("cannot write to stdout: %w", err)
	}
	for _, f := range findings {
		if f.Severity == doctor.Error {
			return quiet(exitFound)
		}
	}
	return nil
}

// report prints the findings, the worst ones last: there the reader is.
func report(out *bufio.Writer, findings []doctor.Finding, all bool) {
	var counts []string
	for _, severity := range doctor.Severities {
		n := 0
		for _, f := range findings {
			if f.Severity != severity {
				continue
			}
			n++
			if !all && severity == doctor.OK {
				continue
			}
			fmt.Fprintf(out, "%-8s%-21s%s: %s", f.Severity, f.Check, f.Value, f.Meaning)
			if f.Change != "" {
				fmt.Fprintf(out, "; to change it: %s", f.Change)
			}
			fmt.Fprintln(out)
		}
		word := strings.TrimSuffix(count(n, string(severity), string(severity)+"s"), "oks")
		if severity == doctor.OK {
			word = strconv.Itoa(n) + " ok"
		}
		counts = append(counts, word)
	}
	fmt.Fprintf(out, "%d checks: %s\n", len(findings), strings.Join(counts, ", "))
}

// doctorChild starts a process that does nothing but to hold the descriptor: fdkit
// recv-exec, which waits for a connection through it until it is closed at our side.
func doctorChild(fd int) (pid int, end func(), err error) {
	// A copy, as os.File closes what it has.
	held, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return 0, nil, os.NewSyscallError("fcntl", err)
	}
	file := os.NewFile(uintptr(held), "held")
	defer file.Close()
	child := exec.Command("/proc/self/exe", "recv-exec", "--from", "fd:3", "/proc/self/exe")
	child.ExtraFiles = []*os.File{file} // from 3 on
	child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := child.Start(); err != nil {
		return 0, nil, err
	}
	return child.Process.Pid, func() {
		_ = child.Process.Kill()
		_ = child.Wait()
	}, nil
}
