//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// write writes the table as Markdown, if a file is given. It is not written anew if a case
// was not run: what is there already is of more worth.
func (t *table) write(file, command string) error {
	if file == "" {
		return nil
	}
	for _, r := range t.rows {
		if r.skipped != "" {
			return fmt.Errorf("%s is not written, as %s was not run: %s", file, r.name, r.skipped)
		}
	}
	var b strings.Builder
	b.WriteString("# Faults injected\n\nWritten by `make chaos`, never by hand. [README.md](README.md) says what the columns mean.\n\n")
	for _, text := range append([]string{
		fmt.Sprintf("Command: `%s -seed %d`", command, t.seed),
		fmt.Sprintf("Date: %s; it took %v", t.begin.UTC().Format("2006-01-02 15:04 MST"), time.Since(t.begin).Round(time.Second)),
	}, circumstances(t.fdkit)...) {
		fmt.Fprintf(&b, "- %s\n", text)
	}
	b.WriteString("\n| case | what was done | connections | faults | served | refused | reset | lost | duplicated | cut | s | expected | ok |\n")
	b.WriteString("| --- | --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --- | --- |\n")
	for _, r := range t.rows {
		fmt.Fprintf(&b, "| %s | %s | %d | %d | %d | %d | %d | %d | %d | %d | %.0f | %s | %s |\n", r.name, r.what, r.connections,
			r.faults, r.served, r.refused, r.reset, r.lost, r.duplicated, r.cut, r.took.Seconds(), r.wanted("; "), r.ok())
	}
	b.WriteString("\nWhat else was seen:\n\n")
	for _, r := range t.rows {
		for _, text := range slices.Concat(r.wrong, r.notes) {
			fmt.Fprintf(&b, "- %s: %s\n", r.name, text)
		}
	}
	return os.WriteFile(file, []byte(b.String()), 0o666)
}

// mayWrite tells whether this run is one whose results are kept: the whole one.
func (o *options) mayWrite(cases []string) error {
	if o.results != "" && (o.short || o.part != 1 || len(cases) > 0) {
		return errors.New("-results is for the long run of all cases")
	}
	return nil
}

// circumstances is what figures depend on.
func circumstances(fdkit string) []string {
	var u unix.Utsname
	_ = unix.Uname(&u)
	version, err := exec.Command(fdkit, "--version").Output()
	if err != nil {
		version = []byte(err.Error())
	}
	return []string{
		"Kernel: Linux " + unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Machine[:]),
		fmt.Sprintf("CPU: %d of %s", runtime.NumCPU(), processor()),
		"fdkit: " + strings.TrimSpace(string(version)),
	}
}

func processor() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
