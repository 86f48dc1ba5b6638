//go:build linux

package cmd

import (
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/urfave/cli/v2"

	"fdkit/internal/hint"
	"fdkit/listen"
)

// intake is what the commands that accept connections have in common: the addresses,
// and whom they let in.
type intake struct {
	log       logger
	addresses []listen.Address
	options   listen.Options
	policy    listen.Policy
	access    *access
	outputs   outputs

	listeners []*listen.Listener // once bound
	acceptor  *listen.Acceptor
	paused    bool
	notify    *notifier
	accepted  atomic.Int64 // connections let in
	refusals  *refusals
	abandoned atomic.Int64 // connections that still waited at the end
}

// intakeFlags are the options of the commands that accept connections.
func intakeFlags() []cli.Flag {
	return slices.Concat([]cli.Flag{backlogFlag(), portFlag()}, boundFlags(), accessFlags(), rateFlags(), proxyFlags(), busyFlags(), socketFileFlags(), socketFlags())
}

// intakeOf checks all that can be checked before the addresses are bound. queue is
// the descriptor that is the queue, or noQueue.
func intakeOf(c *cli.Context, operands []string, queue int) (*intake, error) {
	in := &intake{log: loggerOf(c)}
	var err error
	if in.addresses, err = parseAddresses(operands); err != nil {
		return nil, err
	}
	all := in.addresses
	if a, err := listen.ParseAddress(c.String("metrics")); err == nil {
		all = append(slices.Clone(all), a) // at its end, so that it is the one that is wrong
	}
	if err := checkInherited(all); err != nil {
		return nil, err
	}
	if in.options, err = listenOptions(c, in.addresses); err != nil {
		return nil, err
	}
	if in.access, err = accessOf(c); err != nil {
		return nil, err
	}
	if in.policy.Rules, err = in.access.rules(); err != nil {
		return nil, err
	}
	if in.policy.Rates, err = ratesOf(c); err != nil {
		return nil, err
	}
	if in.policy.Proxy, err = proxyOf(c); err != nil {
		return nil, err
	}
	if in.policy.Busy, err = busyOf(c); err != nil {
		return nil, err
	}
	in.outputs, err = outputsOf(c, queue)
	return in, err
}

func parseAddresses(operands []string) (addresses []listen.Address, err error) {
	if err := refuseOptions(operands, "address"); err != nil {
		return nil, err
	}
	for _, operand := range operands {
		a, err := listen.ParseAddress(operand)
		if err != nil {
			err = usagef("address %s: %w", operand, err)
			if right, ok := hostAndPort(operands); ok {
				err = hint.Wrap(err, right)
			}
			return nil, err
		}
		addresses = append(addresses, a)
	}
	return addresses, nil
}

// bind binds the addresses. The signals that would end this process must be ours by
// now: none may leave a socket file behind.
func (in *intake) bind(c *cli.Context, says bool, metrics *metrics) (err error) {
	if in.listeners, err = listenAll(in.addresses, in.options); err != nil {
		return err
	}
	warnCut(c, in.log)
	on := listen.Events{
		Accepted: func(c *listen.Conn) {
			in.accepted.Add(1)
			if says && in.log.enabled(isInfo) {
				in.logAccepted(c)
			}
		},
		Refused: in.logRefused,
		Pausing: func(cause error) { in.log.error(fmt.Errorf("accepting pauses: %w", cause)) },
		Resumed: in.logResumed,
	}
	in.log.journal = newJournal(in.log)
	in.refusals = &refusals{log: in.log}
	metrics.watchAccepting(&on)
	if in.acceptor, err = listen.NewAcceptor(in.listeners, in.policy, on); err != nil {
		in.log.journal.end()
	}
	return err
}

func listenAll(addresses []listen.Address, o listen.Options) (all []*listen.Listener, err error) {
	for _, a := range addresses {
		ls, err := listen.Listen(a, o)
		if err != nil {
			closeListeners(all)
			return nil, socketError(err)
		}
		all = append(all, ls...)
	}
	return all, nil
}

func closeListeners(ls []*listen.Listener) {
	for _, l := range ls {
		l.Close()
	}
}

