//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"

	"golang.org/x/sys/unix"
)

// contestant is one row of a table.
type contestant struct {
	name    string
	needs   string // the program that it is, looked up in PATH; "": one of ours
	pkg     string // the Debian package that has it
	measure func() ([]float64, error)
}

// metric is one column of a table.
type metric struct {
	name, unit string
	digits     int  // after the point
	ratio      bool // to the reference in the same round: a further column
	plot       bool // draws the ratios
}

// table is one comparison. The first contestant is the reference.
type table struct {
	name        string // of its files
	title       string
	notes       []string // what a reader has to know
	metrics     []metric
	rounds      int // 0: as many as the user wants
	contestants []contestant
	absent      [][2]string // those that cannot be here, each with the reason
	rows        []row
}

// row is what came of a contestant.
type row struct {
	name   string
	why    string      // it has no figures
	rounds [][]float64 // by round, then by metric
	ratios [][]float64 // likewise, to the reference
}

// compare measures the contestants, one after the other in each round, so that what
// else the machine does meets all of them. It fills t.rows.
func (b *bench) compare(t *table) error {
	var here []contestant
	for i, c := range t.contestants {
		if i > 0 && !b.only.MatchString(c.name) {
			continue
		}
		r := row{name: c.name}
		if c.needs != "" {
			if _, err := exec.LookPath(c.needs); err != nil {
				r.why = "not installed (package " + c.pkg + ")"
				if !slices.Contains(b.missing, c.pkg) {
					b.missing = append(b.missing, c.pkg)
				}
			}
		}
		t.rows, here = append(t.rows, r), append(here, c)
	}
	rounds := b.rounds
	if t.rounds > 0 {
		rounds = t.rounds
	}
	for round := range rounds {
		for i, c := range here {
			r := &t.rows[i]
			if r.why != "" {
				continue
			}
			progress("%s, round %d of %d: %s", t.name, round+1, rounds, c.name)
			figures, err := c.measure()
			if err == nil && len(figures) != len(t.metrics) {
				err = fmt.Errorf("%d figures for %d metrics", len(figures), len(t.metrics))
			}
			if err != nil {
				err = fmt.Errorf("%s, %s, round %d: %w", t.name, c.name, round+1, err)
				if i == 0 {
					return err
				}
				r.why = "failed"
				b.failed = append(b.failed, err.Error())
				continue
			}
			r.rounds = append(r.rounds, figures)
			r.ratios = append(r.ratios, ratios(figures, t.rows[0].rounds[round]))
		}
	}
	progress("")
	for _, a := range t.absent {
		t.rows = append(t.rows, row{name: a[0], why: a[1]})
	}
	return nil
}

// progress says on a terminal what is going on, in place of what it said last.
func progress(format string, args ...any) {
	if _, err := unix.IoctlGetTermios(2, unix.TCGETS); err == nil {
		fmt.Fprintf(os.Stderr, "\r\x1b[K"+format, args...)
	}
}

// ratios divides figures by those of the reference.
func ratios(figures, reference []float64) []float64 {
	all := make([]float64, len(figures))
	for i := range figures {
		all[i] = figures[i] / reference[i]
	}
	return all
}

// spread is what is told of a figure over all rounds.
type spread struct{ median, min, max float64 }

// spreadOf returns the spread of column i.
func spreadOf(rounds [][]float64, i int) spread {
	column := make([]float64, len(rounds))
	for n, r := range rounds {
		column[n] = r[i]
	}
	slices.Sort(column)
	n := len(column)
	return spread{(column[(n-1)/2] + column[n/2]) / 2, column[0], column[n-1]}
}
