//go:build linux

package cmd

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// refusalPause is the time between two lines about refused connections: a flood of
// them does not fill the log.
const refusalPause = 10 * time.Second

// refusals logs the connections that were refused: with -v each, else one at once and
// then how many there were.
type refusals struct {
	log    logger
	mu     sync.Mutex
	counts map[string]int // by reason, since the last line
	timer  *time.Timer    // until the next one; nil: it may come at once
}

// add enters a connection; line describes it.
func (r *refusals) add(reason string, line func() string) {
	if r.log.level >= levelAll {
		r.log.info("%s", line())
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.timer == nil {
		r.log.notice("%s", line())
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
	if total > 0 {
		r.log.notice("closed %d more connections: %s", total, strings.Join(reasons, ", "))
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