func (in *intake) logAccepted(c *listen.Conn) {
	in.log.event(isInfo, "accepted", "accepted {client} at {local}",
		in.client(c), slog.String("local", c.Local()))
}

// client is who a connection is from: a Unix client has no address but in rare cases.
func (in *intake) client(c *listen.Conn) slog.Attr {
	address := in.log.client(c.Remote())
	if who, ok := c.Peer(); ok && address == "unix:" {
		address = unixClient(strconv.Itoa(int(who.Uid)), strconv.Itoa(int(who.Pid)))
	}
	return slog.String("client", address)
}

// logRefused says that a connection was refused. Those whom the rules refuse are as the
// user wants it, and only said with -v.
func (in *intake) logRefused(c *listen.Conn, why listen.Refusal) {
	if why == listen.Abandoned {
		in.abandoned.Add(1)
	}
	if why.Reason == listen.RefusedByRules && !in.log.enabled(isInfo) {
		return
	}
	detail := why.Detail
	if in.log.anonymize && strings.HasPrefix(detail, "--") {
		detail, _, _ = strings.Cut(detail, " ") // --deny ADDRESS
	}
	in.refusals.add(why.Reason, "refused {client} at {local}: {detail}", func() []slog.Attr {
		return []slog.Attr{
			in.client(c), slog.String("local", c.Local()), slog.String("detail", detail),
		}
	})
}

func (in *intake) logResumed() { in.log.event(isNotice, "resumed", "accepting again") }

// rehearse says if the rules cannot be read again with the privileges that are left.
func (in *intake) rehearse() {
	if in.access.file == "" {
		return
	}
	if _, err := in.access.read(); err != nil {
		in.log.error(hint.Wrap(fmt.Errorf("SIGHUP will fail: %w", cannotRead(in.access.file, err)),
			"the user of --user must be able to read the file and to search its directory"))
	}
}

// open tells that connections are taken from now on.
func (in *intake) open() error {
	for _, l := range in.listeners {
		in.log.event(isInfo, "listening", "listening on {local}", slog.String("local", l.String()))
	}
	closeUnused(in.addresses, in.log)
	in.rehearse()
	return in.outputs.tell(in.listeners)
}

// abandon closes what still waits, and says how much that is.
func (in *intake) abandon() {
	in.acceptor.Abandon()
	if n := int(in.abandoned.Swap(0)); n > 0 {
		in.log.event(isError, "closed", "closed "+count(n, "connection", "connections")+" that had to wait", slog.Int("connections", n))
	}
}

// close ends what bind has begun, and writes the log to its end.
func (in *intake) close() {
	in.acceptor.Close()
	in.abandon()
	in.refusals.end()
	in.log.journal.end()
}

// signals returns the signals that end the command, and those that change how
// connections are taken: SIGUSR1, SIGUSR2 and, with a file of rules, SIGHUP.
func (in *intake) signals() (ends, controls <-chan os.Signal) {
	if in.access.file == "" {
		return endings(), commands(syscall.SIGUSR1, syscall.SIGUSR2)
	}
	return endings(syscall.SIGHUP), commands(syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGHUP)
}

// obey does what one of the controls means.
func (in *intake) obey(sig os.Signal) {
	switch sig {
	case syscall.SIGUSR1:
		in.pause(true)
	case syscall.SIGUSR2:
		in.pause(false)
	case syscall.SIGHUP:
		in.reload()
	}
}

// reload reads the rules anew. If there is an error in them, the old ones stay.
func (in *intake) reload() {
	in.notify.reloading()
	defer in.notify.ready()
	rules, err := in.access.rules()
	if err != nil {
		in.log.error(fmt.Errorf("%w; the rules stay as they were", err))
		return
	}
	in.acceptor.SetRules(rules)
	in.log.notice("the rules are those of %s now", in.access.file)
}

// pause makes accepting pause or go on. The sockets go on listening meanwhile, and
// clients wait in their backlogs.
func (in *intake) pause(pause bool) {
	if pause == in.paused {
		return
	}
	in.paused = pause
	if pause {
		in.acceptor.Pause()
		in.log.event(isNotice, "pausing", "accepting pauses until SIGUSR2")
		return
	}
	in.acceptor.Resume()
	in.logResumed()
}
