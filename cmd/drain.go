//go:build linux

package cmd

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"fdkit/fdsend"
	"fdkit/internal/hint"
	"fdkit/internal/interrupt"
	"fdkit/internal/pidfd"
	"fdkit/internal/queue"
	"fdkit/internal/scm"
)

func drainCommand() *cli.Command {
	return &cli.Command{
		Name:        "drain",
		Usage:       "move what is in a queue to another one",
		UsageText:   "fdkit drain [OPTION...]",
		Description: "See fdkit-drain(1).",
		Flags: slices.Concat([]cli.Flag{
			&cli.StringFlag{Name: "from", Usage: "receive from `QUEUE`, or in the place of a process, PID:FD, instead of from stdin"},
			&cli.StringFlag{Name: "to", Usage: "send to `QUEUE` instead of stdout"},
			numberFlag("count", "end after `N` messages", 1, 1<<30, 0),
			durationFlag("timeout", "give up after `TIME`"),
			durationFlag("wait", "wait at most `TIME` for somebody else to make the queue of --to, or to listen"),
		}, queueFlags(), verbosityFlags()),
		Action: runDrain,
	}
}

// draining is what fdkit drain has to do, and how far it is.
type draining struct {
	log         logger
	from        string
	source      source // of a process; pid 0: from names a queue
	count       int    // 0: all
	timeout     time.Duration
	moved, lost int // messages
	descriptors int // in those moved
}

func runDrain(c *cli.Context) error {
	d, err := drainingOf(c)
	if err != nil {
		return err
	}
	sig := within(d.timeout, func(stop <-chan struct{}) { err = d.run(c, stop) })
	switch {
	case err != nil && sig != nil:
		d.log.error(err)
		return endedBy(sig)
	case isWaiting(err), errors.Is(err, fdsend.ErrStopped):
		return fmt.Errorf("not done after %v: %w", d.timeout, err)
	case err == nil && d.lost > 0:
		return quiet(exitSystem)
	}
	return err
}

// drainingOf checks all that can be checked before anything is opened.
func drainingOf(c *cli.Context) (*draining, error) {
	if c.NArg() > 0 {
		return nil, usageHint("--from and --to name the queues", "there is an operand, %q", c.Args().First())
	}
	d := &draining{log: loggerOf(c), from: c.String("from"), count: numberOf(c, "count"), timeout: durationOf(c, "timeout")}
	kind, _, _ := strings.Cut(d.from, ":")
	_, isPID := decimal(kind)
	switch {
	case isPID == nil && kind != d.from:
		var err error
		if d.source, err = parseSource(d.from); err != nil {
			return nil, err
		}
	case kind == "unix" || strings.HasPrefix(kind, "unix-"):
		return nil, usageHint("fdkit recv receives what will come",
			"option --from %s: nothing is in flight yet on a new connection", d.from)
	}
	for _, option := range []string{"from", "to"} {
		if err := checkQueueName(c, option); err != nil {
			return nil, err
		}
	}
	switch to := c.String("to"); {
	case d.timeout == 0:
		return nil, usagef("option --timeout: nothing is moved in no time")
	case to == d.from && to != "":
		return nil, usagef("options --from and --to: both are %s", to)
	case c.IsSet("wait") && queueFD(to) != noQueue:
		return nil, usageHint("a named queue is --to PATH", "option --wait: it is for a queue that others make, and this one is inherited")
	}
	return d, checkQueue(c, "to")
}

// run moves the messages, and returns when they have been received, or are safe with
// others, or stop is closed.
func (d *draining) run(c *cli.Context, stop <-chan struct{}) error {
	// First where to: who takes part in a named queue may be all that keeps it.
	to, err := openOutput(c, d.log, waitOf(c), stop)
	if err != nil {
		return err
	}
	defer func() { _, _ = to.Close() }()
	from, err := d.open(c, stop)
	if err != nil {
		return err
	}
	defer func() {
		if left, _ := from.Close(); left > 0 {
			d.log.event(isError, "closed", "nobody else holds the queue: closed "+count(left, "message that was", "messages that were")+" in it",
				slog.Int("messages", left))
		}
	}()
	err = d.move(from, to, stop)
	d.log.event(isNotice, "moved", "moved "+count(d.moved, "message", "messages")+" with "+count(d.descriptors, "descriptor", "descriptors"),
		slog.Int("messages", d.moved), slog.Int("descriptors", d.descriptors))
	if d.lost > 0 {
		d.log.event(isError, "lost", "lost "+count(d.lost, "message", "messages")+" on the way", slog.Int("messages", d.lost))
	}
	// What was moved may need this process still.
	left, deliverErr := deliver(d.log, to, nil, stop)
	if left > 0 {
		d.log.event(isError, "lost", "lost "+count(left, "message", "messages")+" of those moved: nobody had received them", slog.Int("messages", left))
	}
	if err == nil {
		err = deliverErr
	}
	return err
}

