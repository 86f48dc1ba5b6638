//go:build linux

package cmd

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"fdkit/fdrecv"
	"fdkit/fdsend"
	"fdkit/internal/hint"
	"fdkit/internal/route"
	"fdkit/internal/scm"
)

// routeTimeout is how long a client has for its key unless --timeout says so.
const routeTimeout = 10 * time.Second

// routeWaiting is how many descriptors wait at once unless --max-waiting says so.
const routeWaiting = 4000

// maxLookedAt is about how many unread bytes TCP takes at least, tcp_rmem in tcp(7).
const maxLookedAt = 64 << 10

func routeCommand() *cli.Command {
	return &cli.Command{
		Name:      "route",
		Usage:     "send each connection to one of several queues, by its first bytes or its addresses",
		UsageText: "fdkit route --by KEY [OPTION...] [TABLE]",
		Description: "KEY is source, local-address, line, bytes=N, regex=RE, sni, http-host or\n" +
			"length-prefix[=N]. TABLE is a file of lines PATTERN QUEUE. See fdkit-route(1).",
		Flags: slices.Concat([]cli.Flag{
			onceFlag("by", "go by `KEY`"),
			repeatedFlag{&cli.GenericFlag{Name: "to", Usage: "send connections whose key matches to a queue: `PATTERN=QUEUE`, * being the default route", Value: &routesOption{}}},
			&cli.StringFlag{Name: "from", Usage: "receive from `QUEUE` instead of stdin"},
			&cli.BoolFlag{Name: "consume", Usage: "take the key from the stream, so that the program does not see it", DisableDefaultText: true},
			onceFlag("silent", "send clients who have sent nothing when their time is up to `QUEUE`"),
			&cli.GenericFlag{Name: "timeout", Usage: "close connections whose key is not there after `TIME`", Value: &duration{routeTimeout}},
			numberFlag("max-waiting", "let at most `N` connections wait", 1, 1<<20, routeWaiting),
			numberFlag("max-bytes", "look for the key in the first `N` bytes", 1, maxLookedAt, 0),
			durationFlag("wait", "wait at most `TIME` for somebody else to make the queue of --from"),
			metricsFlag(),
		}, queueFlags(), clientLogFlags()),
		Action: runRoute,
	}
}

// routesOption is the value of --to, which can be given several times.
type routesOption struct{ routes [][2]string }

func (o *routesOption) Set(text string) error {
	// A pattern may have an equals sign in it, and hardly a path has.
	i := strings.LastIndex(text, "=")
	if i < 1 || i == len(text)-1 {
		return fmt.Errorf("%q is no PATTERN=QUEUE", text)
	}
	o.routes = append(o.routes, [2]string{text[:i], text[i+1:]})
	return nil
}

func (o *routesOption) String() string { return "" }

// routing is a running fdkit route.
type routing struct {
	*route.Router
	cli      *cli.Context
	log      logger
	by       *route.By
	routes   [][2]string // of --to
	file     string      // the table, "" if there is none
	refusals *refusals
	losses   *refusals
	lost     atomic.Int64 // connections, before the end
	metrics  *metrics
	notify   *notifier
	input    *fdrecv.Queue
	closed   int // connections that had to wait at the end
}

