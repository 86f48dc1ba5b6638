//go:build linux

package cmd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/exec"
	"fdkit/internal/route"
)

// lastKeys is how long after the first signal keys are waited for.
const lastKeys = time.Second

// run routes connections until the input has ended, a signal comes or no queue is left,
// and what waits has been sent.
func (r *routing) run(signals, controls <-chan os.Signal) error {
	ended := make(chan error, 1)
	go func() { ended <- r.Run() }()
	r.notify.ready()
	for {
		select {
		case <-r.notify.ticks():
			r.notify.tick()
		case err := <-ended:
			r.notify.stopping()
			ctx, cancel := untilSignal(r.log, signals, nil)
			defer cancel()
			return r.finish(ctx, err)
		case sig := <-controls:
			if sig == syscall.SIGUSR1 {
				r.tell()
			} else if sig := r.reload(signals); sig != nil {
				return r.end(sig, signals, ended)
			}
		case sig := <-signals:
			return r.end(sig, signals, ended)
		}
	}
}

// end receives nothing more, and sends what waits, until a second signal comes.
func (r *routing) end(sig os.Signal, signals <-chan os.Signal, ended <-chan error) error {
	r.log.toldToEnd(sig)
	r.notify.stopping()
	r.Stop(lastKeys)
	ctx, cancel := untilSecond(r.log, signals, nil, "waiting for keys, and for receivers to take what was received")
	defer cancel()
	select {
	case err := <-ended:
		return r.finish(ctx, err)
	case <-ctx.Done():
		r.Abort()
		return r.finish(ctx, <-ended)
	}
}

// finish waits until what was sent is received, gives up all queues, and says what is lost
// with them.
func (r *routing) finish(ctx context.Context, err error) error {
	r.Drain(ctx)
	return errors.Join(err, r.closeQueues())
}

func (r *routing) closeQueues() error {
	lost, err := r.Close()
	if r.closed > 0 {
		r.log.event(isError, "closed", "closed "+count(r.closed, "connection", "connections")+" that had to wait", slog.Int("connections", r.closed))
	}
	if lost > 0 {
		r.log.event(isError, "closed", "no receiver is left: closed "+count(lost, "connection that was", "connections that were")+" sent",
			slog.Int("connections", lost))
	}
	if r.input != nil {
		closeQueue(r.log, r.input)
	}
	return err
}

// table returns the routes of --to and of the file.
func (r *routing) table() (*route.Table, error) {
	table := route.NewTable(r.by)
	if r.file != "" {
		file := access{file: r.file, path: r.file, dir: unix.AT_FDCWD}
		text, err := file.read()
		if err != nil {
			return nil, fmt.Errorf("cannot read the table %s: %w", r.file, err)
		}
		if table, err = route.ParseTable(strings.NewReader(text), r.file, r.by); err != nil {
			return nil, usageError{err}
		}
	}
	for _, to := range r.routes {
		if err := table.Add(to[0], to[1]); err != nil {
			return nil, usagef("option --to: %w", err)
		}
	}
	if len(table.Queues()) == 0 {
		return nil, usageHint("--to '*=./a.q' sends everything to a named queue", "there is no route")
	}
	return table, nil
}

// reload reads the table anew. If there is a mistake in it, the old one stays. It returns
// a signal that has come while queues were opened.
func (r *routing) reload(signals <-chan os.Signal) os.Signal {
	r.notify.reloading()
	defer r.notify.ready()
	table, err := r.table()
	var sig os.Signal
	if err == nil {
		sig = unless(signals, func(stop <-chan struct{}) { err = r.SetTable(table, stop) })
	}
	if err != nil {
		r.log.error(fmt.Errorf("%w; the routes stay as they were", err))
		return sig
	}
	r.log.notice("the routes are those of %s now", r.file)
	return sig
}

// tell says what waits, and what each queue has got.
func (r *routing) tell() {
	s := r.Status()
	r.log.event(isNotice, "status", "waiting for their key: {clients}", slog.Int("clients", s.Keyless))
	if lost := r.lost.Load(); lost > 0 {
		r.log.event(isNotice, "status", "lost since the start: {lost}", slog.Int64("lost", lost))
	}
	for _, q := range s.Queues {
		template := "queue {queue}: sent {sent}, waiting {waiting}"
		if q.Absent {
			template += ", has no receiver"
		}
		r.log.event(isNotice, "queue", template,
			slog.String("queue", q.Name), slog.Int("sent", q.Sent), slog.Int("waiting", q.Waiting))
	}
}

// lose counts connections that are lost, and says why.
func (r *routing) lose(connections int, why error) {
	r.lost.Add(int64(connections))
	if r.metrics != nil {
		r.metrics.lost.Add(int64(connections))
	}
	if !isLost(why) { // it has the number
		r.log.error(why)
		return
	}
	r.losses.add("descriptors", "{detail}", func() []slog.Attr { return []slog.Attr{slog.String("detail", why.Error())} })
}

// trouble says what has gone wrong.
func (r *routing) trouble(err error) { r.log.error(explainSend(err)) }

// sent says where a connection goes.
func (r *routing) sent(c *route.Connection, queue string) {
	if r.metrics != nil {
		r.metrics.sent.Add(1)
	}
	if r.log.enabled(isInfo) {
		r.log.event(isInfo, "sent", "sent {client} to {queue}, key {key}", append(r.describe(c), slog.String("queue", queue))...)
	}
}

// refused says that a connection is closed, and why.
func (r *routing) refused(c *route.Connection, reason string) {
	r.metrics.refused(reason)
	if reason == route.RefusedAtEnd {
		r.closed++
		return
	}
	detail := map[string]string{
		route.RefusedTimeout: fmt.Sprintf("its key is not there after %s", r.Timeout),
		route.RefusedCrowded: fmt.Sprintf("%d wait, and it has waited longest", r.MaxWaiting),
		route.RefusedGone:    "it has hung up before its key was there",
		route.RefusedNoRoute: "no route is for key {key}",
		route.RefusedNoQueue: "its queue has no receiver any more",
		route.RefusedSending: "it cannot be sent",
	}[reason]
	r.refusals.add(reason, "refused {client}: "+detail, func() []slog.Attr { return r.describe(c) })
}

// clientVariables takes from a message who its client is.
var clientVariables, _ = exec.NewEnviron(nil)

// shownKey is how many bytes of a key are in the log.
const shownKey = 100

// describe tells who the client is and what its key is.
func (r *routing) describe(c *route.Connection) []slog.Attr {
	key := "none"
	switch {
	case c.Known && r.by.Name == "source":
		key = r.log.client(c.Key)
	case c.Known && len(c.Key) > shownKey:
		key = strconv.Quote(c.Key[:shownKey]) + "..."
	case c.Known:
		key = strconv.Quote(c.Key)
	}
	return append(r.log.origin(clientVariables.For(c.FDs[0], c.Payload), time.Now()), slog.String("key", key))
}
