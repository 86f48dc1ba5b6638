//go:build linux

package listen

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Refusal says why a connection was refused.
type Refusal struct {
	Reason string // one of the following, for counting
	Detail string // for people
}

// Reasons for which connections are refused.
const (
	RefusedByRules      = "rules"
	RefusedByRate       = "rate"
	RefusedBySourceRate = "source-rate"
	RefusedForHeader    = "proxy" // the PROXY header is not as it must be
	RefusedAsBusy       = "busy"
	RefusedAtEnd        = "ended"
)

// Reasons are all of them.
var Reasons = []string{RefusedByRules, RefusedByRate, RefusedBySourceRate, RefusedForHeader, RefusedAsBusy, RefusedAtEnd}

// admit decides about a connection that was just accepted. It returns whether that is
// let in now; otherwise it is closed, or waits.
func (a *Acceptor) admit(c *Conn) bool {
	c.settings, c.header = nil, nil
	proxy := a.policy.Proxy
	switch {
	case proxy == nil:
		return a.judge(c, a.hold)
	case !proxy.Trust.Has(c.info.Remote):
		return a.refused(c, Refusal{RefusedForHeader, ErrProxyUntrusted.Error()})
	}
	return a.hold(c, func(c *Conn) bool {
		return a.announced(c) && a.judge(c, func(c *Conn, then func(*Conn) bool) bool { return then(c) })
	})
}

// announced reads the header, which says whose connection it is.
func (a *Acceptor) announced(c *Conn) bool {
	timeout := a.policy.Proxy.Timeout
	left := func() time.Duration { return timeout - time.Since(c.Accepted) }
	header, err := readProxyHeader(a.waiting.ctx, c.FD, left())
	for isShortage(err) && left() > 0 && a.waiting.ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
		header, err = readProxyHeader(a.waiting.ctx, c.FD, left())
	}
	switch {
	case errors.Is(err, ErrStopped):
		return a.refused(c, Abandoned)
	case errors.Is(err, ErrProxyTimeout):
		return a.refused(c, Refusal{RefusedForHeader, fmt.Sprintf("%v within %v", ErrProxyTimeout, timeout)})
	case err != nil:
		return a.refused(c, Refusal{RefusedForHeader, err.Error()})
	}
	c.header, c.own = &header, c.info
	c.info = header.conn(c.own)
	return true
}

// judge goes by the rules and the rate of the source. wait does something that takes
// its time.
func (a *Acceptor) judge(c *Conn, wait func(*Conn, func(*Conn) bool) bool) bool {
	if !a.allowed(c) {
		return false
	}
	if a.sources == nil {
		return true
	}
	ahead := maxHold
	if a.policy.Rates.Refuse || a.crowded() {
		ahead = 0
	}
	delay, ok := a.sources.reserve(a.sources.source(c.info), time.Now(), ahead)
	switch {
	case !ok:
		return a.refused(c, Refusal{RefusedBySourceRate, "too many connections of its source"})
	case delay <= 0:
		return true
	}
	return wait(c, func(*Conn) bool { return a.sleep(delay) })
}

// allowed goes by the rules.
func (a *Acceptor) allowed(c *Conn) bool {
	rules := a.rules.Load()
	if rules == nil {
		return true
	}
	uid, gid := -1, -1
	if peer := c.info.Peer; peer != nil {
		uid, gid = int(peer.Uid), int(peer.Gid)
	}
	decision := rules.Match(c.info.Remote.IP.Addr(), uid, gid)
	if !decision.Allow {
		return a.refused(c, Refusal{RefusedByRules, decision.Where})
	}
	c.settings = decision.Env
	return true
}

// pace waits, with the connection in hand, until the overall rate lets it through; all
// others wait behind it.
func (a *Acceptor) pace(c *Conn) bool {
	if a.overall == nil {
		return true
	}
	if a.policy.Rates.Refuse {
		return a.overall.Allow() || a.refused(c, Refusal{RefusedByRate, "too many connections"})
	}
	return a.sleep(a.overall.Reserve().Delay())
}

// sleep waits for a time, or until the end: then what is early goes at once. It returns
// true.
func (a *Acceptor) sleep(d time.Duration) bool {
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-a.ending:
		}
	}
	return true
}

// refused closes a connection, and returns false.
func (a *Acceptor) refused(c *Conn, why Refusal) bool {
	_ = unix.Close(c.FD)
	a.tell(c, why)
	return false
}

func (a *Acceptor) tell(c *Conn, why Refusal) {
	if a.on.Refused != nil {
		a.on.Refused(c, why)
	}
}
