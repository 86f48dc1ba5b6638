//go:build linux

package cmd

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"fdkit/listen"
)

// boundFlags are the options that name descriptors to be told when the addresses are
// bound.
func boundFlags() []cli.Flag {
	return []cli.Flag{
		numberFlag("address-fd", "once listening, write each bound address as a line to descriptor `N`, and close it", 0, 1<<20, -1),
		numberFlag("ready-fd", "once listening, write a newline to descriptor `N`, and close it", 0, 1<<20, -1),
	}
}

// portFlag is -1, as tcpserver has it.
func portFlag() cli.Flag {
	return &cli.BoolFlag{Name: "1", Usage: "once listening, write the port to stdout", DisableDefaultText: true}
}

// outputs are the descriptors that are told when the addresses are bound.
type outputs struct {
	addresses, ready int // -1: none
	port             bool
}

func outputsOf(c *cli.Context, queue int) (outputs, error) {
	o := outputs{numberOf(c, "address-fd"), numberOf(c, "ready-fd"), c.Bool("1")}
	if o.port && queue == 1 {
		return o, usageHint("-1 goes with --to QUEUE", "option -1: stdout is the queue")
	}
	for _, out := range []struct {
		option string
		fd     int
	}{{"--address-fd", o.addresses}, {"--ready-fd", o.ready}} {
		if out.fd < 0 {
			continue
		}
		if out.fd == 1 && o.port {
			return o, usageHint(out.option+" 3 3>FILE", "option %s: descriptor 1 is that of -1", out.option)
		}
		if out.fd == queue {
			return o, usageHint(fmt.Sprintf("%s 3 3>FILE, or --to QUEUE", out.option), "option %s: descriptor %d is the queue", out.option, out.fd)
		}
		flags, err := unix.FcntlInt(uintptr(out.fd), unix.F_GETFL, 0)
		if err != nil || flags&unix.O_ACCMODE == unix.O_RDONLY || !inherited(out.fd) {
			return o, usageHint(fmt.Sprintf("open it in the shell: %s %d %d>FILE", out.option, out.fd, out.fd),
				"option %s: descriptor %d is not open for writing", out.option, out.fd)
		}
	}
	if o.addresses >= 0 && o.addresses == o.ready {
		return o, usagef("option --ready-fd: descriptor %d is that of --address-fd", o.ready)
	}
	return o, nil
}

// tell writes what was asked for, now that the addresses are bound.
func (o outputs) tell(listeners []*listen.Listener) error {
	if o.port {
		if err := writeAndClose(1, fmt.Sprintf("%d\n", listeners[0].Port())); err != nil {
			return fmt.Errorf("cannot write the port to stdout: %w", err)
		}
	}
	var addresses strings.Builder
	for _, l := range listeners {
		fmt.Fprintln(&addresses, l)
	}
	if err := writeAndClose(o.addresses, addresses.String()); err != nil {
		return fmt.Errorf("cannot write the addresses to descriptor %d: %w", o.addresses, err)
	}
	if err := writeAndClose(o.ready, "\n"); err != nil {
		return fmt.Errorf("cannot write readiness to descriptor %d: %w", o.ready, err)
	}
	return nil
}

func writeAndClose(fd int, text string) error {
	if fd < 0 {
		return nil
	}
	_, err := unix.Write(fd, []byte(text))
	switch {
	case fd == 2: // goes on as the log
	case fd < 2:
		// Something must stay there, or the next descriptor would be stdin or stdout.
		// It is no /dev/null, which another root directory need not have.
		empty, openErr := unix.MemfdCreate("closed", unix.MFD_CLOEXEC)
		if openErr == nil {
			_ = unix.Dup3(empty, fd, 0)
			_ = unix.Close(empty)
		}
	default:
		_ = unix.Close(fd)
	}
	return err
}
