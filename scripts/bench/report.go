//go:build linux

package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// report writes the tables of a suite to NAME.md, and their plots beside it.
func (b *bench) report(name, title string, tables ...*table) error {
	if err := os.MkdirAll(b.out, 0o777); err != nil {
		return err
	}
	var text strings.Builder
	fmt.Fprintf(&text, "# %s\n\nWritten by `make bench`, never by hand.\n\n", title)
	for _, line := range b.circumstances() {
		fmt.Fprintf(&text, "- %s\n", line)
	}
	if versions := versionsOf(tables); versions != "" {
		fmt.Fprintf(&text, "- Debian packages: %s\n", versions)
	}
	fmt.Fprintf(&text, "- Rounds: %d of %v for each contestant, in turn. "+
		"A figure is the median of all rounds; a ratio is to the first line in the same round, with median (least..greatest).\n", b.rounds, b.each)
	for _, t := range tables {
		t.write(&text)
		for i, m := range t.metrics {
			if !m.plot {
				continue
			}
			file := fmt.Sprintf("%s-%s.svg", t.name, strings.ReplaceAll(strings.ReplaceAll(m.name, ",", ""), " ", "-"))
			drawn, err := t.plot(i, filepath.Join(b.out, file))
			if err != nil {
				return fmt.Errorf("cannot plot %s: %w", file, err)
			}
			if !drawn {
				continue
			}
			fmt.Fprintf(&text, "\n![%s: %s](%s)\n", t.title, m.name, file)
		}
	}
	file := filepath.Join(b.out, name+".md")
	if err := os.WriteFile(file, []byte(text.String()), 0o666); err != nil {
		return err
	}
	fmt.Println(file)
	return nil
}

// versionsOf returns the packages of the contestants, with their versions.
func versionsOf(tables []*table) string {
	var names, all []string
	for _, t := range tables {
		for _, c := range t.contestants {
			if c.pkg != "" && !slices.Contains(names, c.pkg) {
				names = append(names, c.pkg)
			}
		}
	}
	slices.Sort(names)
	for _, name := range names {
		if version := packageVersion(name); version != "" {
			all = append(all, name+" "+version)
		}
	}
	return strings.Join(all, ", ")
}

// write writes t as Markdown.
func (t *table) write(text *strings.Builder) {
	fmt.Fprintf(text, "\n## %s\n\n", t.title)
	for _, note := range t.notes {
		fmt.Fprintf(text, "%s\n\n", note)
	}
	head, rule := "|", "|:---|"
	for _, m := range t.metrics {
		head += " | " + m.name
		if m.unit != "" {
			head += ", " + m.unit
		}
		rule += "---:|"
		if m.ratio {
			head += " | ratio"
			rule += "---:|"
		}
	}
	fmt.Fprintf(text, "%s |\n%s\n", head, rule)
	for _, r := range t.rows {
		fmt.Fprintf(text, "| %s |", r.name)
		for i, m := range t.metrics {
			if r.why != "" {
				if i == 0 {
					fmt.Fprintf(text, " %s", r.why)
				}
				fmt.Fprint(text, " |")
				if m.ratio {
					fmt.Fprint(text, " |")
				}
				continue
			}
			s := spreadOf(r.rounds, i)
			measured := !math.IsNaN(s.median)
			if measured {
				fmt.Fprintf(text, " %.*f |", m.digits, s.median)
			} else {
				fmt.Fprint(text, " not measured |")
			}
			if s = spreadOf(r.ratios, i); m.ratio && measured {
				fmt.Fprintf(text, " %.2f (%.2f..%.2f) |", s.median, s.min, s.max)
			} else if m.ratio {
				fmt.Fprint(text, " |")
			}
		}
		fmt.Fprintln(text)
	}
}
