//go:build linux

package cmd

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// refusalPause is the time between two lines about what is refused or lost: a flood of it
// does not fill the log.
const refusalPause = 10 * time.Second

// refusals logs the connections that were refused, or with a verb what else there may be a
// flood of: with -v each, else one at once and then how many there were.
type refusals struct {
	log    logger
	verb   string // lost: it is of things that are lost; "": of connections that are refused
	mu     sync.Mutex
	counts map[string]int // by reason, since the last line
	timer  *time.Timer    // until the next one; nil: it may come at once
}

// severity is that of a line: what is lost is an error, a refusal is none.
func (r *refusals) severity(refusal slog.Level) slog.Level {
	if r.verb != "" {
		return isError
	}
	return refusal
}

// add enters a connection; the template is that of a line about it, and describe
// returns its fields.
func (r *refusals) add(reason, template string, describe func() []slog.Attr) {
	say := func(severity slog.Level) {
		r.log.event(severity, cmp.Or(r.verb, "refused"), template, append(describe(), slog.String("reason", reason))...)
	}
	if r.log.enabled(isInfo) {
		say(r.severity(isInfo))
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.timer == nil {
		say(r.severity(isNotice))
		r.counts = map[string]int{}
		r.timer = time.AfterFunc(refusalPause, r.summarize)
		return
	}
	r.counts[reason]++
}

// summarize says what has come since the last line, until nothing has.
func (r *refusals) summarize() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.timer == nil {
		return
	}
	if !r.say() {
		r.timer = nil
		return
	}
	r.timer.Reset(refusalPause)
}

func (r *refusals) say() bool {
	total := 0
	var reasons []string
	for _, reason := range slices.Sorted(maps.Keys(r.counts)) {
		total += r.counts[reason]
		reasons = append(reasons, fmt.Sprintf("%s %d", reason, r.counts[reason]))
	}
	switch {
	case total == 0:
	case r.verb != "":
		r.log.event(r.severity(isNotice), r.verb, r.verb+" "+count(total, "more time", "more times")+": {reasons}",
			slog.Int("times", total), slog.String("reasons", strings.Join(reasons, ", ")))
	default:
		r.log.event(isNotice, "refused", "refused "+count(total, "more connection", "more connections")+": {reasons}",
			slog.Int("connections", total), slog.String("reasons", strings.Join(reasons, ", ")))
	}
	clear(r.counts)
	return total > 0
}

// end says the rest. Nothing is logged any more afterwards.
func (r *refusals) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.timer != nil {
		r.timer.Stop()
		r.timer = nil
		r.say()
	}
}
