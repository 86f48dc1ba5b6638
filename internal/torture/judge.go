//go:build linux

package torture

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// run tries a case and judges.
func (b *bench) run(c *Case, round int) (Result, error) {
	begin := time.Now()
	if b.gone {
		return Result{Verdict: Skipped, Seen: "there is nobody any more"}, nil
	}
	for _, lack := range lacking {
		if c.needs&lack.trait&^b.traits() != 0 {
			return Result{Verdict: Skipped, Seen: lack.text}, nil
		}
	}
	t, err := b.newTrial(c.Name, round)
	if err != nil {
		return Result{}, err
	}
	defer t.end()
	c.do(t)
	if t.lacks != "" {
		return Result{Verdict: Skipped, Seen: t.lacks}, nil
	}
	r := t.judge(c)
	switch {
	case errors.Is(t.err, unix.EAGAIN) && b.learned && b.traits()&server != 0:
		return Result{
			Verdict: Hung, Seen: fmt.Sprintf("within %v it accepts no further connection", b.options.Wait),
			Means: "One peer can keep all others from being served.", Rule: c.Rule,
		}, nil
	case errors.Is(t.err, errNobody) && b.learned && b.crashed:
		b.gone = true
		return Result{Verdict: Skipped, Seen: fmt.Sprintf("%v since %s", t.err, b.last)}, nil
	case errors.Is(t.err, errNobody) && b.learned && b.traits()&server != 0:
		b.gone = true
		return Result{
			Verdict: Crashed, Seen: fmt.Sprintf("%v; it was there when the case before, %s, was done", t.err, b.last),
			Means: "It has ended, after this case or the one before; what is left cannot be tried.", Rule: rules[Crashed],
		}, nil
	case errors.Is(t.err, errNobody) && b.learned:
		b.gone = true
		return Result{Verdict: Skipped, Seen: fmt.Sprintf("within %v: %v", b.options.Wait, t.err)}, nil
	case t.err != nil:
		return Result{}, t.err
	}
	b.last, b.crashed = c.Name, r.Verdict == Crashed
	r.Sent = t.summary()
	r.Milliseconds = float64(time.Since(begin).Round(time.Microsecond).Microseconds()) / 1000
	return r, nil
}

// settle waits until the peer has done what it did in the base case, as far as it can
// be waited for.
func (t *trial) settle() bool {
	t.drop()
	return t.wait(t.options.Timeout, func() (bool, error) {
		held, err := t.held()
		if err != nil {
			return false, err
		}
		if !t.learned { // whatever it may do, it has the time for it
			return held == 0 && t.ended(), nil
		}
		if t.base.ready && held > 0 {
			return false, nil
		}
		for _, c := range t.conns {
			switch {
			case c.gone || c.shut:
			case c.unread() > 0, c.ends && t.base.closes, !c.deaf && !t.answered(c):
				return false, nil
			}
		}
		return true, nil
	})
}

// answered tells whether as much came as in the base case. To something else a receiver
// may answer something else.
func (t *trial) answered(c *conn) bool {
	if t.options.Sender {
		return c.heard >= t.base.heard && c.got >= t.base.got
	}
	return c.heard > 0 || t.base.heard == 0
}

// ended tells whether all connections are, and the programs that were started.
func (t *trial) ended() bool {
	for _, c := range t.conns {
		if !c.gone && !c.shut || c.process != nil && c.process.ours && !c.process.ended() {
			return false
		}
	}
	return true
}

// farewell closes the other ends of what was passed, gives the peer time to let go if it
// does so in the base case, and ends the connections. It returns how many descriptors
// the peer then held.
func (t *trial) farewell() (late int) {
	for _, p := range t.passed {
		p.held = false
		p.closeFar()
	}
	if !t.learned || t.base.lets {
		t.wait(t.options.Timeout, func() (done bool, err error) {
			late, err = t.held()
			return late == 0 || t.unread() > 0, err
		})
		if t.unread() > 0 { // they are not the peer's yet
			late = 0
		}
	}
	for _, c := range t.conns {
		if c.deaf {
			c.close() // with all that it never read
		}
		c.halfClose()
	}
	return late
}

// finish waits until the peer has ended its side, and let go.
func (t *trial) finish() bool {
	return t.wait(t.options.Timeout, func() (bool, error) {
		held, err := t.held()
		if held > 0 || err != nil {
			return false, err
		}
		for _, c := range t.conns {
			if !c.ends && c.unread() > 0 {
				return false, nil
			}
		}
		return t.endless() || t.ended(), nil
	})
}

// endless tells whether there is no connection that has an end.
func (t *trial) endless() bool { return t.traits()&ends == 0 }

