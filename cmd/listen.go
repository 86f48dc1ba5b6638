//go:build linux

package cmd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"fdkit/fdsend"
	"fdkit/listen"
)

func listenCommand() *cli.Command {
	return &cli.Command{
		Name:      "listen",
		Usage:     "accept connections and send each as a descriptor",
		UsageText: "fdkit listen [OPTION...] ADDRESS...",
		Description: "ADDRESS is :PORT, HOST:PORT, [IPV6]:PORT, tcp:HOST:PORT, tcp4:HOST:PORT,\n" +
			"tcp6:HOST:PORT, unix:PATH, unix:@NAME, fd:N, systemd: or systemd:NAME.\n" +
			"See fdkit-listen(1).",
		Flags: append(append([]cli.Flag{
			&cli.StringFlag{Name: "to", Usage: "send to `QUEUE` instead of stdout"},
			&cli.BoolFlag{Name: "1", Usage: "once listening, write the port to stdout", DisableDefaultText: true},
		}, append(append(boundFlags(), socketFlags()...), queueFlags()...)...), verbosityFlags()...),
		Action: runListen,
	}
}

// boundFlags are the options of the commands that listen, but for socket options.
func boundFlags() []cli.Flag {
	return []cli.Flag{
		numberFlag("backlog", "let `N` connections wait in the kernel", 1, 1<<31-1, listen.DefaultBacklog),
		numberFlag("address-fd", "once listening, write each bound address as a line to descriptor `N`, and close it", 0, 1<<20, -1),
		numberFlag("ready-fd", "once listening, write a newline to descriptor `N`, and close it", 0, 1<<20, -1),
	}
}

func runListen(c *cli.Context) error {
	log := loggerOf(c)
	addresses, err := parseAddresses(c.Args().Slice())
	if err != nil {
		return err
	}
	options, err := listenOptions(c, addresses)
	if err != nil {
		return err
	}
	outputs, err := outputsOf(c)
	if err != nil {
		return err
	}
	// From here on the signals are ours: none may leave a socket file behind.
	signals := endings()
	listeners, err := listenAll(addresses, options)
	if err != nil {
		return err
	}
	defer closeListeners(listeners)
	warnCut(c, log)
	if err := checkQueue(c, "to"); err != nil {
		return err
	}
	var q *fdsend.Queue
	sig := unless(signals, func(stop <-chan struct{}) {
		o := fdsend.Options(queueOptionsOf(c, log))
		o.Stop = stop
		q, err = fdsend.Open(c.String("to"), o)
	})
	switch {
	case sig != nil && err == nil:
		_, err = q.Close()
		return err
	case sig != nil:
		return nil // told to end before it began
	case err != nil:
		return err
	}
	for _, l := range listeners {
		log.info("listening on %v", l)
	}
	if err := outputs.tell(listeners); err != nil {
		_, _ = q.Close()
		return err
	}
	closeUnused(addresses, log)
	s := service{log: log, listeners: listeners, queue: q, notify: newNotifier(log)}
	defer s.notify.end()
	return s.run(signals)
}

