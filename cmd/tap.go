//go:build linux

package cmd

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/urfave/cli/v2"

	"fdkit/internal/hint"
	"fdkit/internal/proto"
	"fdkit/internal/relay"
	"fdkit/internal/unixpath"
)

func tapCommand() *cli.Command {
	return &cli.Command{
		Name:      "tap",
		Usage:     "show what passes between queues, or through a Unix socket",
		UsageText: "fdkit tap [OPTION...] [LISTEN-ENDPOINT TARGET-ENDPOINT]",
		Description: "Without operands: a filter between two queues. An endpoint is a path, @NAME, unix:PATH,\n" +
			"unix-seqpacket:PATH or unix-dgram:PATH. See fdkit-tap(1).",
		Flags: slices.Concat([]cli.Flag{
			&cli.StringFlag{Name: "from", Usage: "receive from `QUEUE` instead of stdin"},
			&cli.StringFlag{Name: "to", Usage: "send to `QUEUE` instead of stdout"},
			durationFlag("wait", "wait at most `TIME` for somebody else to make the queue of --from"),
			&cli.GenericFlag{Name: "decode", Usage: "explain what is said in dialect `NAME`", Value: &explained{}, DefaultText: "none"},
			&cli.BoolFlag{Name: "json", Usage: "write an object of JSON for each message", DisableDefaultText: true},
			&cli.BoolFlag{Name: "hex", Usage: "write payloads in hexadecimal, as hexdump -C does", DisableDefaultText: true},
			numberFlag("bytes", "write at most `N` bytes of each payload", 0, 1<<20, 256),
			onceFlag("output", "append to `FILE` what is to be shown, instead of writing it to stderr"),
			&cli.GenericFlag{Name: "mode", Usage: "permission `BITS` of a queue or socket that is made: who may write may attach or connect", Value: &mode{}, DefaultText: "0600, or that of the target"},
			&cli.GenericFlag{Name: "owner", Usage: "`USER[:GROUP]` that owns a queue or socket that is made", Value: &owner{}, DefaultText: "that of the target"},
		}, verbosityFlags()),
		Action: runTap,
	}
}

// explained is the value of an option that takes a dialect which has a decoder.
type explained struct{ *proto.Dialect }

func (e *explained) Set(text string) error {
	d, err := proto.Find(text)
	switch {
	case err != nil:
		return err
	case e.Dialect != nil:
		return fmt.Errorf("it is given twice, as %q and %q", e.Dialect.Name, text)
	case d.Decoder == nil:
		return fmt.Errorf("there is nothing to explain in dialect %s", text)
	}
	e.Dialect = d
	return nil
}

func (e *explained) String() string { return "" }

func runTap(c *cli.Context) error {
	operands := c.Args().Slice()
	if err := refuseOptions(operands, "endpoints"); err != nil {
		return err
	}
	var endpoints []relay.Endpoint
	for _, operand := range operands {
		e, err := relay.ParseEndpoint(operand)
		if err != nil {
			return usagef("endpoint %s: %w", operand, err)
		}
		endpoints = append(endpoints, e)
	}
	var run func(*cli.Context, *recorder) error
	switch len(endpoints) {
	case 0:
		if err := errors.Join(checkQueue(c, "from"), checkTapQueues(c)); err != nil {
			return err
		}
		run = runFilter
	case 2:
		for _, option := range []string{"from", "to", "wait"} {
			if c.IsSet(option) {
				return usagef("option --%s: it is for queues, and the endpoints are sockets", option)
			}
		}
		if a, b := endpoints[0], endpoints[1]; a.Path == b.Path {
			return usageHint("mv "+a.Path+" "+a.Path+".real makes room; then fdkit tap "+a.Path+" "+a.Path+".real",
				"both endpoints are %s", a.Path)
		} else if a.Type != b.Type && a.Type != 0 && b.Type != 0 {
			return usagef("the endpoints are of two types, %s and %s", relay.TypeName(a.Type), relay.TypeName(b.Type))
		}
		for _, option := range []string{"mode", "owner"} {
			if c.IsSet(option) && unixpath.Abstract(endpoints[0].Path) {
				return usagef("option --%s: %s is an abstract name, which has no file", option, endpoints[0].Path)
			}
		}
		run = func(c *cli.Context, rec *recorder) error { return runRelay(c, rec, endpoints[0], endpoints[1]) }
	default:
		return usageHint("fdkit tap LISTEN TARGET listens at one socket and connects to another; without operands it is a filter between queues",
			"there is %s", count(len(endpoints), "endpoint", "endpoints"))
	}
	rec, err := newRecorder(c)
	if err != nil {
		return err
	}
	err = run(c, rec)
	return errors.Join(err, rec.end())
}

// checkTapQueues checks the options that go with the queues.
func checkTapQueues(c *cli.Context) error {
	from, to := c.String("from"), c.String("to")
	if to == "" && c.IsSet("to") {
		return usageHint("without the option the queue is stdout", "option --to: the name is empty")
	}
	if from != "" && from == to {
		return usageHint("what is sent there would be received again", "options --from and --to: both are %s", from)
	}
	return nil
}

// runRelay stands between the clients of a socket and its server.
func runRelay(c *cli.Context, rec *recorder, listen, target relay.Endpoint) error {
	// From here on the signals are ours: none may leave a socket file behind.
	signals := endings()
	o := queueOptionsOf(c, rec.log)
	access := unixpath.Access{Mode: o.Mode, UID: -1, GID: -1}
	if o.UID != nil {
		access.UID = *o.UID
	}
	if o.GID != nil {
		access.GID = *o.GID
	}
	r, err := relay.Listen(listen, target, access, rec.events())
	if errors.Is(err, fs.ErrPermission) {
		err = hint.Wrap(err, "root may")
	}
	if err != nil {
		return err
	}
	rec.log.info("relaying %s to %s, %s", listen.Path, target.Path, relay.TypeName(r.Type()))
	ended := make(chan error, 1)
	go func() { ended <- r.Serve() }()
	select {
	case err := <-ended:
		r.Stop()
		return err
	case sig := <-signals:
		rec.log.toldToEnd(sig)
	}
	ctx, cancel := untilSecond(rec.log, signals, nil, "waiting for those who are to receive what was taken")
	defer cancel()
	r.Stop()
	select {
	case err = <-ended:
	case <-ctx.Done():
		r.Close()
		err = <-ended
	}
	return err
}
