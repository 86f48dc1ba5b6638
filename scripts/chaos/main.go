//go:build linux

// Chaos runs the real fdkit under load while it injects faults, and holds what became of
// each connection against what is expected. make chaos is the long run, make chaos-short
// the one of CI.
//
// One case is run by naming it. README.md tells of that, and what the figures mean.
package main

import (
	"context"
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// aCase is one kind of fault.
type aCase struct {
	name, what string
	run        func(e *env, r *row)
}

// cases returns all cases, in the order in which they run.
func cases() []aCase {
	return []aCase{
		{"kill", "a resident worker is killed every 50 ms", killWorkers},
		{"stop", "a resident worker is stopped every 50 ms", stopWorkers},
		{"replace-listen", "listen is replaced every 20 ms", replaceListen},
		{"replace-pool", "pool is replaced every 20 ms", replacePool},
		{"replace-serve", "serve is replaced every 20 ms", replaceServe},
		{"kill-listen", "listen is killed and started again every 20 ms", killListen},
		{"stages", "each stage of a pipeline is ended by each signal", killStages},
		{"few-listen", "listen is out of descriptors", fewForListen},
		{"few-serve", "serve is out of descriptors", fewForServe},
		{"few-pool", "pool is out of descriptors", fewForPool},
		{"in-flight", "ETOOMANYREFS: the user has too many descriptors in flight", inFlight},
		{"crowd", "ten times more clients than slots", crowd},
		{"signals", "storms of signals", signalStorm},
		{"closed", "standard descriptors closed at the start", closedAtStart},
		{"non-blocking", "connections from a foreign sender are non-blocking", foreignNonblocking},
		{"injected", "Unix clients send descriptors to the programs", injected},
		{"strangers", "another user, wrong tokens and silence at the rendezvous", strangers},
		{"vanish", "clients vanish while they are queued", vanish},
		{"loris-proxy", "slow clients at the PROXY protocol", lorisProxy},
		{"loris-route", "slow clients at route", lorisRoute},
		{"soak-resident", "many connections, resident workers with leases", soakResident},
		{"soak-program", "many connections, a program for each", soakPrograms},
		{"soak-serve", "many connections, a program of serve's for each", soakServe},
	}
}

func main() {
	if len(os.Args) > 1 && filepath.Base(os.Args[0]) == inside {
		serve(os.Args[1:])
		return
	}
	var o options
	flag.StringVar(&o.fdkit, "fdkit", "", "run this `program` instead of building one")
	flag.BoolVar(&o.short, "short", os.Getenv("CHAOS") == "short", "take less than three minutes; also CHAOS=short")
	flag.Uint64Var(&o.seed, "seed", rand.Uint64N(1e9), "`number` that chooses the moments of the faults")
	flag.StringVar(&o.results, "results", "", "write the table to this `file` too, after the long run of all cases")
	flag.BoolVar(&o.keep, "keep", false, "keep the directory with the logs")
	flag.Float64Var(&o.part, "part", 1, "have this `part` of the long run's connections, as 0.1, but no less than the short run")
	list := flag.Bool("list", false, "list the cases")
	flag.Parse()
	all := cases()
	if *list {
		for _, c := range all {
			fmt.Printf("%-14s %s\n", c.name, c.what)
		}
		return
	}
	for _, name := range flag.Args() {
		if !slices.ContainsFunc(all, func(c aCase) bool { return c.name == name }) {
			fmt.Fprintf(os.Stderr, "chaos: there is no case %s; -list has them all\n", name)
			os.Exit(100)
		}
	}
	if err := o.mayWrite(flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(100)
	}
	if names := flag.Args(); len(names) > 0 {
		all = slices.DeleteFunc(all, func(c aCase) bool { return !slices.Contains(names, c.name) })
	}
	ok, err := run(o, all)
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(111)
	}
	if !ok {
		os.Exit(1)
	}
}

type options struct {
	fdkit, results string
	short, keep    bool
	seed           uint64
	part           float64
}

// run runs the cases and tells whether all figures are as expected.
func run(o options, all []aCase) (ok bool, err error) {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	// What was ignored when this program was started, as by nohup(1), would be by fdkit too.
	for _, sig := range []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGPIPE} {
		if signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
	place, err := enterNetwork()
	if err != nil {
		return false, err
	}
	dir, err := os.MkdirTemp("", "fdkit-chaos")
	if err != nil {
		return false, err
	}
	if o.keep {
		fmt.Println("the logs are in", dir)
	} else {
		defer os.RemoveAll(dir)
	}
	if err := os.Chmod(dir, 0o755); err != nil { // other users run fdkit, too
		return false, err
	}
	if o.fdkit, err = program(ctx, o.fdkit, dir); err != nil {
		return false, err
	}
	fmt.Printf("seed %d, %s\n\n", o.seed, place)
	table := table{options: o, begin: time.Now()}
	table.head(os.Stdout)
	for _, c := range all {
		name := fnv.New64a()
		name.Write([]byte(c.name))
		e := &env{
			Context: ctx, options: o, dir: filepath.Join(dir, c.name), marker: fmt.Sprintf("%s/%d", dir, os.Getpid()),
			random: rand.New(rand.NewPCG(o.seed, name.Sum64())),
		}
		r := &row{name: c.name, what: c.what}
		begin := time.Now()
		e.attempt(c.run, r)
		r.took = time.Since(begin)
		table.add(os.Stdout, r)
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
	}
	return table.finish(os.Stdout), table.write(o.results, "chaos "+strings.Join(os.Args[1:], " "))
}