func parseAddresses(operands []string) (addresses []listen.Address, err error) {
	if len(operands) == 0 {
		return nil, usageHint("fdkit listen :8080 listens on port 8080 of all addresses", "an address is missing")
	}
	if err := refuseOptions(operands, "address"); err != nil {
		return nil, err
	}
	for _, operand := range operands {
		a, err := listen.ParseAddress(operand)
		if err != nil {
			return nil, usagef("address %s: %w", operand, err)
		}
		addresses = append(addresses, a)
	}
	return addresses, checkInherited(addresses)
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

// outputs are the descriptors that are told when the addresses are bound.
type outputs struct {
	addresses, ready int // -1: none
	port             bool
}

func outputsOf(c *cli.Context) (outputs, error) {
	o := outputs{numberOf(c, "address-fd"), numberOf(c, "ready-fd"), c.Bool("1")}
	to := c.String("to")
	toStdout := to == "" || to == "fd:1"
	if o.port && toStdout {
		return o, usageHint("-1 goes with --to QUEUE", "option -1: stdout is the queue")
	}
	for _, out := range []struct {
		option string
		fd     int
	}{{"--address-fd", o.addresses}, {"--ready-fd", o.ready}} {
		if out.fd < 0 {
			continue
		}
		if out.fd == 1 && toStdout || to == fmt.Sprintf("fd:%d", out.fd) {
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
		null, openErr := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if openErr == nil {
			_ = unix.Dup3(null, fd, 0)
			_ = unix.Close(null)
		}
	default:
		_ = unix.Close(fd)
	}
	return err
}

// service is a running fdkit listen.
type service struct {
	log       logger
	listeners []*listen.Listener
	queue     *fdsend.Queue
	notify    *notifier

	accepted atomic.Int64 // counted for notify

	ends    chan end           // of Serve
	serving int                // how many Serves run
	paused  bool               // whether accepting pauses
	idle    []*listen.Listener // those whose Serve has ended for that
	lost    int                // connections that were accepted and closed
	failure error
}

// run serves until a signal comes, no receiver is left or a call fails.
func (s *service) run(signals <-chan os.Signal) error {
	s.ends = make(chan end, len(s.listeners))
	pauses := make(chan os.Signal, 2)
	signal.Notify(pauses, syscall.SIGUSR1, syscall.SIGUSR2)
	for _, l := range s.listeners {
		s.serve(l)
	}
	s.notify.status(s.status)
	s.notify.ready()
	for running := true; running; {
		select {
		case <-s.notify.ticks():
			s.notify.tick()
		case sig := <-pauses:
			s.pause(sig == syscall.SIGUSR1)
		case e := <-s.ends:
			switch running = s.ended(e); {
			case running && s.paused:
				s.idle = append(s.idle, e.listener)
			case running: // resumed meanwhile
				s.serve(e.listener)
			}
		case <-s.queue.Gone():
			s.notify.stopping()
			running = false
		case <-signals:
			s.notify.stopping()
			closeListeners(s.listeners)
			s.drain(signals)
			running = false
		}
	}
	closeListeners(s.listeners)
	queued, err := s.queue.Close() // ends the Sends that still wait
	for s.serving > 0 {
		s.ended(<-s.ends)
	}
	if s.lost += queued; s.lost > 0 {
		s.log.error(fmt.Errorf("no receiver is left: closed %d connections that were accepted", s.lost))
	}
	return errors.Join(s.failure, err)
}

// end is the end of Serve for one listener.
type end struct {
	listener *listen.Listener
	err      error
}

func (s *service) serve(l *listen.Listener) {
	s.serving++
	go func() { s.ends <- end{l, l.Serve(s.queue.Sender(), s.events(l))} }()
}

// ended takes note of an end, and returns whether that was only for a pause.
func (s *service) ended(e end) bool {
	s.serving--
	if sending, ok := errors.AsType[*listen.SendError](e.err); ok {
		s.lost++
		e.err = sending.Err
	} else if errors.Is(e.err, listen.ErrStopped) {
		return true
	}
	if s.failure == nil && !errors.Is(e.err, listen.ErrStopped) && !errors.Is(e.err, fdsend.ErrGone) {
		s.failure = e.err
	}
	return false
}

// pause makes accepting pause or go on. The sockets go on listening meanwhile, and
// clients wait in their backlogs.
func (s *service) pause(pause bool) {
	if pause == s.paused {
		return
	}
	s.paused = pause
	if pause {
		for _, l := range s.listeners {
			l.Stop()
		}
		s.log.notice("accepting pauses until SIGUSR2")
		return
	}
	for _, l := range s.listeners {
		l.Resume()
	}
	for _, l := range s.idle {
		s.serve(l)
	}
	s.idle = nil
	s.log.notice("accepting again")
}

// drain waits until what is in hand is sent and what is queued received, or safe with
// others.
func (s *service) drain(signals <-chan os.Signal) {
	ctx, cancel := s.untilSecond(signals)
	defer cancel()
	for s.serving > 0 && ctx.Err() == nil {
		select {
		case e := <-s.ends:
			s.ended(e)
		case <-ctx.Done():
		}
	}
	_ = s.queue.Drain(ctx)
}

// untilSecond returns a context that ends with the second signal or when no
// receiver is left, and says what is waited for if that takes long.
func (s *service) untilSecond(signals <-chan os.Signal) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel()
		patience, patient := time.After(sameSignal), true
		for {
			select {
			case <-patience:
				patient = false
				s.log.notice("waiting for receivers to take what was accepted; a second signal ends this")
			case <-signals:
				if patient {
					continue
				}
				return
			case <-s.queue.Gone():
				return
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, cancel
}

func (s *service) events(l *listen.Listener) listen.Events {
	on := listen.Events{
		Pausing: func(cause error) { s.log.error(fmt.Errorf("%v: accepting pauses: %w", l, cause)) },
		Resumed: func() { s.log.notice("%v: accepting again", l) },
	}
	if s.log.level >= levelAll {
		on.Accepted = func(c *listen.Conn) { s.log.info("accepted %s at %s", c.Remote(), c.Local()) }
	}
	if log := on.Accepted; s.notify != nil {
		on.Accepted = func(c *listen.Conn) {
			s.accepted.Add(1)
			if log != nil {
				log(c)
			}
		}
	}
	return on
}

// status is what the service manager shows of the service.
func (s *service) status() string {
	text := fmt.Sprintf("accepted %d", s.accepted.Load())
	if queued, known := s.queue.Waiting(); known {
		text += fmt.Sprintf(", queued %d", queued)
	}
	if s.paused {
		text = "accepting pauses; " + text
	}
	return text
}
