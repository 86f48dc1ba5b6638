//go:build linux

package cmd

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// journal writes a log in the background: a terminal that is held by Ctrl-S, or a
// log program that hangs, does not hold up the service. Lines that find no room
// meanwhile are counted, and the count is written in their place.
type journal struct {
	lines   chan string
	missing atomic.Int64
	written chan struct{} // closed when all is written
	mu      sync.RWMutex
	ended   bool
}

const (
	journalLines = 4096        // that may wait
	journalEnd   = time.Second // to write the last ones
)

// newJournal returns the journal of log, whose journal it is to become.
func newJournal(log logger) *journal {
	j := &journal{lines: make(chan string, journalLines), written: make(chan struct{})}
	log.journal = nil
	go func() {
		defer close(j.written)
		for line := range j.lines {
			writeLog(line)
			if n := int(j.missing.Swap(0)); n > 0 {
				log.event(isError, "missing", count(n, "line is", "lines are")+" missing here: nobody has read the log in time",
					slog.Int("lines", n))
			}
		}
	}()
	return j
}

func (j *journal) add(line string) {
	j.mu.RLock()
	defer j.mu.RUnlock()
	if j.ended {
		return
	}
	select {
	case j.lines <- line:
	default:
		j.missing.Add(1)
	}
}

// end writes what waits, as far as somebody reads it. What is added later is dropped.
func (j *journal) end() {
	j.mu.Lock()
	j.ended = true
	close(j.lines)
	j.mu.Unlock()
	select {
	case <-j.written:
	case <-time.After(journalEnd):
	}
}
