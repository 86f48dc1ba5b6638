//go:build linux

package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// figures count what became of connections.
type figures struct {
	connections, served, refused, reset, cut, lost, duplicated int64
}

// row is what a case has found.
type row struct {
	name, what string
	faults     int64
	figures
	skipped  string   // why the case was not run; "": it was
	expected []string // figures, in words
	wrong    []string // those that are not so
	notes    []string // what else was measured
	traces   []string // when and how the first failures came, for a row that is wrong
	took     time.Duration
}

// expect says what is expected, and whether it has come.
func (r *row) expect(ok bool, want, got string, args ...any) {
	r.expected = append(r.expected, want)
	if !ok {
		r.wrong = append(r.wrong, fmt.Sprintf("%s: "+got, append([]any{want}, args...)...))
	}
}

// note keeps a measurement on which nothing depends, or whose verdict expect has.
func (r *row) note(format string, args ...any) {
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

// expectAllServed expects that no fault was noticed by any client.
func (r *row) expectAllServed() {
	r.expect(r.served == r.connections && r.refused+r.reset+r.cut+r.lost+r.duplicated == 0 && r.connections > 0,
		"all served", "%d of %d", r.served, r.connections)
}

const columns = "%-14s %11s %7s %9s %7s %6s %5s %6s %4s  %-3s %6s  %s\n"

// table is all that was found.
type table struct {
	options
	begin time.Time
	rows  []*row
}

func (t *table) head(w io.Writer) {
	fmt.Fprintf(w, columns, "case", "connections", "faults", "served", "refused", "reset", "lost", "duplic", "cut", "ok", "s", "expected")
}

func (t *table) add(w io.Writer, r *row) {
	t.rows = append(t.rows, r)
	n := func(n int64) string { return fmt.Sprint(n) }
	fmt.Fprintf(w, columns, r.name, n(r.connections), n(r.faults), n(r.served), n(r.refused), n(r.reset), n(r.lost),
		n(r.duplicated), n(r.cut), r.ok(), fmt.Sprintf("%.1f", r.took.Seconds()), r.wanted(", "))
	for _, text := range r.wrong {
		fmt.Fprintf(w, "    NOT AS EXPECTED: %s\n", text)
	}
	if len(r.wrong) > 0 {
		for _, text := range r.traces {
			fmt.Fprintf(w, "    %s\n", text)
		}
	}
	for _, text := range r.notes {
		fmt.Fprintf(w, "    %s\n", text)
	}
}

func (r *row) ok() string {
	if r.skipped != "" {
		return "-"
	}
	if len(r.wrong) > 0 || len(r.expected) == 0 {
		return "NO"
	}
	return "yes"
}

// wanted returns what is expected, or why it was not looked for.
func (r *row) wanted(between string) string {
	if r.skipped != "" {
		return "not run: " + r.skipped
	}
	return strings.Join(r.expected, between)
}

// finish tells whether all that was run is as expected.
func (t *table) finish(w io.Writer) bool {
	count := map[string]int{}
	for _, r := range t.rows {
		count[r.ok()]++
	}
	fmt.Fprintf(w, "\n%d of %d cases as expected, %d not run, in %v\n", count["yes"], len(t.rows), count["-"], time.Since(t.begin).Round(time.Second))
	return count["NO"] == 0
}