// open opens the queue that is to be drained. It is never made.
func (d *draining) open(c *cli.Context, stop <-chan struct{}) (*queue.Queue, error) {
	spec := d.from
	if d.source.pid != 0 {
		fd, err := pidfd.Get(d.source.pid, d.source.fd)
		if err != nil {
			return nil, fmt.Errorf("cannot take %s: %w", d.from, explainFiles(err))
		}
		spec = fmt.Sprintf("fd:%d", fd)
	}
	o := queue.Options(queueOptionsOf(c, d.log))
	o.Wait, o.Stop = time.Nanosecond, stop // look once
	q, err := queue.OpenReceive(spec, o)
	switch {
	case err == nil:
		return q, nil
	case d.source.pid != 0:
		err = fmt.Errorf("cannot drain %s: %w", d.from, errors.Unwrap(err)) // not by our number
		return nil, hint.Wrap(err, fmt.Sprintf("fdkit queue %d shows those of its sockets in which anything is", d.source.pid))
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, fs.ErrNotExist), errors.Is(err, queue.ErrForeign):
		err = hint.Wrap(err, "it must be a queue of fdkit that is there; what was sent to another program is drained with PID:FD, which fdkit queue --all shows")
	}
	return nil, err
}

// move receives one message after the other, each only when somebody else has the other
// queue and that has room. So it has none in hand while it waits, and none is lost with it.
func (d *draining) move(from *queue.Queue, to *fdsend.Queue, stop <-chan struct{}) error {
	send, err := to.Speak("raw")
	if err != nil {
		return err
	}
	out := &outlet{fd: to.Sender().FD(), send: send, log: d.log}
	done, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-stop:
		case <-to.Gone():
		case <-done:
			return
		}
		out.calls.Stop() // nobody waits with the descriptor when it is closed
		_, _ = to.Close()
	}()
	defer func() {
		close(done)
		<-watched
	}()
	in := inlet{fd: from.FD}
	for d.count == 0 || d.moved < d.count {
		if !in.ready(from) {
			return nil
		}
		if err := out.attended(to, stop); err != nil {
			return err
		}
		if err := out.room(); err != nil {
			return d.because(err, to)
		}
		if err := in.fits(from); err != nil {
			return err
		}
		m, err := in.receive()
		var cut *scm.LostError
		switch {
		case errors.As(err, &cut):
			d.lost++
			d.log.error(explainFiles(err))
			continue
		case err == io.EOF || err == nil && m == nil:
			return nil
		case err != nil:
			return fmt.Errorf("cannot receive: %w", err)
		}
		n := len(m.FDs)
		err = out.pass(m)
		m.Close()
		if err != nil {
			d.lost++
			return d.because(err, to)
		}
		d.moved++
		d.descriptors += n
	}
	return nil
}

// because tells why nothing more is sent.
func (d *draining) because(err error, to *fdsend.Queue) error {
	select {
	case <-to.Gone():
		return errNoReceiver
	default:
	}
	switch {
	case errors.Is(err, interrupt.ErrStopped):
		return errFull
	case errors.Is(err, fdsend.ErrGone):
		return errNoReceiver
	}
	return fmt.Errorf("cannot send: %w", explainSend(err))
}

// inlet is the socket that is drained.
type inlet struct {
	fd       int
	receiver *scm.Receiver
	size     int // the receiver's room
	message  scm.Message
}

