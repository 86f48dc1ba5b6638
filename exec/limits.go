//go:build linux

package exec

import (
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/scm"
)

// TimeLimits are limits of time for connections and programs. Zero means no limit.
//
// With Idle or FirstByte the pool holds each TCP connection until its program has
// ended: the client sees the end of the connection then, also if the program has
// closed it before. These two do not apply to other connections, for which the
// kernel does not count what goes over them; Trouble is told so once.
type TimeLimits struct {
	// Run is how long a program may run. Then its process group gets SIGTERM and,
	// if it still runs Kill later, SIGKILL.
	Run time.Duration
	// Idle is how long there may be no byte either way: none from the client, and
	// none that the client has acknowledged. Then the connection is shut down, and
	// the program is ended as above.
	Idle time.Duration
	// FirstByte is how long a client may send nothing from the program's start.
	// To end its side counts as sending. What is done then is as for Idle.
	FirstByte time.Duration
	// Queue is how old a connection may be when it is received, by FDKIT_ACCEPTED
	// if that came with it. An older one, and one whose client has gone, is
	// refused.
	Queue time.Duration
	// Kill is the time from SIGTERM to SIGKILL; with 0 that comes at once.
	Kill time.Duration
}

// traffic tells whether there are limits for which connections must be held.
func (t *TimeLimits) traffic() bool { return t.Idle > 0 || t.FirstByte > 0 }

// Reasons that Refused is told, and limits by which programs are ended.
const (
	RefusedPerSource    = "per-source"    // its source has enough programs
	RefusedQueueTimeout = "queue-timeout" // it has waited for too long
	RefusedGone         = "gone"          // its client has gone

	LimitTimeout   = "timeout"
	LimitIdle      = "idle"
	LimitFirstByte = "first-byte"
)

// admit tells whether there may be a program for a connection, and counts it for its
// source.
func (p *Pool) admit(c *Connection) (s source, ok bool) {
	reason := ""
	if p.Times.Queue > 0 {
		reason = p.stale(c)
	}
	if reason == "" && p.PerSource.N > 0 {
		if s = p.PerSource.sourceOf(c.FDs[0], c.Payload); !p.enter(s) {
			reason = RefusedPerSource
		}
	}
	if reason == "" {
		return s, true
	}
	if p.Refused != nil {
		p.mu.Lock()
		p.Refused(reason, c)
		p.mu.Unlock()
	}
	if reason == RefusedPerSource && len(p.PerSource.Message) > 0 {
		sayRefused(c.FDs[0], p.PerSource.Message)
	}
	return source{}, false
}

// stale tells whether a connection is not worth a program any more, and why.
func (p *Pool) stale(c *Connection) (reason string) {
	if gone(c.FDs[0]) {
		return RefusedGone
	}
	text, _ := scm.Var(c.Payload, "FDKIT_ACCEPTED")
	accepted, err := strconv.ParseFloat(text, 64)
	// The clock may have been set back meanwhile: a negative time is short.
	if waited := float64(time.Now().UnixMicro())/1e6 - accepted; err == nil && waited > p.Times.Queue.Seconds() {
		return RefusedQueueTimeout
	}
	return ""
}

// gone tells whether nobody is at the other end: a reset has come, or a Unix peer has
// closed. A TCP client that has closed looks like one that has ended its side only,
// POLLRDHUP, and waits for an answer; that one is not gone, and neither is one
// that has left something to read.
func gone(fd int) bool {
	poll := [1]unix.PollFd{{Fd: int32(fd)}}
	if n, err := unix.Poll(poll[:], 0); n == 0 || err != nil {
		return false
	}
	if poll[0].Revents&unix.POLLERR != 0 {
		return true
	}
	unread, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	return poll[0].Revents&unix.POLLHUP != 0 && err == nil && unread == 0
}
