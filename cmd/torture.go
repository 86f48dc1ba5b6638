//go:build linux

package cmd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"fdkit/exec"
	"fdkit/internal/fdinfo"
	"fdkit/internal/queue"
	"fdkit/internal/torture"
)

func tortureCommand() *cli.Command {
	return &cli.Command{
		Name:      "torture",
		Usage:     "test a program that receives or sends descriptors with what it does not expect",
		UsageText: "fdkit torture [OPTION...] ENDPOINT\nfdkit torture [OPTION...] --run PROGRAM [ARGUMENT...]\nfdkit torture [--sender] --list",
		Description: "ENDPOINT is unix:PATH, unix-seqpacket:PATH, unix-dgram:PATH, unix-listen:PATH or a\n" +
			"named queue. PROGRAM has the connection as stdin and stdout. See fdkit-torture(1).",
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "case", Usage: "try only this `CASE`, and before it the base case"},
			&cli.BoolFlag{Name: "json", Usage: "print an object of JSON for each case", DisableDefaultText: true},
			&cli.BoolFlag{Name: "list", Usage: "list the cases and try none", DisableDefaultText: true},
			&cli.GenericFlag{Name: "mode", Usage: "permission `BITS` of the socket of unix-listen:", Value: &mode{}, DefaultText: "0600"},
			&cli.GenericFlag{Name: "owner", Usage: "`USER[:GROUP]` that owns the socket of unix-listen:, and whose named queue is trusted", Value: &owner{}},
			numberFlag("rounds", "try all `N` times, each with other bytes", 1, 1<<20, 1),
			&cli.BoolFlag{Name: "run", Usage: "start a program for each case; the operands are the program", DisableDefaultText: true},
			&cli.GenericFlag{Name: "seed", Usage: "make the bytes, and the order of further rounds, from `N`", Value: &seed{}, DefaultText: "random"},
			&cli.BoolFlag{Name: "sender", Usage: "the peer sends: try the cases for senders", DisableDefaultText: true},
			&cli.StringSliceFlag{Name: "skip", Usage: "do not try this `CASE`"},
			&cli.GenericFlag{Name: "timeout", Usage: "give the peer `TIME` for each step of a case", Value: &duration{2 * time.Second}, DefaultText: "2s"},
			&cli.GenericFlag{Name: "type", Usage: "with --run: `TYPE` of the socket, stream or seqpacket", Value: &pairType{}, DefaultText: "stream"},
			&cli.BoolFlag{Name: "v", Usage: "tell of each case what was sent and seen", DisableDefaultText: true},
			&cli.GenericFlag{Name: "wait", Usage: "wait at most `TIME` for the peer to listen, or to connect", Value: &duration{10 * time.Second}, DefaultText: "10s"},
		},
		Action: runTorture,
	}
}

// seed is the value of option --seed.
type seed struct {
	value uint64
	given bool
}

func (s *seed) Set(text string) (err error) {
	if s.value, err = strconv.ParseUint(text, 10, 64); err != nil {
		return fmt.Errorf("%q is no number from 0 to 18446744073709551615", text)
	}
	s.given = true
	return nil
}

func (s *seed) String() string { return "" }

// pairType is the value of option --type.
type pairType struct{ seqpacket bool }

func (p *pairType) Set(text string) error {
	if text != "stream" && text != "seqpacket" {
		return fmt.Errorf("%q is neither stream nor seqpacket", text)
	}
	p.seqpacket = text == "seqpacket"
	return nil
}

func (p *pairType) String() string { return "" }

func runTorture(c *cli.Context) error {
	if c.Bool("json") && c.Bool("v") {
		return usagef("options -v and --json: only one of them at a time")
	}
	out := tortureReport{json: c.Bool("json"), all: c.Bool("v")}
	if c.Bool("list") {
		if c.NArg() > 0 || c.Bool("run") {
			return usagef("option --list: nothing is tried, so no endpoint and no program is given")
		}
		return out.list(torture.Cases(c.Bool("sender")))
	}
	o, err := tortureOptions(c)
	if err != nil {
		return err
	}
	if err := checkTorture(c); err != nil {
		return err
	}
	// From here on the signals are ours: none may leave a socket file or a program behind.
	signals := endings()
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE) // not even that of a reader who has seen enough
	sig := unless(signals, func(stop <-chan struct{}) {
		o.Stop = stop
		var e *torture.Endpoint
		if e, err = openTorture(c, stop); err != nil {
			return
		}
		out.begin(o.Seed)
		err = torture.Run(e, o, out.result)
		if err == nil {
			out.end()
		}
	})
	switch {
	case sig != nil && err != nil:
		return endedBy(sig)
	case out.err != nil:
		return fmt.Errorf("cannot write to stdout: %w", out.err)
	case errors.Is(err, torture.ErrSpec):
		return usageError{err}
	case err != nil:
		return explainFiles(err)
	case out.faults > 0:
		return quiet(exitFound)
	}
	return nil
}

// tortureOptions checks the options that say what is tried.
func tortureOptions(c *cli.Context) (torture.Options, error) {
	log := loggerOf(c)
	s := c.Generic("seed").(*seed)
	if !s.given {
		s.value = uint64(rand.Uint32())
	}
	o := torture.Options{
		Seed: s.value, Rounds: numberOf(c, "rounds"), Sender: c.Bool("sender"),
		Timeout: durationOf(c, "timeout"), Wait: durationOf(c, "wait"),
		Names: c.StringSlice("case"), Skip: c.StringSlice("skip"),
		Notice: func(text string) { log.notice("%s", text) },
	}
	if o.Timeout == 0 {
		return o, usagef("option --timeout: nothing is done in no time")
	}
	for _, option := range []string{"case", "skip"} {
		for _, name := range c.StringSlice(option) {
			known := func(of torture.Case) bool { return of.Name == name }
			switch {
			case slices.ContainsFunc(torture.Cases(o.Sender), known):
			case slices.ContainsFunc(torture.Cases(!o.Sender), known):
				return o, usageHint("--sender says what the peer is", "option --%s: %s is a case for %s", option, name, map[bool]string{false: "senders", true: "receivers"}[o.Sender])
			default:
				return o, usageHint("fdkit torture --list lists them", "option --%s: there is no case %q", option, name)
			}
		}
	}
	return o, nil
}

