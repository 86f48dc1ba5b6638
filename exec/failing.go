//go:build linux

package exec

import (
	"cmp"
	"fmt"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// failing slows the pool down while its program fails at once, again and again: with
// a wrong option, say, or without the database that it needs.
//
// No client may bring that about by making programs fail, so a failure counts only
// if the program has not touched its connection. To know that takes a copy of the
// connection, which the pool keeps only when several runs have looked suspicious.
// Where the copy cannot tell, the run counts neither way.
type failing struct {
	suspects int           // suspicious ends in a row, up to maxSuspects
	failures int           // proven ones in a row
	since    time.Time     // when the first of them began
	pause    time.Duration // before each start; 0: none
	grown    time.Time     // when it became so long
	next     time.Time     // no program is started before
	said     bool          // the pause, in the log
	saidAt   time.Time
	over     chan struct{} // closed when the pause is; nil: nobody waits for that
}

const (
	atOnce = time.Second // a run shorter than that is over at once
	// silence is how long a program that waits for its client waits at least.
	silence     = 100 * time.Millisecond
	maxSuspects = 3
	maxFailures = 5 // from the fifth on there are pauses
	firstPause  = 100 * time.Millisecond
	lastPause   = 10 * time.Second
)

// verdict is what the end of a run tells of the program.
type verdict int

const (
	unclear verdict = iota
	good
	suspect // it has failed at once, perhaps by its client's doing
	failed  // it has failed at once, by no doing of its client
)

// suspicious tells whether the next connection is to be held.
func (f *failing) suspicious() bool { return f.suspects >= maxSuspects }

// doubtful tells whether it is news if a program does not fail at once.
func (f *failing) doubtful() bool { return f.failures > 0 }

// end enters a run that began then and has ended now, or has not ended at once. It
// returns whether there is something to say: that pauses begin, that they have
// reached their full length, or that they are over.
func (f *failing) end(v verdict, began, now time.Time) (say bool) {
	switch v {
	case good:
		if began.Before(f.since) {
			return false // it tells of a time when all was well
		}
		say = f.said
		if f.over != nil {
			close(f.over)
		}
		*f = failing{saidAt: f.saidAt}
		return say
	case suspect, failed:
		if f.suspects == 0 && f.failures == 0 {
			f.since = began
		}
		if v == suspect {
			f.suspects = min(f.suspects+1, maxSuspects)
			return false
		}
		f.failures++
		// Of those that were started together one lets the pause grow.
		if f.failures < maxFailures || f.pause > 0 && began.Before(f.grown) {
			return false
		}
		before := f.pause
		f.pause = min(max(2*before, firstPause), lastPause)
		f.grown, f.next = now, now.Add(f.pause)
		// A program that fails now and then does not fill the log.
		if say = f.pause == lastPause && before < lastPause || before == 0 && now.Sub(f.saidAt) >= lastPause; say {
			f.said, f.saidAt = true, now
		}
	}
	return say
}

// turn returns how long to wait before a program may be started, 0 if that is now; the
// next one is to come a pause later.
func (f *failing) turn(now time.Time) (wait time.Duration, over <-chan struct{}) {
	if f.pause == 0 {
		return 0, nil
	}
	if wait = f.next.Sub(now); wait > 0 {
		if f.over == nil {
			f.over = make(chan struct{})
		}
		return wait, f.over
	}
	f.next = now.Add(f.pause)
	return 0, nil
}

// ready waits, before a connection is received, until a program may be started for it.
// It returns false after Stop.
func (p *Pool) ready() bool {
	for {
		p.mu.Lock()
		wait, over := p.failing.turn(time.Now())
		p.mu.Unlock()
		select {
		case <-p.stopping:
			return false
		default:
		}
		if wait <= 0 {
			return true
		}
		select {
		case <-time.After(wait):
		case <-over:
		case <-p.stopping:
		}
	}
}

// fail enters the end of a run; how describes it. The lock is held.
func (p *Pool) fail(v verdict, began time.Time, how func() string) {
	name, failures := p.Program.Args[0], p.failing.failures+1
	switch {
	case !p.failing.end(v, began, time.Now()):
	case p.failing.pause == 0:
		p.trouble(fmt.Errorf("%s does not fail at once any more", name))
	default:
		p.trouble(fmt.Errorf("%s fails at once (%s, the last %d times): waiting %s before the next start", name, how(), failures, p.failing.pause))
	}
}

// cannotStart enters that the program could not be started, which has nothing to do
// with the client.
func (p *Pool) cannotStart(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail(failed, time.Now(), err.Error)
}

// survived enters that a run has not failed at once.
func (p *Pool) survived(run *Run) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.collect() // the reaper may linger
	if p.running[run.PID] == run {
		p.fail(good, run.Begin, nil)
	}
}

// judge returns what the end of a run tells of the program. The lock is held.
func (p *Pool) judge(run *Run) verdict {
	sig := run.Status.Signal() // -1: none
	switch {
	case closed(p.ending):
		return unclear
	case run.Took >= atOnce, run.Limit != "", run.Status.ExitStatus() == 0, sig == syscall.SIGTERM, sig == syscall.SIGPIPE:
		return good
	case run.watch == nil || run.watch.fd < 0:
		return suspect
	}
	return run.watch.verdict(run.Took)
}

// verdict tells whether a program that has failed at once, after that time, has touched
// its connection.
func (w *watch) verdict(took time.Duration) verdict {
	var info unix.TCPInfo
	if w.tcp && !tcpInfo(w.fd, &info) {
		return unclear
	}
	// After tcpInfo: what comes in between makes it more.
	n, err := unix.IoctlGetInt(w.fd, unix.TIOCINQ)
	unread := int64(n)
	if unread == 0 && took >= silence {
		return unclear // it may have waited for the client, and given up
	}
	if !w.tcp {
		switch {
		case err == nil && unread < w.before:
			return good // it has read
		case gone(w.fd), w.mptcp:
			return unclear
		}
		return failed
	}
	switch {
	case info.Bytes_sent > 0 || info.Notsent_bytes > 0:
		return good
	case w.urgent, info.State == tcpClose:
		return unclear // a reset may have made it fail
	case info.State != tcpEstablished && info.State != tcpCloseWait, unread < bytesReceived(&info)-w.before:
		return good // it has shut the connection down, or has read
	case info.State == tcpCloseWait && unread == 0:
		return unclear // it may have read the end
	}
	return failed
}

// StatusText returns how a program has ended: exit 1, SIGSEGV.
func StatusText(status syscall.WaitStatus) string {
	if !status.Signaled() {
		return "exit " + strconv.Itoa(status.ExitStatus())
	}
	return cmp.Or(unix.SignalName(status.Signal()), "signal "+strconv.Itoa(int(status.Signal())))
}
