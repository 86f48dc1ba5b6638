//go:build linux

package cmd

import (
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"fdkit/exec"
	"fdkit/listen"
)

// limitFlags are the options that bound what clients take up.
func limitFlags() []cli.Flag {
	return []cli.Flag{
		&cli.GenericFlag{Name: "per-source", Usage: "run at most `N[/V4[,V6]]` programs at once for each client address, of which V4 or V6 bits count", Value: &perSource{}},
		&cli.GenericFlag{Name: "per-source-message", Usage: "write `TEXT` to clients whom --per-source refuses", Value: new(message), DefaultText: "none"},
		durationFlag("timeout", "end programs that have run for `TIME`"),
		durationFlag("idle-timeout", "end programs over whose connection nothing has gone for `TIME`"),
		durationFlag("first-byte-timeout", "end programs whose client has sent nothing for `TIME` after the start"),
		durationFlag("queue-timeout", "close connections that have waited for `TIME` before they are received, or whose client has gone"),
	}
}

// poolLimits are the limits of a pool.
type poolLimits struct {
	perSource exec.SourceLimit
	times     exec.TimeLimits
}

// limitsOf returns what the options ask for, in a pool with so many slots.
func limitsOf(c *cli.Context, slots int) (l poolLimits, err error) {
	l.perSource = c.Generic("per-source").(*perSource).limit
	l.perSource.Message = []byte(c.Generic("per-source-message").(*message).text)
	switch {
	case l.perSource.N == 0 && c.IsSet("per-source-message"):
		return l, usagef("option --per-source-message: it is for clients whom --per-source refuses, which is not given")
	case l.perSource.N >= slots:
		return l, usageHint("-n sets the number of slots", "option --per-source: %d programs for one client are never exceeded with %d slots", l.perSource.N, slots)
	}
	l.times.Kill = killDelay
	for _, o := range []struct {
		name  string
		field *time.Duration
	}{
		{"timeout", &l.times.Run},
		{"idle-timeout", &l.times.Idle},
		{"first-byte-timeout", &l.times.FirstByte},
		{"queue-timeout", &l.times.Queue},
	} {
		value := durationOf(c, o.name)
		if value == 0 {
			return l, usageHint("without the option there is no limit", "option --%s: the time is 0", o.name)
		}
		*o.field = max(value, 0)
		if run := l.times.Run; run > 0 && value >= run && (o.field == &l.times.Idle || o.field == &l.times.FirstByte) {
			return l, usagef("option --%s %s: programs are ended before, by --timeout %s", o.name, value, run)
		}
	}
	return l, nil
}

// apply sets the limits of a pool that has all its other functions, and logs what
// they do. When the pool has ended, done must be called.
func (l *poolLimits) apply(pool *exec.Pool, log logger) (done func()) {
	pool.PerSource, pool.Times = l.perSource, l.times
	if pool.Started == nil && max(l.times.Run, l.times.Idle, l.times.FirstByte) > 0 {
		pool.Started = func(run *exec.Run) { run.Note = log.origin(run.Env, run.Begin)[0] }
	}
	pool.Limited = func(run *exec.Run) {
		why := map[string]string{
			exec.LimitTimeout:   fmt.Sprintf("it has run for %s", l.times.Run),
			exec.LimitIdle:      fmt.Sprintf("nothing has gone over its connection for %s", l.times.Idle),
			exec.LimitFirstByte: fmt.Sprintf("its client has sent nothing for %s", l.times.FirstByte),
		}[run.Limit]
		log.event(isNotice, "limit", "pid {pid} for {client} is ended: {detail}",
			slog.Int("pid", run.PID), run.Note.(slog.Attr), slog.String("limit", run.Limit), slog.String("detail", why))
	}
	refused := &refusals{log: log}
	details := map[string]string{
		exec.RefusedPerSource:    fmt.Sprintf("%d programs run for its source", l.perSource.N),
		exec.RefusedQueueTimeout: "it has waited {waited}",
		exec.RefusedGone:         "its client has gone",
	}
	pool.Refused = func(reason string, c *exec.Connection) {
		refused.add(reason, "refused {client}: "+details[reason], func() []slog.Attr {
			return log.origin(pool.Environ.For(c.FDs[0], c.Payload), time.Now())
		})
	}
	return refused.end
}

// perSource is the value of --per-source.
type perSource struct{ limit exec.SourceLimit }

func (p *perSource) Set(text string) error {
	programs, networks, hasNetworks := strings.Cut(text, "/")
	n := number{min: 1, max: maxSlots}
	if err := n.Set(programs); err != nil {
		return fmt.Errorf("%q is no number of programs from 1 to %d", programs, maxSlots)
	}
	bits := prefixes{listen.DefaultPrefix4, listen.DefaultPrefix6}
	if hasNetworks {
		if err := bits.Set(networks); err != nil {
			return fmt.Errorf("%q is not such as 3, 3/24 or 3/24,56, with prefix lengths of at most 32 and 128", text)
		}
	}
	p.limit = exec.SourceLimit{N: n.value, IPv4Bits: bits.v4, IPv6Bits: bits.v6}
	return nil
}

func (p *perSource) String() string { return "" }
