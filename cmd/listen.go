//go:build linux

package cmd

import (
	"context"
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
	"fdkit/fdsend"
	"fdkit/internal/queue"
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
		Flags: slices.Concat([]cli.Flag{
			&cli.StringFlag{Name: "to", Usage: "send to `QUEUE` instead of stdout"},
			protoFlag("send in dialect `NAME`", true),
			metricsFlag(),
			takeoverFlag("the fdkit listen at the queue, with its sockets"),
			durationFlag("keep-listening", "when this process is killed, let others at the queue keep its sockets open for `TIME`"),
		}, intakeFlags(), privilegeFlags(), queueFlags(), clientLogFlags()),
		Action: runListen,
	}
}

func runListen(c *cli.Context) error {
	keepProcessors(1) // the thread that accepts and sends
	if c.NArg() == 0 {
		return usageHint("fdkit listen :8080 listens on port 8080 of all addresses", "an address is missing")
	}
	in, err := intakeOf(c, c.Args().Slice(), queueFD(c.String("to")))
	if err != nil {
		return err
	}
	if err := checkProto(c, "to"); err != nil {
		return err
	}
	if d := protoOf(c); d != nil && d.Once {
		return usageHint("fdkit connect and fdkit send can send one", "option --proto: dialect %s has one message, and connections are many", d.Name)
	}
	succession, err := successionOf(c, "to", in.log)
	if err != nil {
		return err
	}
	var process exec.Confinement
	if err := identify(c, &process); err != nil {
		return err
	}
	// From here on the signals are ours: none may leave a socket file behind.
	signals, controls := in.signals()
	metrics, err := metricsOf(c, in.log, true, false)
	if err != nil {
		return err
	}
	defer metrics.Close()
	s := service{intake: in, succession: succession, metrics: metrics}
	steps := []func(*cli.Context, <-chan os.Signal) (ended bool, err error){s.bind, s.attach}
	if queue.IsNamed(c.String("to")) {
		// The sockets may be there.
		steps = []func(*cli.Context, <-chan os.Signal) (ended bool, err error){s.attach, s.succeed, s.bind}
	}
	defer s.giveUp()
	for _, step := range steps {
		if ended, err := step(c, signals); ended || err != nil {
			return err
		}
	}
	succession.log = in.log // which is written in the background since bind
	if err := succession.enter(in.listeners); err != nil {
		return err
	}
	// Before another root directory hides the socket.
	in.notify = newNotifier(in.log)
	defer in.notify.end()
	if err = drop(process); err == nil {
		err = in.open()
	}
	if err != nil {
		return err
	}
	metrics.watchQueue(s.queue.Waiting)
	return s.run(signals, controls)
}

// bind binds the addresses.
func (s *service) bind(c *cli.Context, _ <-chan os.Signal) (ended bool, err error) {
	if err := s.intake.bind(c, true, s.metrics); err != nil {
		return false, s.succession.explain(err)
	}
	return false, checkQueue(c, "to")
}

// attach opens the queue, unless a signal ends that.
func (s *service) attach(c *cli.Context, signals <-chan os.Signal) (ended bool, err error) {
	if err := checkQueue(c, "to"); err != nil {
		return false, err
	}
	sig := unless(signals, func(stop <-chan struct{}) {
		s.queue, s.sink, err = openSink(c, s.log, stop)
	})
	if sig != nil {
		return true, nil // told to end before it began
	}
	s.sink = s.metrics.sink(s.sink)
	return false, err
}

// succeed finds out whose place is to be taken, and whose sockets can be had.
func (s *service) succeed(*cli.Context, <-chan os.Signal) (ended bool, err error) {
	err = s.succession.open(s.queue)
	s.options.Kept = &s.succession.kept
	return false, err
}

// giveUp gives up what the steps have got, as far as that was not given up before.
func (s *service) giveUp() {
	s.succession.leave()
	if s.acceptor != nil {
		s.close()
	}
	if s.queue != nil {
		_, _ = s.queue.Close()
	}
}

// noQueue stands for a queue that is no descriptor of this process's parent.
const noQueue = -1

// queueFD returns the descriptor that is the queue which --to names, or noQueue.
func queueFD(to string) int {
	if to == "" {
		return 1
	}
	number, _ := strings.CutPrefix(to, "fd:")
	if fd, err := strconv.Atoi(number); err == nil && number != to {
		return fd
	}
	return noQueue
}

// service is a running fdkit listen.
type service struct {
	*intake
	succession *succession
	metrics    *metrics
	queue      *fdsend.Queue
	sink       listen.Sink // the queue

	ended   chan error // of Serve
	lost    int        // connections that were accepted and closed
	failure error
}

// run serves until a signal comes, no receiver is left or a call fails.
func (s *service) run(signals, controls <-chan os.Signal) error {
	s.ended = make(chan error, 1)
	go func() { s.ended <- s.acceptor.Serve(s.sink) }()
	s.succession.relieve(s.queue, s.metrics)
	s.notify.status(s.status)
	s.notify.ready()
	for serving := true; serving; {
		select {
		case sig := <-controls:
			s.obey(sig)
			continue
		case <-s.notify.ticks():
			s.notify.tick()
			continue
		case err := <-s.ended:
			s.end(err)
		case <-s.queue.Gone():
			s.notify.stopping()
		case <-s.succession.seat.Replaced():
			s.succession.replaced()
			s.notify.stopping()
			s.acceptor.Leave()
			s.succession.leave()
			s.metrics.Close()
			s.drain(signals)
		case sig := <-signals:
			s.log.toldToEnd(sig)
			s.notify.stopping()
			s.acceptor.Close()
			s.succession.leave()
			s.drain(signals)
		}
		serving = false
	}
	s.acceptor.Close()
	s.succession.leave()
	queued, err := s.queue.Close() // ends a Send that still waits
	if s.ended != nil {
		s.end(<-s.ended)
	}
	s.abandon()
	if s.lost += queued; s.lost > 0 {
		s.log.event(isError, "closed", "no receiver is left: closed "+count(s.lost, "connection that was", "connections that were")+" accepted",
			slog.Int("connections", s.lost))
	}
	return errors.Join(s.failure, err)
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

// end takes note of the end of Serve.
func (s *service) end(err error) {
	s.ended = nil
	if sending, ok := errors.AsType[*listen.SendError](err); ok {
		s.lost++
		err = sending.Err
	}
	if !errors.Is(err, listen.ErrStopped) && !errors.Is(err, fdsend.ErrGone) {
		s.failure = err
	}
}

// drain waits until what is in hand is sent and what is queued received, or safe with
// others.
func (s *service) drain(signals <-chan os.Signal) {
	ctx, cancel := s.untilSecond(signals)
	defer cancel()
	select {
	case err := <-s.ended:
		s.end(err)
	case <-ctx.Done():
	}
	_ = s.queue.Drain(ctx)
}

// untilSecond returns a context that ends with the second signal or when no
// receiver is left, and says what is waited for if that takes long.
func (s *service) untilSecond(signals <-chan os.Signal) (context.Context, context.CancelFunc) {
	return untilSecond(s.log, signals, s.queue.Gone(), "waiting for receivers to take what was accepted")
}

// untilSecond returns a context that ends with the second signal or with gone, and says
// what it is waiting for if that takes long.
func untilSecond(log logger, signals <-chan os.Signal, gone <-chan struct{}, waiting string) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel()
		patience, patient := time.After(sameSignal), true
		for {
			select {
			case <-patience:
				patient = false
				log.notice("%s; a second signal ends this", waiting)
			case <-signals:
				if patient {
					continue
				}
				return
			case <-gone:
				return
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, cancel
}
