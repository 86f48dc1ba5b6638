//go:build linux

// Package torture is a hostile peer for programs that receive or send descriptors: it
// sends them what they do not expect, case by case, and tells what they made of it.
//
// It passes on nothing but pipes, sockets and files in memory of its own, and devices
// that anybody can open, and it watches each until no process has it open any more. So
// it sees what a peer leaks without looking into the peer.
package torture

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"time"
)

// Verdict is what the peer did.
type Verdict string

// The verdicts. The first three are faults.
const (
	Crashed Verdict = "crashed" // it ended by a signal, or serves nobody any more because it ended
	Hung    Verdict = "hung"    // it did not end what it should, or serves nobody meanwhile
	Leaked  Verdict = "leaked"  // it holds what was passed for longer than it should
	Closed  Verdict = "closed"  // it refused: it closed, or did not do as in the base case
	Correct Verdict = "correct" // it did as in the base case
	Skipped Verdict = "skipped" // the case is not for this endpoint, or there is nobody any more
)

// Fault tells whether the verdict is against the peer.
func (v Verdict) Fault() bool { return v == Crashed || v == Hung || v == Leaked }

// Result is what came of one case.
type Result struct {
	Case    string  `json:"case"`
	Round   int     `json:"round"`
	Seed    uint64  `json:"seed"`
	Verdict Verdict `json:"verdict"`
	About   string  `json:"about"`
	Sent    string  `json:"sent,omitempty"`
	Seen    string  `json:"seen"`
	Means   string  `json:"means,omitempty"` // of a fault
	Rule    string  `json:"rule,omitempty"`  // of a fault: the manual page, and what it says
	// Milliseconds is how long it took.
	Milliseconds float64 `json:"milliseconds"`
	// PID is the peer's process, if it is known; Before and After are how many
	// descriptors it had, if that can be seen, else 0.
	PID    int `json:"pid,omitempty"`
	Before int `json:"descriptors_before,omitempty"`
	After  int `json:"descriptors_after,omitempty"`
}

// Options say what is done.
type Options struct {
	Seed    uint64
	Rounds  int           // at least 1
	Timeout time.Duration // what the peer has for each step of a case
	Wait    time.Duration // how long to wait until it listens, or connects
	Sender  bool          // the peer sends: the cases are for senders
	Names   []string      // of the cases that are run; nil: all
	Skip    []string      // of those that are not
	// Notice is told, at most once, that the peer is waited for. It may be nil.
	Notice func(text string)
	// Stop, when closed, ends Run with ErrStopped. It may be nil.
	Stop <-chan struct{}
}

// ErrStopped is returned by Run when Stop is closed.
var ErrStopped = errors.New("stopped")

// errNobody says that there is no peer to be tortured.
var errNobody = errors.New("there is nobody")

// Cases returns the cases for receivers or for senders. The first is the base case.
func Cases(sender bool) []Case {
	if sender {
		return senderCases
	}
	return receiverCases
}

// Run tortures the peer, and reports each case as it is done. It returns an error if
// nothing can be said of the peer: because nobody is there, or for want of this
// process's own.
//
// The base case comes first in each round, as the others are judged by it. In the first
// round the others come in order; later each round has an order and bytes of its own.
// All of that follows from the seed.
func Run(e *Endpoint, o Options, report func(Result)) error {
	b := &bench{peer: e.peer, options: o, first: &Cases(o.Sender)[0]}
	defer b.peer.close()
	for round := 1; round <= o.Rounds; round++ {
		cases := slices.Clone(Cases(o.Sender))
		if round > 1 {
			order := b.random("", round)
			order.Shuffle(len(cases)-1, func(i, j int) { cases[i+1], cases[j+1] = cases[j+1], cases[i+1] })
		}
		for i := range cases {
			c := &cases[i]
			base := i == 0
			told := (o.Names == nil || slices.Contains(o.Names, c.Name)) && !slices.Contains(o.Skip, c.Name)
			if !told && (!base || b.learned) {
				continue
			}
			r, err := b.run(c, round)
			if err != nil {
				return err
			}
			r.Case, r.About, r.Round, r.Seed = c.Name, c.About, round, o.Seed
			if told || r.Verdict.Fault() {
				report(r)
			}
		}
	}
	return nil
}

// bench is one run.
type bench struct {
	peer
	options Options
	noticed bool
	last    string // case that was tried
	crashed bool   // the peer, in that
	gone    bool   // there is nobody any more

	// What the base case has taught.
	first   *Case
	learned bool
	base    manners
}

// manners is what a peer does in the base case.
type manners struct {
	sound  bool // it has no fault there
	heard  int  // bytes that it answers
	got    int  // descriptors that it sends
	used   bool // it writes to what it is passed
	closes bool // it closes the connection by itself
	lets   bool // it lets go of what it is passed while the connection lasts
	ready  bool // it did so even before the far end was closed
	single bool // it serves one connection and ends
	status int  // that it exits with
}

// traits are those of the endpoint, as far as the peer makes use of them.
func (b *bench) traits() trait {
	if b.base.single {
		return b.peer.traits() &^ server
	}
	return b.peer.traits()
}

// random returns what a case's bytes are made from.
func (b *bench) random(name string, round int) *rand.Rand {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s %d", name, round)
	return rand.New(rand.NewPCG(b.options.Seed, h.Sum64()))
}

// pause waits for a moment.
func (b *bench) pause(moment time.Duration) error {
	select {
	case <-b.options.Stop:
		return ErrStopped
	case <-time.After(moment):
		return nil
	}
}

// await looks at the condition until it holds, or the time is up.
func (b *bench) await(limit time.Duration, holds func() (bool, error)) (bool, error) {
	deadline := time.Now().Add(limit)
	for moment := 100 * time.Microsecond; ; moment = min(2*moment, 10*time.Millisecond) {
		late := time.Now().After(deadline)
		if held, err := holds(); held || err != nil || late {
			return held, err
		}
		if err := b.pause(moment); err != nil {
			return false, err
		}
	}
}
