//go:build linux

package listen

import "golang.org/x/sys/unix"

// Refusal says why a connection was refused.
type Refusal struct {
	Reason string // a word, for counting: rules, busy
	Detail string // for people
}

// admit decides whether a connection is let in. If it is not, its descriptor is closed.
func (a *Acceptor) admit(c *Conn) bool {
	c.settings = nil
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
		return a.refused(c, Refusal{"rules", decision.Where})
	}
	c.settings = decision.Env
	return true
}

// refused closes a connection, and returns false.
func (a *Acceptor) refused(c *Conn, why Refusal) bool {
	_ = unix.Close(c.FD)
	a.told(c, why)
	return false
}

func (a *Acceptor) told(c *Conn, why Refusal) {
	if a.on.Refused != nil {
		a.on.Refused(c, why)
	}
}