// judge brings the case to its end and says what the peer did.
func (t *trial) judge(c *Case) Result {
	settled := t.settle()
	now := t.manners()
	late := t.farewell()
	now.lets = late == 0
	over := t.finish()
	held, err := t.held()
	if t.err == nil {
		t.err = err
	}
	if t.err != nil {
		return Result{}
	}
	if p := t.process(); !t.learned && p != nil && !p.ours && !p.before && t.traits()&server != 0 {
		// A process takes a while to end.
		now.single = t.wait(t.options.Timeout/4, func() (bool, error) { return p.ended(), nil })
		t.base.single = now.single
	}
	t.others("after it")

	r := t.facts(held, late)
	now.status = t.status()
	limit := t.options.Timeout
	switch death := t.death(); {
	case death != "":
		r.Verdict, r.Seen = Crashed, death
		r.Means = "A single peer can end it for all the others."
		if t.traits()&started != 0 {
			r.Means = "It ended by a signal, which is no answer to anything that a peer sends."
		}
	case t.fault != nil:
		r.Verdict, r.Seen = t.fault.Verdict, t.fault.Seen
		r.Means = "One peer can keep all others from being served."
	case !over && !t.endless() && !t.ended():
		r.Verdict = Hung
		r.Means = fmt.Sprintf("The connection has ended, and %v later it is still held: every such peer costs a connection, and what waits in it.", limit)
	case !over && t.endless() && t.unread() > 0:
		r.Verdict = Hung
		r.Means = fmt.Sprintf("What was sent is not received within %v: one message can stop all that follow.", limit)
	case held > 0, late > 0 && t.base.lets:
		r.Verdict = Leaked
		r.Means = "Nobody else has these descriptors any more, and it did not close them: every such message costs some, until it has none left (EMFILE)."
	default:
		r.Verdict = Correct
		if t.learned && (now.closes && !t.base.closes || !settled || now.status != t.base.status || t.refused != "") {
			r.Verdict = Closed
		}
	}
	if r.Verdict.Fault() {
		r.Rule = c.Rule
		if r.Rule == "" {
			r.Rule = rules[r.Verdict]
		}
	}
	if !t.learned {
		now.sound = !r.Verdict.Fault()
		t.base, t.learned = now, true
	}
	return r
}

// rules are what a verdict goes by, where a case does not say it.
var rules = map[Verdict]string{
	Crashed: "unix(7), recvmsg(2): what comes is the peer's choice; none of it is to be relied upon.",
	Hung:    "recvmsg(2): it returns 0 when the peer has performed an orderly shutdown; close(2) is the answer.",
	Leaked:  "unix(7), SCM_RIGHTS: received descriptors are as if created with dup(2), so each one must be closed, also those that were not expected.",
}

// manners tells what the peer has done so far.
func (t *trial) manners() (m manners) {
	held, err := t.held()
	m.ready = err == nil && held == 0
	for _, p := range t.passed {
		m.used = m.used || p.read > 0
	}
	for _, c := range t.conns {
		m.heard += c.heard
		m.got += c.got
		m.closes = m.closes || c.gone
	}
	return m
}

// process returns that of the first connection, nil if it is not known.
func (t *trial) process() *process {
	if len(t.conns) == 0 {
		return nil
	}
	return t.conns[0].process
}

// death says how the peer has ended as it should not, "" if it has not.
func (t *trial) death() string {
	switch p := t.process(); {
	case p == nil || !p.over || p.before:
	case p.ours && p.status.Signaled():
		return fmt.Sprintf("process %d was ended by %s", p.pid, unix.SignalName(p.status.Signal()))
	case !p.ours && t.traits()&server != 0:
		return fmt.Sprintf("process %d, which served the socket, has ended", p.pid)
	}
	return ""
}

// status returns what the program exited with, 0 if it was not started here.
func (t *trial) status() int {
	if p := t.process(); p != nil && p.ours && p.over {
		return p.status.ExitStatus()
	}
	return 0
}

// facts says what was seen of the peer.
func (t *trial) facts(held, late int) (r Result) {
	var facts []string
	fact := func(format string, args ...any) { facts = append(facts, fmt.Sprintf(format, args...)) }
	var heard, got, lost, gone, unread int
	for _, c := range t.conns {
		heard, got, lost = heard+c.heard, got+c.got, lost+c.lost
		if c.gone {
			gone++
		}
		if c.unread() > 0 {
			unread++
		}
	}
	if t.refused != "" {
		fact("the kernel refused it, %s", t.refused)
	}
	if unread > 0 {
		fact("it did not receive all that was sent")
	}
	if heard > 0 || got > 0 {
		fact("it sent %d bytes and %d descriptors", heard, got)
	}
	used := 0
	for _, p := range t.passed {
		used += p.read
	}
	if used > 0 {
		fact("it wrote %d bytes to what it was passed", used)
	}
	if lost > 0 {
		fact("%d messages were cut (MSG_CTRUNC)", lost)
	}
	switch {
	case len(t.conns) == 0:
		fact("no connection was left")
	case t.endless():
	case gone == len(t.conns):
		fact("it closed")
	case !t.ended():
		fact("it did not close within %v", t.options.Timeout)
	}
	switch {
	case held > 0:
		fact("it holds %d of %d descriptors", held, len(t.passed))
	case late > 0:
		fact("it held %d of %d descriptors until the connection ended", late, len(t.passed))
	case len(t.passed) > 0:
		fact("it let go of what it was passed")
	}
	if p := t.process(); p != nil {
		r.PID, r.Before = p.pid, t.before
		over := p.ended()
		if !over {
			r.After = p.descriptors()
		}
		p.end() // all that is to be seen of it is
		switch {
		case p.ours && over:
			fact("its exit status is %d", p.status.ExitStatus())
		case p.ours:
			fact("process %d did not end within %v, and was killed", p.pid, t.options.Timeout)
		case t.base.single:
			fact("it serves one connection and ends")
		case r.Before > 0 && r.After > r.Before:
			fact("process %d has %d descriptors, and had %d", p.pid, r.After, r.Before)
		}
	}
	r.Seen = strings.Join(facts, ", ")
	return r
}
