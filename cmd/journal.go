//go:build linux

package cmd

import (
	"fmt"
	"sync/atomic"
	"time"
)

// journal writes a log in the background: a terminal that is held by Ctrl-S, or a
// log program that hangs, does not hold up the service. Lines that find no room
// meanwhile are counted, and the count is written in their place.
type journal struct {
	name    string
	lines   chan string
	missing atomic.Int64
	written chan struct{} // closed when all is written
}

const (
	journalLines = 4096        // that may wait
	journalEnd   = time.Second // to write the last ones
)

func newJournal(name string) *journal {
	j := &journal{name: name, lines: make(chan string, journalLines), written: make(chan struct{})}
	go func() {
		defer close(j.written)
		for line := range j.lines {
			writeLog(line)
			if n := j.missing.Swap(0); n > 0 {
				writeLog(fmt.Sprintf("%s: %d lines are missing here: nobody has read the log in time\n", j.name, n))
			}
		}
	}()
	return j
}

func (j *journal) add(line string) {
	select {
	case j.lines <- line:
	default:
		j.missing.Add(1)
	}
}

// end writes what waits, as far as somebody reads it. Nothing may be added any more.
func (j *journal) end() {
	close(j.lines)
	select {
	case <-j.written:
	case <-time.After(journalEnd):
	}
}
