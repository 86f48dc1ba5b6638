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
	waiting atomic.Int64  // bytes
	missing atomic.Int64  // lines
	written chan struct{} // closed when all is written
	mu      sync.RWMutex
	ended   bool
}

const (
	journalLines = 4096        // that may wait
	journalBytes = 16 << 20    // the same
	journalEnd   = time.Second // to write the last ones
)

// newJournal returns the journal of log, whose journal it is to become.
func newJournal(log logger) *journal {
	log.journal = nil
	return newJournalTo(writeLog, func(n int) {
		log.event(isError, "missing", count(n, "line is", "lines are")+" missing here: nobody has read the log in time",
			slog.Int("lines", n))
	})
}

// newJournalTo returns a journal whose lines write writes; gap tells that so many are
// missing in this place.
func newJournalTo(write func(line string), gap func(n int)) *journal {
	j := &journal{lines: make(chan string, journalLines), written: make(chan struct{})}
	go func() {
		defer close(j.written)
		for line := range j.lines {
			write(line)
			j.waiting.Add(-int64(len(line)))
			if n := int(j.missing.Swap(0)); n > 0 {
				gap(n)
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
	if j.waiting.Add(int64(len(line))) <= journalBytes {
		select {
		case j.lines <- line:
			return
		default:
		}
	}
	j.waiting.Add(-int64(len(line)))
	j.missing.Add(1)
}

// end writes what waits, as far as somebody reads it, and returns how many lines nobody
// has read. What is added later is dropped.
func (j *journal) end() (unread int) {
	j.mu.Lock()
	j.ended = true
	close(j.lines)
	j.mu.Unlock()
	select {
	case <-j.written:
		return 0
	case <-time.After(journalEnd):
		return len(j.lines) + 1 + int(j.missing.Load())
	}
}
