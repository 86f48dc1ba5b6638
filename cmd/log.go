//go:build linux

package cmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"fdkit/internal/hint"
	"fdkit/listen"
)

// Verbosity, as the UCSPI tools have it.
type level int

const (
	levelNothing level = iota // -q
	levelErrors               // -Q, the default
	levelAll                  // -v
)

// What a line is. Lines of information are for -v only.
const (
	isInfo   = slog.LevelInfo     // what happens
	isNotice = slog.LevelInfo + 2 // what a person who waits would like to know
	isError  = slog.LevelError
)

// logger writes lines to stderr, each with one write(2), so that the lines of
// several processes do not mix.
type logger struct {
	name      string // of the program: fdkit listen
	level     level
	json      bool     // --log json: lines for programs instead of people
	anonymize bool     // --log-anonymize
	journal   *journal // nil: lines are written at once
}

// enabled tells whether a line of that severity is written at all. It saves its
// fields' making where lines are many.
func (l logger) enabled(severity slog.Level) bool {
	return l.level >= levelAll || l.level == levelErrors && severity > isInfo
}

// event says that something has happened, which has a name for programs and a text
// for people: in the template, {pid} stands for the field pid. A field that is
// missing is unknown.
func (l logger) event(severity slog.Level, name, template string, fields ...slog.Attr) {
	if l.enabled(severity) {
		l.say(severity, name, fill(template, fields), "", fields)
	}
}

// error says an error, and its cure if one is known.
func (l logger) error(err error) {
	if l.enabled(isError) {
		l.say(isError, "error", l.textOf(err), hint.Of(err), nil)
	}
}

// notice says what a person who waits would like to know.
func (l logger) notice(format string, args ...any) {
	if l.enabled(isNotice) {
		l.say(isNotice, "notice", fmt.Sprintf(format, args...), "", nil)
	}
}

// info says what happens.
func (l logger) info(format string, args ...any) {
	if l.enabled(isInfo) {
		l.say(isInfo, "info", fmt.Sprintf(format, args...), "", nil)
	}
}

// toldToEnd says that a signal has come which ends the command.
func (l logger) toldToEnd(sig os.Signal) {
	l.event(isInfo, "signal", "told to end by {signal}", slog.String("signal", unix.SignalName(sig.(syscall.Signal))))
}

// textOf returns an error's text, without the client's address if that is not to be
// in the log.
func (l logger) textOf(err error) string {
	text := err.Error()
	if sending, ok := errors.AsType[*listen.SendError](err); ok {
		text = strings.ReplaceAll(text, sending.Remote, l.client(sending.Remote))
	}
	return text
}

// say writes a line. In JSON the cure is a field; for people it is a second line.
func (l logger) say(severity slog.Level, event, text, cure string, fields []slog.Attr) {
	text, cure = oneLine(text), oneLine(cure)
	if !l.json {
		text = l.name + ": " + text + "\n"
		if cure != "" {
			text += l.name + ": hint: " + cure + "\n"
		}
		l.write(text)
		return
	}
	r := slog.NewRecord(time.Now(), severity, text, 0)
	r.AddAttrs(slog.String("program", l.name), slog.String("event", event))
	if cure != "" {
		r.AddAttrs(slog.String("hint", cure))
	}
	r.AddAttrs(fields...)
	var line bytes.Buffer
	if slog.NewJSONHandler(&line, &jsonOptions).Handle(context.Background(), r) == nil {
		l.write(line.String())
	}
}

// logTime is how times are written in JSON, in UTC.
const logTime = "2006-01-02T15:04:05.000000Z"

var jsonOptions = slog.HandlerOptions{Level: isInfo, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
	switch {
	case a.Key == slog.TimeKey:
		a.Value = slog.StringValue(a.Value.Time().UTC().Format(logTime))
	case a.Key == slog.LevelKey:
		words := map[slog.Level]string{isInfo: "info", isNotice: "notice", isError: "error"}
		a.Value = slog.StringValue(words[a.Value.Any().(slog.Level)])
	case a.Value.Kind() == slog.KindDuration:
		a.Value = slog.Float64Value(a.Value.Duration().Round(time.Microsecond).Seconds())
	}
	return a
}}

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

// fill puts the fields into a template.
func fill(template string, fields []slog.Attr) string {
	var text strings.Builder
	for {
		before, rest, found := strings.Cut(template, "{")
		text.WriteString(before)
		if !found {
			return text.String()
		}
		name, after, _ := strings.Cut(rest, "}")
		text.WriteString(word(name, fields))
		template = after
	}
}

func word(name string, fields []slog.Attr) string {
	for _, f := range fields {
		switch {
		case f.Key != name:
		case f.Value.Kind() == slog.KindDuration:
			return f.Value.Duration().Round(time.Microsecond).String()
		default:
			return f.Value.String()
		}
	}
	return "unknown"
}

// count returns a number with what is counted: 1 connection, 2 connections.
func count(n int, one, many string) string {
	if n == 1 {
		many = one
	}
	return strconv.Itoa(n) + " " + many
}

// oneLine keeps what came from outside from breaking out of its line, and from
// commanding a terminal.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, text)
}
