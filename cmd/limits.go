//go:build linux

package cmd

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"fdkit/exec"
)

// limitFlags are the options that bound what clients take up.
func limitFlags() []cli.Flag {
	return []cli.Flag{
		&cli.GenericFlag{Name: "per-source", Usage: "run at most `N[/V4[,V6]]` programs at once for each client address, of which V4 or V6 bits count", Value: &perSource{}},
		&cli.GenericFlag{Name: "per-source-message", Usage: "write `TEXT` to clients whom --per-source refuses", Value: &message{}},
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
	l.perSource.Message = c.Generic("per-source-message").(*message).text
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
		pool.Started = func(run *exec.Run) { run.Note, _ = origin(run.Env, run.Begin) }
	}
	pool.Limited = func(run *exec.Run) {
		why := map[string]string{
			exec.LimitTimeout:   fmt.Sprintf("it has run for %s", l.times.Run),
			exec.LimitIdle:      fmt.Sprintf("nothing has gone over its connection for %s", l.times.Idle),
			exec.LimitFirstByte: fmt.Sprintf("its client has sent nothing for %s", l.times.FirstByte),
		}[run.Limit]
		log.notice("pid %d for %s is ended: %s", run.PID, run.Note, why)
	}
	refused := &refusals{log: log}
	pool.Refused = func(reason string, c *exec.Connection) {
		refused.add(reason, func() string {
			peer, waited := origin(pool.Environ.For(c.FDs[0], c.Payload), time.Now())
			why := map[string]string{
				exec.RefusedPerSource:    fmt.Sprintf("%d programs run for its source", l.perSource.N),
				exec.RefusedQueueTimeout: "it has waited " + waited,
				exec.RefusedGone:         "its client has gone",
			}[reason]
			return fmt.Sprintf("closed the connection of %s: %s", peer, why)
		})
	}
	return refused.end
}

// perSource is the value of --per-source.
type perSource struct{ limit exec.SourceLimit }

func (p *perSource) Set(text string) error {
	programs, networks, hasNetworks := strings.Cut(text, "/")
	v4, v6, hasV6 := strings.Cut(networks, ",")
	if !hasNetworks {
		v4 = "32"
	}
	if !hasV6 {
		v6 = "64"
	}
	n, err := parseCount(programs, 1<<20)
	if err != nil {
		return fmt.Errorf("%q is no number of programs from 1 to %d", programs, 1<<20)
	}
	bits4, err4 := parseCount(v4, 32)
	bits6, err6 := parseCount(v6, 128)
	if err := cmp.Or(err4, err6); err != nil {
		return fmt.Errorf("%q is not such as 3, 3/24 or 3/24,56, with prefix lengths of at most 32 and 128", text)
	}
	p.limit = exec.SourceLimit{N: n, IPv4Bits: bits4, IPv6Bits: bits6}
	return nil
}

func (p *perSource) String() string { return "" }

// parseCount parses a number from 1 to high, of digits only.
func parseCount(text string, high int) (int, error) {
	n, err := strconv.Atoi(text)
	if err == nil && (n < 1 || n > high || strings.Trim(text, "0123456789") != "") {
		err = strconv.ErrRange
	}
	return n, err
}

// message is the value of --per-source-message. It has the escapes of tcpsvd(1), and
// like there no end of line of its own.
type message struct{ text []byte }

func (m *message) Set(text string) error {
	if text == "" {
		return errors.New("the text is empty")
	}
	m.text = nil
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c == '\\' {
			i++
			at := -1
			if i < len(text) {
				at = strings.IndexByte(`\nr`, text[i])
			}
			if at < 0 {
				return fmt.Errorf(`%s has a backslash that begins none of \n, \r and \\`, text)
			}
			c = "\\\n\r"[at]
		}
		m.text = append(m.text, c)
	}
	return nil
}

func (m *message) String() string { return "" }
