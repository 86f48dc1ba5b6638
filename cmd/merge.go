//go:build linux

package cmd

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"fdkit/exec"
	"fdkit/fdrecv"
	"fdkit/internal/hint"
	"fdkit/internal/interrupt"
	"fdkit/internal/merge"
	"fdkit/internal/scm"
)

func mergeCommand() *cli.Command {
	return &cli.Command{
		Name:        "merge",
		Usage:       "write whole lines from many connections to stdout",
		UsageText:   "fdkit merge [OPTION...]",
		Description: "See fdkit-merge(1).",
		Flags: slices.Concat([]cli.Flag{
			&cli.StringFlag{Name: "from", Usage: "receive from `QUEUE` instead of stdin"},
			durationFlag("wait", "wait at most `TIME` for somebody else to make the queue"),
			&cli.GenericFlag{Name: "frame", Usage: "keep together what `KIND` says: line, or length[=N], blocks after N bytes of length", Value: new(frame), DefaultText: "line"},
			onceFlag("end", "end when a client sends `LINE`"),
			durationFlag("idle", "end when no client was there for `TIME`"),
			sizeFlag("max-line", "close clients whose lines have more than `SIZE` bytes", 1, 1<<30, 1<<20),
			sizeFlag("max-held", "hold at most about `SIZE` bytes of unfinished lines", 1<<12, 1<<40, 64<<20),
		}, queueFlags(), clientLogFlags()),
		Action: runMerge,
	}
}

// frame is the value of --frame: how many bytes of length stand before a frame, 0 for
// lines.
type frame struct{ prefix int }

func (f *frame) Set(text string) error {
	prefixes := map[string]int{"line": 0, "length": 4, "length=1": 1, "length=2": 2, "length=4": 4, "length=8": 8}
	prefix, known := prefixes[text]
	if !known {
		return fmt.Errorf("%q is neither line nor length, nor length=1, 2, 4 or 8", text)
	}
	f.prefix = prefix
	return nil
}

func (f *frame) String() string { return "" }

// merging is what fdkit merge does.
type merging struct {
	log    logger
	m      merge.Merger
	losses *refusals
	what   string // lines or frames
}

func runMerge(c *cli.Context) error {
	from, err := mergeQueueOf(c)
	if err != nil {
		return err
	}
	g := &merging{log: loggerOf(c), what: "lines"}
	if err := g.options(c); err != nil {
		return err
	}
	o := fdrecv.Options(queueOptionsOf(c, g.log))
	o.Wait = waitOf(c)
	signals := endings()
	var q *fdrecv.Queue
	sig := unless(signals, func(stop <-chan struct{}) {
		o.Stop = stop
		q, err = fdrecv.Open(from, o)
	})
	switch {
	case sig != nil && err != nil:
		return nil // told to end before it began
	case errors.Is(err, fdrecv.ErrEnded):
		g.log.info("the sender has ended")
		return nil
	case err != nil:
		return err
	}
	g.log.journal = newJournal(g.log)
	defer g.log.journal.end()
	defer closeQueue(g.log, q)
	return g.run(q, sig, signals)
}

// mergeQueueOf returns the queue that the options name or, in a worker of a pool, the
// environment.
func mergeQueueOf(c *cli.Context) (string, error) {
	if c.NArg() > 0 {
		return "", usageHint("it reads from the connections that it receives", "there are no operands, and %q is one", c.Args().First())
	}
	if err := checkQueue(c, "from"); err != nil {
		return "", err
	}
	const variable = "FDKIT_QUEUE_FD"
	text, given := os.LookupEnv(variable)
	if c.IsSet("from") || !given {
		return c.String("from"), nil
	}
	fd, err := strconv.Atoi(text)
	switch {
	case err != nil || strings.Trim(text, "0123456789") != "":
		return "", usagef("variable %s: %q is no descriptor number", variable, text)
	case fd == 0:
		return "", nil
	case !inherited(fd):
		return "", usageHint("--from fd:0 is stdin, whatever the variable says", "variable %s: descriptor %d is not open", variable, fd)
	}
	return "fd:" + text, nil
}