// ready tells whether there is something to receive.
func (in *inlet) ready(q *queue.Queue) bool {
	fds := []unix.PollFd{{Fd: int32(in.fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, 0); err == nil && n == 0 {
		return false
	}
	// The end is readable too. Of datagrams, which have none, the first alone is counted.
	typ, typErr := unix.GetsockoptInt(in.fd, unix.SOL_SOCKET, unix.SO_TYPE)
	unread, err := unix.IoctlGetInt(in.fd, unix.SIOCINQ)
	descriptors, known := q.Waiting()
	return typErr != nil || err != nil || typ == unix.SOCK_DGRAM || unread > 0 || !known || descriptors > 0
}

// fits returns an error if the next message may have more descriptors than this process
// can have: those would be lost.
func (in *inlet) fits(q *queue.Queue) error {
	most := scm.MaxFDs
	if n, ok := q.Waiting(); ok {
		most = min(n, most)
	}
	var spare scm.Message
	defer spare.Close()
	for range most {
		fd, err := unix.FcntlInt(uintptr(in.fd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return fmt.Errorf("the next message may have %d descriptors: %w", most, explainFiles(err))
		}
		spare.FDs = append(spare.FDs, fd)
	}
	return nil
}

// receive returns the next message with all that is in it, or nil if there is none.
func (in *inlet) receive() (*scm.Message, error) {
	// Of datagrams that is the size of the next one, of packets that of all. A stream has
	// no boundaries that could be lost.
	unread, err := unix.IoctlGetInt(in.fd, unix.SIOCINQ)
	typ, typErr := unix.GetsockoptInt(in.fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || typErr != nil || typ == unix.SOCK_STREAM {
		unread = 0
	}
	if in.receiver == nil || unread > in.size {
		in.size = max(unread, scm.MaxPayload)
		in.receiver = scm.NewReceiverSize(in.fd, nil, in.size)
	}
	for {
		came, err := in.receiver.ReceiveNow(&in.message)
		switch {
		case errors.Is(err, unix.ECONNRESET): // once, and before what is left
		case err != nil || !came:
			return nil, err
		default:
			return &in.message, nil
		}
	}
}

// outlet is the queue that takes what the other had.
type outlet struct {
	fd    int // for waiting
	send  func(fdsend.Parcel) error
	calls interrupt.Calls // that wait
	log   logger
	said  bool
}

// attended waits until somebody else has the queue too.
func (o *outlet) attended(to *fdsend.Queue, stop <-chan struct{}) error {
	begin := time.Now()
	for !to.Attended() {
		if time.Since(begin) > time.Second {
			o.waiting(errUnattended)
		}
		select {
		case <-stop:
			return errUnattended
		case <-to.Gone():
			return errNoReceiver
		case <-time.After(10 * time.Millisecond): // nothing tells
		}
	}
	return nil
}

// waiting says, once, what is waited for.
func (o *outlet) waiting(why error) {
	if !o.said {
		o.log.notice("still waiting: %v", why)
		o.said = true
	}
}

// room waits until a message can be sent.
func (o *outlet) room() error {
	if err := o.calls.Enter(); err != nil {
		return err
	}
	defer o.calls.Exit()
	fds := []unix.PollFd{{Fd: int32(o.fd), Events: unix.POLLOUT}}
	ready, err := o.calls.PollAny(fds, time.Second)
	if err == nil && !ready {
		o.waiting(errFull)
		_, err = o.calls.PollAny(fds, -1)
	}
	if err == nil && fds[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0 {
		return fdsend.ErrGone
	}
	return err
}

// pass sends a message as it is. One of no bytes, which would read like the end, gets one.
func (o *outlet) pass(m *scm.Message) error {
	p := fdsend.Parcel{FDs: m.FDs, Payload: m.Payload}
	if len(m.Payload) == 0 {
		p.Payload = nil
	}
	err := o.send(p)
	if !errors.Is(err, unix.EMSGSIZE) {
		return err
	}
	// A queue of fdkit is kept short, too short for this one.
	short, getErr := unix.GetsockoptInt(o.fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
	if getErr != nil || unix.SetsockoptInt(o.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, len(m.Payload)) != nil {
		return err
	}
	err = o.send(p)
	_ = unix.SetsockoptInt(o.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, short/2) // it reads twice what was set, socket(7)
	return err
}
