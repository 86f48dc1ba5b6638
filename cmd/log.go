//go:build linux

package cmd

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"fdkit/internal/hint"
)

// Verbosity, as the UCSPI tools have it.
type level int

const (
	levelNothing level = iota // -q
	levelErrors               // -Q, the default
	levelAll                  // -v
)

// logger writes lines for people to stderr, each with one write(2), so that the
// lines of several processes do not mix.
type logger struct {
	name    string // of the program: fdkit listen
	level   level
	journal *journal // nil: lines are written at once
}

func (l logger) write(text string) {
	if l.journal != nil {
		l.journal.add(text)
		return
	}
	writeLog(text)
}

func writeLog(text string) {
	// Not os.Stderr, whose Write ends the process by SIGPIPE when the reader of
	// the log has died.
	_, _ = unix.Write(2, []byte(text))
}

// error says an error, and its cure if one is known.
func (l logger) error(err error) {
	if l.level < levelErrors {
		return
	}
	text := l.name + ": " + oneLine(err.Error()) + "\n"
	if h := hint.Of(err); h != "" {
		text += l.name + ": hint: " + h + "\n"
	}
	l.write(text)
}

// notice says what a person who waits would like to know.
func (l logger) notice(format string, args ...any) {
	if l.level >= levelErrors {
		l.write(l.name + ": " + oneLine(fmt.Sprintf(format, args...)) + "\n")
	}
}

// info says what happens.
func (l logger) info(format string, args ...any) {
	if l.level >= levelAll {
		l.notice(format, args...)
	}
}

// oneLine keeps what came from outside from breaking out of its line.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, text)
}
