//go:build linux

package torture

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// trial is one case as it is tried. The functions of a case call its methods without
// looking for errors: after one, err, they do nothing, and nothing is judged.
type trial struct {
	*bench
	*rand.Rand
	patience time.Duration // until there is somebody
	watch    *watch
	conns    []*conn
	passed   []*passed
	fault    *Result // that the case itself has found
	lacks    string  // why the case cannot be tried here
	err      error

	messages, bytes, fds int // that were sent
	refused              string
	before               int // descriptors of the peer
}

func (b *bench) newTrial(name string, round int) (*trial, error) {
	w, err := newWatch()
	if err != nil {
		return nil, err
	}
	return &trial{bench: b, patience: b.options.Wait, Rand: b.random(name, round), watch: w}, nil
}

// end closes what is left.
func (t *trial) end() {
	t.drop()
	for _, p := range t.passed {
		p.closeFar()
	}
	for _, c := range t.conns {
		c.close()
		if c.process != nil {
			c.process.end()
		}
	}
	t.watch.close()
}

// connect makes a connection.
func (t *trial) connect() *conn {
	if t.err != nil {
		return &conn{fd: -1, shut: true}
	}
	c, err := t.join(t.patience)
	if err != nil {
		t.err = err
		return &conn{fd: -1, shut: true}
	}
	if len(t.conns) == 0 && c.process != nil {
		t.before = c.process.descriptors()
	}
	t.conns = append(t.conns, c)
	return c
}

// send sends a message whole, and returns whether the peer has let it.
func (t *trial) send(c *conn, payload []byte, fds ...int) bool {
	return t.sendFlags(c, 0, payload, fds...)
}

func (t *trial) sendFlags(c *conn, flags int, payload []byte, fds ...int) bool {
	if t.err != nil || c.shut || c.gone {
		return false
	}
	t.messages++
	t.bytes += len(payload)
	t.fds += len(fds)
	var why error
	_, err := t.await(t.options.Timeout, func() (bool, error) {
		for {
			var n int
			n, why = c.send.Try(payload, fds, nil, flags)
			if why == nil && n < len(payload) {
				payload, fds = payload[n:], nil
				continue
			}
			switch why {
			case nil:
				return true, nil
			case unix.EAGAIN, unix.ETOOMANYREFS, unix.ENOBUFS, unix.ENOMEM:
				return false, t.turn()
			case unix.EPIPE, unix.ECONNRESET, unix.ECONNREFUSED, unix.ENOTCONN:
				c.gone = true
				return true, nil
			case unix.EOPNOTSUPP, unix.EMSGSIZE, unix.EPERM:
				t.refused = fmt.Sprintf("sendmsg: %v", why)
				return true, nil
			}
			return false, os.NewSyscallError("sendmsg", why)
		}
	})
	if err == nil && why != nil && why != unix.EAGAIN && !c.gone && t.refused == "" {
		err = os.NewSyscallError("sendmsg", why) // ours: too much in flight, or no memory
	}
	if err != nil {
		t.err = err
	}
	return err == nil && why == nil
}

// turn does what is to be done all the while: it hears what the peer answers, and reads
// what comes through what was passed.
func (t *trial) turn() error {
	for _, c := range t.conns {
		if err := c.hear(); err != nil {
			return err
		}
	}
	for _, p := range t.passed {
		p.drain()
	}
	return nil
}

// wait is await, with turns.
func (t *trial) wait(limit time.Duration, holds func() (bool, error)) bool {
	if t.err != nil {
		return false
	}
	held, err := t.await(limit, func() (bool, error) {
		if err := t.turn(); err != nil {
			return false, err
		}
		return holds()
	})
	if err != nil {
		t.err = err
	}
	return held
}

// rest lets some time go by.
func (t *trial) rest(moment time.Duration) {
	t.wait(moment, func() (bool, error) { return false, nil })
}

// taken waits until the peer has received all, or closed.
func (t *trial) taken() bool {
	return t.wait(t.options.Timeout, func() (bool, error) { return t.unread() == 0, nil })
}

func (t *trial) unread() (n int) {
	for _, c := range t.conns {
		n += c.unread()
	}
	return n
}

// others finds a fault if a second connection is not served while this case holds its
// own, or after it.
func (t *trial) others(while string) {
	if t.err != nil || t.fault != nil || t.traits()&server == 0 || !t.base.sound {
		return
	}
	verdict, seen, err := t.probe()
	switch {
	case err != nil:
		t.err = err
	case verdict.Fault():
		t.fault = &Result{Verdict: verdict, Seen: while + ", " + seen}
	}
}

// probe tries the base case once more, beside what is under way.
func (b *bench) probe() (Verdict, string, error) {
	t, err := b.newTrial("probe", 0)
	if err != nil {
		return "", "", err
	}
	defer t.end()
	t.patience = b.options.Timeout
	b.first.do(t)
	served := t.settle()
	now := t.manners()
	t.farewell()
	ended := t.finish()
	switch {
	case errors.Is(t.err, unix.EAGAIN):
		return Hung, "it accepts no further connection", nil
	case errors.Is(t.err, errNobody):
		return Crashed, "nobody is there any more", nil
	case t.err != nil:
		return "", "", t.err
	case served && ended && now.like(b.base):
		return Correct, "", nil
	}
	// A process takes a while to end.
	if p := t.process(); p != nil && !p.before && t.wait(b.options.Timeout/4, func() (bool, error) { return p.ended(), nil }) {
		return Crashed, fmt.Sprintf("process %d, which served the socket, has ended", p.pid), nil
	}
	if t.err != nil {
		return "", "", t.err
	}
	return Hung, "a connection that does as in the base case is not served", nil
}

// like tells whether a peer that is to do as in the base case did.
func (m manners) like(base manners) bool {
	return m.closes == base.closes && m.used == base.used && (m.heard > 0) == (base.heard > 0)
}

// summary says what was sent.
func (t *trial) summary() string {
	var all []string
	if n := len(t.conns); n > 1 {
		all = append(all, fmt.Sprintf("%d connections", n))
	}
	for _, counted := range []struct {
		n    int
		what string
	}{{t.messages, "message"}, {t.bytes, "byte"}, {t.fds, "descriptor"}} {
		plural := "s"
		if counted.n == 1 {
			plural = ""
		}
		all = append(all, fmt.Sprintf("%d %s%s", counted.n, counted.what, plural))
	}
	return strings.Join(all, ", ")
}