// routingOf checks all that can be checked before anything is opened.
func routingOf(c *cli.Context) (*routing, error) {
	r := &routing{cli: c, log: loggerOf(c), routes: c.Generic("to").(*routesOption).routes}
	text := onceOf(c, "by")
	if text == "" {
		return nil, usageHint("--by sni, for one, goes by the server's name in TLS", "option --by is missing")
	}
	var err error
	if r.by, err = route.ParseBy(text); err != nil {
		return nil, usagef("option --by: %w", err)
	}
	operands := c.Args().Slice()
	if err := refuseOptions(operands, "table"); err != nil {
		return nil, err
	}
	switch {
	case len(operands) > 1:
		return nil, usageHint("the table is one file, and --to adds routes", "there are %d operands", len(operands))
	case len(operands) == 1 && operands[0] == "":
		return nil, usagef("the name of the table is empty")
	case len(operands) == 1:
		r.file = operands[0]
	}
	if err := checkQueueName(c, "from"); err != nil {
		return nil, err
	}
	if c.Bool("consume") && !r.by.Consumable() {
		return nil, usageHint("line, bytes=N, regex=RE and length-prefix can be", "option --consume: the key of --by %s is a part of what is for the program", text)
	}
	for _, option := range []string{"silent", "timeout", "max-bytes"} {
		if r.by.Address && c.IsSet(option) {
			return nil, usagef("option --%s: with --by %s clients need to send nothing", option, text)
		}
	}
	if n := numberOf(c, "max-bytes"); n > 0 {
		r.by.Limit = n
	}
	if durationOf(c, "timeout") == 0 {
		return nil, usagef("option --timeout: nothing is sent in no time")
	}
	r.Router = &route.Router{
		By: r.by, Consume: c.Bool("consume"), Silent: onceOf(c, "silent"),
		Timeout: durationOf(c, "timeout"), MaxWaiting: numberOf(c, "max-waiting"),
		Open: r.open, Sent: r.sent, Refused: r.refused, Lost: r.lose, Trouble: r.trouble,
	}
	return r, nil
}

func runRoute(c *cli.Context) error {
	r, err := routingOf(c)
	if err != nil {
		return err
	}
	table, err := r.table()
	if err != nil {
		return err
	}
	var but []os.Signal
	orders := []os.Signal{syscall.SIGUSR1}
	if r.file != "" {
		but = []os.Signal{syscall.SIGHUP} // reads the table
		orders = append(orders, syscall.SIGHUP)
	}
	signals, controls := endings(but...), commands(orders...)
	if r.metrics, err = metricsOf(c, r.log, false, false); err != nil {
		return err
	}
	defer r.metrics.Close()
	r.log.journal = newJournal(r.log)
	defer r.log.journal.end()
	r.refusals = &refusals{log: r.log}
	defer r.refusals.end()
	r.losses = &refusals{log: r.log, verb: "lost"}
	defer r.losses.end()
	sig := unless(signals, func(stop <-chan struct{}) {
		// The output first: whoever receives from it can attach meanwhile.
		if err = r.SetTable(table, stop); err == nil {
			err = r.openInput(stop)
		}
	})
	if err == nil && sig == nil {
		err = r.limit()
	}
	if err != nil || sig != nil {
		r.closeQueues()
		if sig != nil || errors.Is(err, fdrecv.ErrEnded) {
			return nil // told to end before it began, or nothing will come
		}
		return err
	}
	r.metrics.watchQueue(r.input.Waiting)
	r.notify = newNotifier(r.log)
	defer r.notify.end()
	return r.run(signals, controls)
}

// openInput opens the queue that is received from.
func (r *routing) openInput(stop <-chan struct{}) (err error) {
	o := fdrecv.Options(queueOptionsOf(r.cli, r.log))
	o.Wait, o.Stop = waitOf(r.cli), stop
	if r.input, err = fdrecv.Open(r.cli.String("from"), o); err != nil {
		return err
	}
	receiver := r.input.Receiver()
	r.Input, r.Receive = r.input.FD(), func(m *scm.Message) (bool, error) {
		came, err := receiver.ReceiveNow((*fdrecv.Message)(m))
		if came && r.metrics != nil {
			r.metrics.received.Add(1)
		}
		return came, err
	}
	return nil
}

// limit keeps what waits under the limit of open files, which package syscall has raised
// as far as it may be.
func (r *routing) limit() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return os.NewSyscallError("getrlimit", err)
	}
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	// One message more can come, and other files for moments.
	room := int(min(limit.Cur, 1<<30)) - len(open) - fdsend.MaxFDs - 16
	if r.MaxWaiting <= room {
		return nil
	}
	err = fmt.Errorf("the limit of %d open files leaves room for %d connections that wait", limit.Cur, max(room, 0))
	if room < 1 || r.cli.IsSet("max-waiting") {
		return hint.Wrap(err, "ulimit -n shows and raises the limit (RLIMIT_NOFILE)")
	}
	r.log.info("%v", err)
	r.MaxWaiting = room
	return nil
}
