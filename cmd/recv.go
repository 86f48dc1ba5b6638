//go:build linux

package cmd

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"fdkit/fdrecv"
	"fdkit/internal/fdinfo"
)

func recvCommand() *cli.Command {
	return &cli.Command{
		Name:        "recv",
		Usage:       "receive descriptors and tell what they are",
		UsageText:   "fdkit recv [OPTION...]",
		Description: "See fdkit-recv(1).",
		Flags: slices.Concat([]cli.Flag{
			&cli.StringFlag{Name: "from", Usage: "receive from `QUEUE` instead of stdin"},
			numberFlag("count", "end after `N` messages", 1, 1<<30, 0),
			&cli.StringSliceFlag{Name: "name", Usage: "ask for the descriptor `NAME`; in dialects in which one asks"},
			&cli.BoolFlag{Name: "list", Usage: "ask for the names only", DisableDefaultText: true},
			protoFlag("receive in dialect `NAME`", false),
			durationFlag("timeout", "give up after `TIME`"),
			durationFlag("wait", "wait at most `TIME` for somebody else to make the queue or to listen"),
		}, queueFlags(), verbosityFlags()),
		Action: runRecv,
	}
}

func runRecv(c *cli.Context) error {
	log := loggerOf(c)
	if err := checkQueue(c, "from"); err != nil {
		return err
	}
	o := fdrecv.Options(queueOptionsOf(c, log))
	o.Wait = waitOf(c)
	q, err := fdrecv.Open(c.String("from"), o)
	if err != nil {
		return err
	}
	defer q.Close()
	if timeout := durationOf(c, "timeout"); timeout > 0 {
		defer time.AfterFunc(timeout, q.Stop).Stop()
	}
	dialect := "raw"
	if d := protoOf(c); d != nil {
		dialect = d.Name
	}
	receiver, err := q.Speak(dialect, fdrecv.Want{Names: c.StringSlice("name"), List: c.Bool("list")})
	if err != nil {
		return err
	}
	defer receiver.Close()
	out := bufio.NewWriter(c.App.Writer)
	var m fdrecv.Message
	for i := 0; numberOf(c, "count") == 0 || i < numberOf(c, "count"); i++ {
		err := receiver.Receive(&m)
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		fmt.Fprintf(out, "message: %s, %s, %s\n", count(len(m.Payload), "byte", "bytes"), strconv.Quote(string(m.Payload)), count(len(m.FDs), "descriptor", "descriptors"))
		for i, fd := range m.FDs {
			d, err := fdinfo.Describe(fd)
			if err != nil {
				return err
			}
			fmt.Fprint(out, "  ", d.Line())
			if m.Names != nil {
				fmt.Fprintf(out, "  %q", m.Names[i])
			}
			fmt.Fprintln(out)
		}
		m.Close()
		if err := out.Flush(); err != nil {
			return err
		}
	}
	return nil
}