// checkTorture checks the operands, and the options that go with them.
func checkTorture(c *cli.Context) error {
	operands := c.Args().Slice()
	if c.Bool("run") {
		for _, option := range []string{"mode", "owner"} {
			if c.IsSet(option) {
				return usagef("option --%s: it is for a socket file, and the program gets an open socket", option)
			}
		}
		if len(operands) == 0 || operands[0] == "" {
			return usageHint("fdkit torture --run ./receiver", "a program is missing")
		}
		return nil
	}
	if c.IsSet("type") {
		return usagef("option --type: it is for --run")
	}
	if err := refuseOptions(operands, "endpoint"); err != nil {
		return err
	}
	switch {
	case len(operands) == 0 || operands[0] == "":
		return usageHint("fdkit torture unix:/run/receiver.sock tests the program that serves that socket, fdkit torture --run PROGRAM starts one", "an endpoint is missing")
	case len(operands) > 1:
		return usageHint("--run starts a program", "there is one endpoint, and %s is another operand", operands[1])
	case strings.HasPrefix(operands[0], "fd:"):
		return usageHint("unix:PATH, unix-listen:PATH, or --run PROGRAM", "endpoint %s: one connection is not enough, there is one for each case", operands[0])
	}
	kind, _, _ := strings.Cut(operands[0], ":")
	if c.Bool("sender") && !slices.Contains([]string{"unix", "unix-seqpacket", "unix-listen"}, kind) {
		return usageHint("unix:PATH, unix-seqpacket:PATH, unix-listen:PATH, or --run PROGRAM", "option --sender: nothing comes back from %s", operands[0])
	}
	if kind != "unix-listen" && c.IsSet("mode") {
		return usagef("option --mode: it is for the socket that unix-listen: makes")
	}
	return nil
}

func openTorture(c *cli.Context, stop <-chan struct{}) (*torture.Endpoint, error) {
	if !c.Bool("run") {
		o := queue.Options(queueOptionsOf(c, loggerOf(c)))
		o.Wait, o.Stop = max(durationOf(c, "wait"), 1), stop
		return torture.Open(c.Args().First(), o)
	}
	p, err := exec.Find(c.Args().First(), c.Args().Tail()...)
	if err != nil {
		return nil, err
	}
	typ := unix.SOCK_STREAM
	if c.Generic("type").(*pairType).seqpacket {
		typ = unix.SOCK_SEQPACKET
	}
	return torture.Program(p.Path, p.Args, typ), nil
}

// tortureReport prints what comes of the cases.
type tortureReport struct {
	json, all bool
	faults    int
	counts    map[torture.Verdict]int
	err       error
}

func (t *tortureReport) print(text string) {
	if t.err == nil {
		// Each case is seen when it is done, however long the next one takes.
		_, t.err = io.WriteString(os.Stdout, text)
	}
}

func (t *tortureReport) list(cases []torture.Case) error {
	var text strings.Builder
	for _, c := range cases {
		if t.json {
			line, _ := json.Marshal(struct {
				Case  string `json:"case"`
				About string `json:"about"`
			}{c.Name, c.About})
			fmt.Fprintf(&text, "%s\n", line)
		} else {
			fmt.Fprintf(&text, "%-20s %s\n", c.Name, c.About)
		}
	}
	t.print(text.String())
	return t.err
}

func (t *tortureReport) begin(seed uint64) {
	t.counts = map[torture.Verdict]int{}
	if !t.json {
		t.print(fmt.Sprintf("seed %d\n", seed))
	}
}

func (t *tortureReport) result(r torture.Result) {
	t.counts[r.Verdict]++
	if r.Verdict.Fault() {
		t.faults++
	}
	if t.json {
		var line bytes.Buffer
		encoder := json.NewEncoder(&line)
		encoder.SetEscapeHTML(false)
		if t.err == nil {
			t.err = encoder.Encode(r)
		}
		t.print(line.String())
		return
	}
	name := string(r.Verdict)
	if r.Verdict.Fault() {
		name = strings.ToUpper(name) // to be found among the others
	}
	text := fmt.Sprintf("%-8s %-20s %s\n", name, r.Case, r.About)
	for _, fact := range [][2]string{{"sent", r.Sent}, {"seen", r.Seen}, {"means", r.Means}, {"see", r.Rule}} {
		if fact[1] != "" && (r.Verdict.Fault() || t.all) {
			text += fmt.Sprintf("    %s: %s\n", fact[0], fdinfo.Printable(fact[1]))
		}
	}
	t.print(text)
}

func (t *tortureReport) end() {
	if t.json {
		return
	}
	total := 0
	var each []string
	for _, v := range []torture.Verdict{torture.Correct, torture.Closed, torture.Leaked, torture.Hung, torture.Crashed, torture.Skipped} {
		total += t.counts[v]
		if t.counts[v] > 0 {
			each = append(each, fmt.Sprintf("%d %s", t.counts[v], v))
		}
	}
	t.print(fmt.Sprintf("%s: %s\n", count(total, "case", "cases"), strings.Join(each, ", ")))
}