func (g *merging) options(c *cli.Context) error {
	m := &g.m
	m.Out = 1
	m.Framing.Prefix = c.Generic("frame").(*frame).prefix
	m.Framing.Max, m.MaxHeld = sizeOf(c, "max-line"), sizeOf(c, "max-held")
	if m.Framing.Prefix > 0 {
		g.what = "frames"
	}
	end := onceOf(c, "end")
	switch {
	case end == "":
	case m.Framing.Prefix == 0 && strings.Contains(end, "\n"):
		return usagef("option --end: %q is more than one line", end)
	case len(end) > m.Framing.Max:
		return usagef("option --end: the line has more than the %d bytes of --max-line", m.Framing.Max)
	default:
		m.Framing.End = []byte(end)
	}
	idle := durationOf(c, "idle")
	if idle == 0 {
		return usageHint("without the option there is no limit", "option --idle: the time is 0")
	}
	m.Idle = max(idle, 0)
	return nil
}

// run merges until the end, or until a signal comes; sig is one that has come already.
func (g *merging) run(q *fdrecv.Queue, sig os.Signal, signals <-chan os.Signal) error {
	if err := g.listen(q); err != nil {
		return err
	}
	defer g.losses.end()
	ended := make(chan error, 1)
	go func() { ended <- g.m.Run() }()
	var err error
	if sig == nil {
		select {
		case err = <-ended:
			g.summarize()
			return err
		case sig = <-signals:
		}
	}
	g.log.toldToEnd(sig)
	g.m.Stop()
	ctx, cancel := untilSecond(g.log, signals, nil, "waiting for somebody to read what has come")
	defer cancel()
	select {
	case err = <-ended:
	case <-ctx.Done():
		g.m.Abort()
		if err = <-ended; errors.Is(err, interrupt.ErrStopped) {
			err = nil
		}
	}
	g.summarize()
	return err
}

// listen connects the merger with the queue and with the log.
func (g *merging) listen(q *fdrecv.Queue) error {
	environ, err := exec.NewEnviron(nil)
	if err != nil {
		return err
	}
	g.losses = &refusals{log: g.log, verb: "lost"}
	receiver := q.Receiver()
	m := &g.m
	m.Queue = q.FD()
	m.Receive = func(message *scm.Message) (bool, error) { return receiver.ReceiveNow((*fdrecv.Message)(message)) }
	m.Came = func(fd int, payload []byte) string {
		name := g.name(environ, fd, payload)
		g.log.event(isInfo, "joined", "joined {client}", slog.String("client", name))
		return name
	}
	m.Left = func(c *merge.Client) {
		g.log.event(isInfo, "left", "left {client}, {"+g.what+"} "+g.what+", {bytes} bytes", slog.String("client", c.Name),
			slog.Int64(g.what, c.Frames), slog.Int64("bytes", c.Bytes))
	}
	m.Lost = g.lost
	m.Full = func(clients int) {
		g.log.error(hint.Wrap(fmt.Errorf("there are %d clients, as many as the limit of open files allows: others wait until one leaves", clients),
			"ulimit -n shows and raises the limit (RLIMIT_NOFILE)"))
	}
	return nil
}

// name returns who a client is: by its message, else by its socket, else by what the
// kernel calls the file.
func (g *merging) name(environ *exec.Environ, fd int, payload []byte) string {
	const unknown = "unknown" // origin's word
	for _, payload := range [][]byte{payload, nil} {
		if name := g.log.origin(environ.For(fd, payload), time.Time{})[0].Value.String(); name != unknown {
			return name
		}
	}
	if path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd)); err == nil && !g.log.anonymize {
		return path
	}
	return unknown
}

// lost says that something is lost.
func (g *merging) lost(l merge.Loss) {
	template := "lost {bytes} bytes of {client}: {detail}"
	switch {
	case l.Client == "" && l.Bytes == 0:
		template = "lost a message: {detail}"
	case l.Client == "":
		template = "lost {bytes} bytes: {detail}"
	case l.Bytes == 0:
		template = "lost what came with {client}: {detail}"
	}
	g.losses.add(l.Reason, template, func() (fields []slog.Attr) {
		if l.Client != "" {
			fields = append(fields, slog.String("client", l.Client))
		}
		return append(fields, slog.Int("bytes", l.Bytes), slog.String("detail", l.Err.Error()))
	})
}

// summarize says what has been done.
func (g *merging) summarize() {
	t := &g.m.Total
	g.log.event(isInfo, "merged", "merged {"+g.what+"} "+g.what+", {bytes} bytes of {clients} clients; lost {lost} times, {lost_bytes} bytes",
		slog.Int64(g.what, t.Frames), slog.Int64("bytes", t.Bytes), slog.Int("clients", t.Clients),
		slog.Int("lost", t.Lost), slog.Int64("lost_bytes", t.LostBytes))
}
