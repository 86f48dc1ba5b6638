//go:build linux

package cmd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"fdkit/fdrecv"
	"fdkit/internal/proto"
)

func recvCommand() *cli.Command {
	return &cli.Command{
		Name:      "recv",
		Usage:     "receive descriptors and tell what they are, or become a program with them",
		UsageText: "fdkit recv [OPTION...] [PROGRAM [ARGUMENT...]]",
		Description: "Without PROGRAM each message is described, and its descriptors are closed.\n" +
			"PROGRAM has those of one message from descriptor 3 on. See fdkit-recv(1).",
		Flags: slices.Concat([]cli.Flag{
			&cli.StringFlag{Name: "from", Usage: "receive from `QUEUE` instead of stdin"},
			numberFlag("count", "end after `N` messages", 1, 1<<30, 0),
			&cli.BoolFlag{Name: "explain", Usage: "say in plain words what things mean, and what can go wrong with them", DisableDefaultText: true},
			&cli.BoolFlag{Name: "json", Usage: "print an object of JSON for each message, with all that is known", DisableDefaultText: true},
			&cli.StringSliceFlag{Name: "name", Usage: "ask for the descriptor `NAME`; in dialects in which one asks"},
			&cli.BoolFlag{Name: "list", Usage: "ask for the names only; in dialects in which one asks", DisableDefaultText: true},
			protoFlag("receive in dialect `NAME`", false),
			durationFlag("timeout", "give up when all is not done after `TIME`"),
			durationFlag("wait", "wait at most `TIME` for somebody else to make the queue, to listen or to connect"),
			&cli.GenericFlag{Name: "fd", Usage: "with PROGRAM: place the descriptors from `N` on, or each at one of N,N...", Value: &places{list: []int{3}}, DefaultText: "3"},
		}, environFlags(), queueFlags(), verbosityFlagsWith("print all that is known of each descriptor; with PROGRAM: say what came")),
		Action: runRecv,
	}
}

func runRecv(c *cli.Context) error {
	r, err := receivingOf(c)
	if err != nil {
		return err
	}
	// From here on the signals are ours: none may leave a socket file behind.
	signals := endings()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if r.timeout > 0 {
		var done context.CancelFunc
		ctx, done = context.WithTimeout(ctx, r.timeout)
		defer done()
	}
	sig := unless(signals, func(stop <-chan struct{}) {
		go func() {
			select {
			case <-stop:
				cancel()
			case <-ctx.Done():
			}
		}()
		err = r.run(c.String("from"), ctx.Done())
	})
	switch {
	case errors.Is(err, fdrecv.ErrStopped) && sig != nil:
		return endedBy(sig)
	case errors.Is(err, fdrecv.ErrStopped):
		return fmt.Errorf("not done after %v: %s", r.timeout, r.awaited())
	case err == nil && r.program != nil:
		return r.program.become(&r.message)
	}
	return err
}

// receivingOf checks all that can be checked before anything is opened.
func receivingOf(c *cli.Context) (*receiving, error) {
	r := &receiving{
		log: loggerOf(c), from: c.String("from"), count: numberOf(c, "count"), timeout: durationOf(c, "timeout"),
		dialect: "raw", want: fdrecv.Want{Names: c.StringSlice("name"), List: c.Bool("list")},
		printer: arrivalPrinter{json: c.Bool("json"), all: c.Bool("v"), explain: c.Bool("explain")},
	}
	if r.timeout == 0 {
		return nil, usagef("option --timeout: nothing is received in no time")
	}
	if r.printer.json && r.printer.all {
		return nil, usagef("options -v and --json: only one of them at a time")
	}
	d := protoOf(c)
	if d != nil {
		r.dialect, r.asks = d.Name, d.Asks
	}
	r.printer.spoken = r.dialect != "raw" && r.dialect != "fdkit"
	for _, option := range []string{"name", "list"} {
		if c.IsSet(option) && (d == nil || !d.Asks) {
			return nil, doesNotAsk(option, r.dialect)
		}
	}
	if r.want.List && r.want.Names != nil {
		return nil, usagef("options --name and --list: only one of them at a time")
	}
	if slices.Contains(r.want.Names, "") {
		return nil, usagef("option --name: the name is empty")
	}
	if err := checkQueue(c, "from"); err != nil {
		return nil, err
	}
	r.printer.stream = isStream(r.from)
	if r.from == "" {
		r.from = "stdin"
	}
	if r.printer.explain {
		r.want.Explain = func(line string) { r.said = append(r.said, line) }
	}
	r.options = fdrecv.Options(queueOptionsOf(c, r.log))
	r.options.Wait = waitOf(c)
	var err error
	r.program, err = successorOf(c)
	return r, err
}

// doesNotAsk is the error of an option that says what is asked for, where nobody asks.
func doesNotAsk(option, dialect string) error {
	var asking []string
	for _, d := range proto.All() {
		if d.Asks && d.Receive != nil {
			asking = append(asking, d.Name)
		}
	}
	err := usagef("option --%s: nobody asks in dialect %s", option, dialect)
	if asking != nil {
		err = usageHint("one asks in "+strings.Join(asking, ", "), "option --%s: nobody asks in dialect %s", option, dialect)
	}
	return err
}

// isStream tells whether the queue is a socket without boundaries between messages.
func isStream(from string) bool {
	kind, _, _ := strings.Cut(from, ":")
	fd := queueFD(from)
	if from == "" {
		fd = 0
	}
	if fd != noQueue {
		typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
		return err == nil && typ == unix.SOCK_STREAM
	}
	return kind == "unix" || kind == "unix-listen"
}
