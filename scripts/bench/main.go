//go:build linux

// Bench compares fdkit with others of its kind, and with small C programs that show
// the limit, side by side in one run:
//
//	bench [OPTION...] SUITE...
//
// It writes a table and plots for each suite. See README.md beside it.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A suite measures one thing.
type suite struct {
	name  string
	title string
	run   func(b *bench) error
}

// suites are all there are, in the order in which they are run.
var suites = []suite{
	{"spawn", "One program per connection", spawn},
	{"handover", "Hand-over to resident workers", handover},
	{"balance", "Balance among workers", balance},
	{"many", "Connections that stay", many},
	{"start", "Cost of a command", start},
}

// bench is one run.
type bench struct {
	fdkit  string        // the binary that is measured
	rounds int           // how often each contestant is measured
	each   time.Duration // for how long
	quick  bool          // only hold that each contestant starts and answers
	only   *regexp.Regexp
	// connections is how many the table of memory takes.
	connections int
	out         string // where results are written
	dir         string // for files that end with the run
	group       *cgroup
	failed      []string // contestants that did not do what they should
	missing     []string // those whose package is not installed
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == enterCommand {
		enter(os.Args[2], os.Args[3:])
	}
	if len(os.Args) == 2 && os.Args[1] == holderName {
		hold()
	}
	if err := run(); err != nil {
		if err != errSaid {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
		os.Exit(1)
	}
}

func run() error {
	b := &bench{}
	names := make([]string, len(suites))
	for i, s := range suites {
		names[i] = s.name
	}
	flag.Usage = func() {
		fmt.Fprintf(os.Stderr, "usage: bench [OPTION...] SUITE...\nsuites: all %s\n", strings.Join(names, " "))
		flag.PrintDefaults()
	}
	flag.StringVar(&b.fdkit, "fdkit", "bin/fdkit", "the fdkit that is measured")
	flag.IntVar(&b.rounds, "rounds", 5, "measure each contestant so often, in turn with the others")
	seconds := flag.Float64("seconds", 1, "measure for so long each time")
	flag.BoolVar(&b.quick, "quick", false, "one short round, which shows that each contestant starts and answers")
	only := flag.String("only", "", "contestants whose name matches this, and the reference")
	flag.StringVar(&b.out, "out", "scripts/bench/results", "the directory for results")
	flag.IntVar(&b.connections, "connections", 100_000, "suite start: measure memory after so many connections")
	flag.Parse()
	chosen := flag.Args()
	if slices.Contains(chosen, "all") {
		chosen = names
	}
	for _, name := range chosen {
		if !slices.Contains(names, name) {
			return fmt.Errorf("there is no suite %q; there are %s", name, strings.Join(names, " "))
		}
	}
	if len(chosen) == 0 || b.rounds < 1 || *seconds <= 0 || b.connections < 1 {
		flag.Usage()
		return errors.New("a suite is missing, or there is nothing to measure")
	}
	b.each = time.Duration(*seconds * float64(time.Second))
	if b.quick {
		b.rounds, b.each = 1, time.Minute // few connections end it
	}
	var err error
	if b.only, err = regexp.Compile(*only); err != nil {
		return err
	}
	if b.fdkit, err = filepath.Abs(b.fdkit); err != nil {
		return err
	}
	if _, err := os.Stat(b.fdkit); err != nil {
		return fmt.Errorf("%w; make builds it", err)
	}
	if !isolated() {
		return isolate()
	}
	return b.runSuites(chosen)
}

func (b *bench) runSuites(chosen []string) error {
	// inetd, xinetd and HAProxy are there, where users do not look.
	if err := os.Setenv("PATH", os.Getenv("PATH")+":/usr/local/sbin:/usr/sbin:/sbin"); err != nil {
		return err
	}
	if err := ownNetwork(); err != nil {
		return err
	}
	b.dir = os.Getenv(dirVar)
	var err error
	if b.group, err = openCgroup(); err != nil {
		fmt.Fprintf(os.Stderr, "bench: CPU time cannot be measured: %v\n", err)
		b.group = nil
	}
	for _, s := range suites {
		if !slices.Contains(chosen, s.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "suite %s: %s\n", s.name, s.title)
		if err := s.run(b); err != nil {
			return fmt.Errorf("suite %s: %w", s.name, err)
		}
	}
	if len(b.missing) > 0 {
		fmt.Fprintf(os.Stderr, "bench: not installed: %s\n", strings.Join(b.missing, ", "))
		if os.Getenv("CI") != "" {
			return errors.New("in CI no contestant may be missing")
		}
	}
	if len(b.failed) > 0 {
		return fmt.Errorf("some failed:\n%s", strings.Join(b.failed, "\n"))
	}
	return nil
}
