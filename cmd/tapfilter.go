//go:build linux

package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"fdkit/fdrecv"
	"fdkit/fdsend"
	"fdkit/internal/interrupt"
)

// filter passes on what comes from one queue to another.
type filter struct {
	rec     *recorder
	from    *fdrecv.Queue
	to      *fdsend.Queue
	room    interrupt.Calls // that wait for room in the output
	ended   chan error      // what pass has returned
	lost    int             // messages in hand that nobody has taken
	failure error
}

func runFilter(c *cli.Context, rec *recorder) error {
	signals := endings()
	f := &filter{rec: rec, ended: make(chan error, 1)}
	var err error
	sig := unless(signals, func(stop <-chan struct{}) {
		// The output first: whoever receives from it can attach meanwhile.
		if f.to, err = openOutput(c, rec.log, 0, stop); err != nil {
			return
		}
		o := fdrecv.Options(queueOptionsOf(c, rec.log))
		o.Wait, o.Stop = waitOf(c), stop
		f.from, err = fdrecv.Open(c.String("from"), o)
	})
	if err == nil && sig == nil {
		return f.run(signals)
	}
	if f.from != nil {
		_, _ = f.from.Close()
	}
	if f.to != nil {
		_, _ = f.to.Close()
	}
	if sig != nil || errors.Is(err, fdrecv.ErrEnded) {
		return nil // told to end before it began, or nothing will come
	}
	return err
}

// run passes messages on until the input has ended, no receiver is left, or a signal
// comes.
func (f *filter) run(signals <-chan os.Signal) error {
	send, err := f.to.Speak("raw")
	if err != nil {
		return err
	}
	receiver, err := f.from.Speak("raw", fdrecv.Want{})
	if err != nil {
		return err
	}
	defer receiver.Close()
	go func() { f.ended <- f.pass(receiver, send) }()
	const waiting = "waiting for receivers to take what was received"
	select {
	case err := <-f.ended:
		f.end(err)
		ctx, cancel := untilSignal(f.rec.log, signals, f.to.Gone())
		_ = f.to.Drain(ctx)
		cancel()
	case <-f.to.Gone():
		f.stop()
	case sig := <-signals:
		f.rec.log.toldToEnd(sig)
		f.stop()
		ctx, cancel := untilSecond(f.rec.log, signals, f.to.Gone(), waiting)
		select {
		case err := <-f.ended:
			f.end(err)
		case <-ctx.Done():
		}
		_ = f.to.Drain(ctx)
		cancel()
	}
	return f.close()
}

// untilSignal returns a context that ends with a signal or with gone.
func untilSignal(log logger, signals <-chan os.Signal, gone <-chan struct{}) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel()
		select {
		case sig := <-signals:
			log.toldToEnd(sig)
		case <-gone:
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// stop lets nothing more be received.
func (f *filter) stop() {
	f.room.Stop()
	f.from.Stop()
}

// pass passes on what comes. A message is received only when the output has room for it:
// so nothing is in hand while there is none, and what waits does so at the input.
func (f *filter) pass(receiver *fdrecv.Receiver, send func(fdsend.Parcel) error) error {
	out := f.to.Sender().FD()
	typ, err := unix.GetsockoptInt(out, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	var m fdrecv.Message
	for {
		if _, err := f.room.Wait(out, unix.POLLOUT, -1); err != nil {
			return err
		}
		switch err := receiver.Receive(&m); {
		case isLost(err):
			f.rec.log.error(fmt.Errorf("a message is lost: %w", err))
			continue
		case err != nil:
			return err
		}
		if m.Cut {
			f.rec.log.error(fmt.Errorf("a message is passed on without its end: it has more than %d bytes", len(m.Payload)))
		}
		f.rec.passed(&m)
		if len(m.Payload) == 0 && typ == unix.SOCK_STREAM {
			f.rec.log.error(fmt.Errorf("a message is lost: it has no bytes, without which a stream carries no descriptors"))
			m.Close()
			continue
		}
		err := send(fdsend.Parcel{FDs: m.FDs, Payload: m.Payload})
		m.Close()
		if err != nil {
			f.lost++
			return explainSend(err)
		}
	}
}

func isLost(err error) bool {
	_, lost := errors.AsType[*fdrecv.LostError](err)
	return lost
}

// end takes note of the end of pass.
func (f *filter) end(err error) {
	f.ended = nil
	if !errors.Is(err, io.EOF) && !errors.Is(err, fdsend.ErrStopped) && !errors.Is(err, fdsend.ErrGone) {
		f.failure = fmt.Errorf("cannot pass a message on: %w", err)
	}
}

// close gives up both queues, and says what is lost with them.
func (f *filter) close() error {
	queued, err := f.to.Close() // ends a send that still waits
	if f.ended != nil {
		f.end(<-f.ended)
	}
	if f.lost += queued; f.lost > 0 {
		f.rec.log.event(isError, "closed", "no receiver is left: closed "+count(f.lost, "message that was", "messages that were")+" received",
			slog.Int("messages", f.lost))
	}
	unreceived, _ := f.from.Close()
	if unreceived > 0 {
		f.rec.log.event(isError, "closed", "nobody else holds the input queue: closed "+count(unreceived, "message that was", "messages that were")+" in it",
			slog.Int("messages", unreceived))
	}
	return errors.Join(f.failure, err)
}
