//go:build linux

package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
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
		n(r.duplicated), n(r.cut), r.ok(), fmt.Sprintf("%.1f", r.took.Seconds()), strings.Join(r.expected, ", "))
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
	if len(r.wrong) > 0 || len(r.expected) == 0 {
		return "NO"
	}
	return "yes"
}

// finish tells whether all is as expected.
func (t *table) finish(w io.Writer) bool {
	bad := 0
	for _, r := range t.rows {
		if r.ok() != "yes" {
			bad++
		}
	}
	fmt.Fprintf(w, "\n%d of %d cases as expected, in %v\n", len(t.rows)-bad, len(t.rows), time.Since(t.begin).Round(time.Second))
	return bad == 0
}

// write writes the table as Markdown, if a file is given.
func (t *table) write(file, command string) error {
	if file == "" {
		return nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# Faults injected\n\nWritten by `%s -seed %d` on %s, %s. It is not to be edited.\n\n",
		command, t.seed, t.begin.UTC().Format("2006-01-02 15:04 UTC"), machine())
	b.WriteString("| case | connections | faults | served | refused | reset | lost | duplicated | cut | expected | ok |\n")
	b.WriteString("| --- | --: | --: | --: | --: | --: | --: | --: | --: | --- | --- |\n")
	for _, r := range t.rows {
		fmt.Fprintf(&b, "| %s: %s | %d | %d | %d | %d | %d | %d | %d | %d | %s | %s |\n", r.name, r.what, r.connections, r.faults,
			r.served, r.refused, r.reset, r.lost, r.duplicated, r.cut, strings.Join(r.expected, "; "), r.ok())
	}
	b.WriteString("\nA connection is cut if it failed when somebody had begun to serve it, and lost if nobody had.\n")
	for _, r := range t.rows {
		for _, text := range append(append([]string(nil), r.wrong...), r.notes...) {
			fmt.Fprintf(&b, "\n- %s: %s", r.name, text)
		}
	}
	b.WriteString("\n")
	return os.WriteFile(file, []byte(b.String()), 0o666)
}

// machine tells of the kernel and the processors.
func machine() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err.Error()
	}
	var cpus unix.CPUSet
	_ = unix.SchedGetaffinity(0, &cpus)
	return fmt.Sprintf("Linux %s, %s, %d processors", unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Machine[:]), cpus.Count())
}
