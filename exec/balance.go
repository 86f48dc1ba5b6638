//go:build linux

package exec

import (
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/scm"
)

// maxWaiting is how many connections may wait for certain workers, in all, before
// nothing more is received.
const maxWaiting = 64

// chosen tells whether a connection is for one certain worker.
func (w *Workers) chosen() bool { return w.Key != "" || w.Balance >= HashSource }

// room tells whether a further connection can be received.
func (w *Workers) room() bool {
	if w.chosen() {
		return w.held() < maxWaiting
	}
	return len(w.ready) > 0
}

// held returns how many connections are received and in no worker's queue.
func (w *Workers) held() (n int) {
	n = len(w.back)
	if !w.chosen() {
		return n
	}
	for _, p := range w.places {
		n += len(p.waiting)
	}
	for _, p := range w.keys {
		n += len(p.waiting)
	}
	return n
}

// deliver gives the connection to a worker, or lets it wait for a certain one. It
// returns false if no worker can have it now.
func (w *Workers) deliver(c parcel) bool {
	if w.chosen() {
		p := w.placeOf(c)
		if p == nil {
			c.close()
			return true
		}
		p.waiting = append(p.waiting, c.keep())
		w.flush(p)
		return true
	}
	for {
		p := w.pick()
		if p == nil {
			return false
		}
		if w.give(p.worker, c) {
			return true
		}
	}
}

// pick takes the place whose worker is to have the next connection out of ready, or
// returns nil.
func (w *Workers) pick() *place {
	now := time.Now()
	best, slow, load := -1, -1, 0
	for i := 0; i < len(w.ready); i++ {
		r := w.ready[i].worker
		if r == nil || !r.free() {
			w.ready[i].queued = false
			w.ready = slices.Delete(w.ready, i, i+1)
			i--
			continue
		}
		if now.Before(r.shunned) {
			w.remind(r.shunned)
			if r.spared && slow < 0 {
				slow = i
			}
			continue
		}
		if w.Balance != Least {
			best = i
			break
		}
		if l := r.load(); best < 0 || l < load {
			best, load = i, l
		}
	}
	switch {
	case best >= 0:
		w.short = time.Time{}
	case slow < 0:
		return nil
	default: // one that is fast may be free in a moment
		if w.short.IsZero() {
			w.short = now
		}
		if at := w.short.Add(moment); now.Before(at) {
			w.remind(at)
			return nil
		}
		best = slow
	}
	p := w.ready[best]
	p.queued = false
	w.ready = slices.Delete(w.ready, best, best+1)
	return p
}

// load returns how much the worker has to do, for Least.
func (r *Worker) load() int {
	if r.spoken {
		return len(r.leases)
	}
	if n, ok := r.descriptors(); ok {
		return n
	}
	return r.Handed
}

// flush gives the worker of a place what waits for it.
func (w *Workers) flush(p *place) {
	for len(p.waiting) > 0 && p.worker != nil && p.worker.free() {
		c := p.waiting[0]
		p.waiting = p.waiting[1:] // first, as give may come here again
		if !w.give(p.worker, c) {
			p.waiting = append([]parcel{c}, p.waiting...)
			return
		}
	}
	if len(p.waiting) == 0 {
		p.waiting = nil
	}
}

// give puts the connection into the worker's queue, and gives it up. It returns false if
// the worker cannot have it now.
func (w *Workers) give(r *Worker, c parcel) bool {
	now := time.Now()
	if r.full(len(c.fds)) {
		if w.tooMany(r, len(c.fds)) {
			return w.refuse(r, c, fmt.Errorf("worker %d cannot have its %d descriptors: its limit of open files is too low", r.PID, len(c.fds)))
		}
		if r.fullAt.IsZero() {
			r.fullAt = now
		} else if !r.told && now.Sub(r.fullAt) > time.Second { // not in the middle of execve(2)
			r.told = true
			w.trouble(fmt.Errorf("worker %d has come near its limit of open files: it is given nothing until it has closed some", r.PID))
		}
		return w.pass(r, now.Add(100*time.Millisecond))
	}
	payload := c.payload
	if r.spoken {
		w.lease++
		w.payload = withLease(w.payload, payload, w.lease)
		payload = w.payload
	}
	if len(payload) == 0 {
		payload = []byte{0} // a foreign sender may leave it out
	}
	switch _, err := r.sender.TransmitNow(payload, c.fds, nil); {
	case err == nil:
	case errors.Is(err, scm.ErrGone):
		w.forsake(r, "shut down")
		return false
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ETOOMANYREFS),
		errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ENOMEM):
		return w.pass(r, now.Add(50*time.Millisecond))
	default:
		return w.refuse(r, c, err)
	}
	r.fullAt = time.Time{}
	r.Handed++
	r.last, r.unread = now, true
	w.remind(now.Add(w.patience(r)))
	if r.spoken {
		r.credit--
		r.grant(w.lease, c)
	} else {
		c.close()
	}
	if w.MaxRequests > 0 && r.Handed >= w.MaxRequests {
		if w.Key != "" {
			w.retire(r)
		} else {
			w.replace(r.place)
		}
	}
	return true
}

// pass lets the worker have nothing until then. It returns false, for give.
func (w *Workers) pass(r *Worker, until time.Time) bool {
	w.remind(until)
	r.shunned, r.spared = until, false
	if !w.chosen() {
		w.settle(r) // it is in ready again
	}
	return false
}

// refuse closes a connection that the worker cannot have, and never could. It returns
// true, for give.
func (w *Workers) refuse(r *Worker, c parcel, why error) bool {
	c.close()
	w.trouble(&LostError{why})
	if !w.chosen() {
		w.settle(r)
	}
	return true
}

// placeOf returns the place that a connection belongs to. It returns nil if there can be
// no worker for it.
func (w *Workers) placeOf(c parcel) *place {
	if w.Key != "" {
		key, _ := scm.Var(c.payload, w.Key)
		p := w.keys[key]
		if p == nil {
			if len(w.keys) >= w.N {
				w.trouble(&LostError{fmt.Errorf("there are workers for %d keys already, and none for %s=%q", w.N, w.Key, key)})
				return nil
			}
			p = &place{index: -1, key: key}
			w.keys[key] = p
			w.start(p)
		}
		return p
	}
	hash := fnv.New32a()
	if w.Balance == HashKey {
		key, _ := scm.Var(c.payload, "FDKIT_KEY")
		_, _ = hash.Write([]byte(key))
	} else {
		from := (&SourceLimit{IPv6Bits: 128}).sourceOf(c.fds[0], c.payload)
		_, _ = fmt.Fprint(hash, from.network, from.user, from.uid)
	}
	return w.places[hash.Sum32()%uint32(len(w.places))]
}

// look does what is due: it starts workers, and takes back from those that do not
// receive.
func (w *Workers) look(now time.Time) {
	if w.due.IsZero() || now.Before(w.due) {
		return
	}
	w.due = time.Time{}
	for _, p := range w.places {
		w.tend(p, now)
	}
	for _, p := range w.keys {
		if p.worker == nil && len(p.waiting) == 0 && !now.Before(p.startAt) {
			delete(w.keys, p.key)
			continue
		}
		w.tend(p, now)
	}
	for _, r := range w.workers {
		w.examine(r, now)
	}
}

// tend starts a worker where there is none.
func (w *Workers) tend(p *place, now time.Time) {
	if p.worker == nil && p.next == nil && w.wanted() {
		if now.Before(p.startAt) {
			w.remind(p.startAt)
		} else {
			w.start(p)
		}
	}
	w.flush(p)
}

// wanted tells whether workers are still started.
func (w *Workers) wanted() bool {
	if w.stopping || w.ended {
		return !w.hasty && w.held() > 0
	}
	return true
}

// examine looks at one worker.
func (w *Workers) examine(r *Worker, now time.Time) {
	late := func(since time.Time, limit time.Duration) bool {
		if limit <= 0 {
			return false
		}
		if at := since.Add(limit); now.Before(at) {
			w.remind(at)
			return false
		}
		return true
	}
	if r.fd >= 0 && (r.unread || r.unheard) {
		w.attend(r)
	}
	switch {
	case r.killed, r.retired && !r.unread:
	case !r.ready && late(r.Begin, w.ReadyTimeout):
		w.kill(r, fmt.Errorf("worker %d has not said READY in %v", r.PID, w.ReadyTimeout))
	case r.unread && late(r.last, w.ReadyTimeout):
		w.kill(r, fmt.Errorf("worker %d has left a connection in its queue for %v", r.PID, w.ReadyTimeout))
	case r.unread && late(r.last, w.patience(r)):
		w.relieve(r, now)
	case w.MaxAge > 0 && !r.retired && late(r.Begin, w.MaxAge):
		w.replaceOld(r)
	case w.Key != "" && !r.retired && !r.unread && len(r.leases) == 0 && late(r.last, w.Idle):
		w.retire(r)
	}
}

func (w *Workers) replaceOld(r *Worker) {
	if w.Key != "" {
		w.retire(r)
	} else if r.place.worker == r {
		w.replace(r.place)
	}
}

func (w *Workers) kill(r *Worker, why error) {
	r.killed = true
	_ = unix.Kill(-r.PID, syscall.SIGKILL)
	w.trouble(why)
}

// patience is for how long the worker may leave a connection in its queue while another
// one is free.
func (w *Workers) patience(r *Worker) time.Duration {
	if r.received && !w.chosen() {
		return busy
	}
	return starting
}

// relieve takes what a stopped or busy worker has not received, if another one can have
// it. A worker that needs that again and again rests: at first it is only given nothing
// if others can have that, as it may just be slow. One that is still starting does not.
func (w *Workers) relieve(r *Worker, now time.Time) {
	w.remind(now.Add(w.patience(r)))
	w.doubt(r, now)
	if w.chosen() {
		return
	}
	starts := !r.received && now.Sub(r.Begin) < lastRest // and does not misbehave
	if !r.behind && !starts {
		r.late += 2
	}
	r.behind = true
	rests := !starts && r.late > 2
	if (!r.retired || starts) && !slices.ContainsFunc(w.ready, func(p *place) bool {
		o := p.worker
		return o != nil && o != r && o.free() && !now.Before(o.shunned) &&
			(o.received || now.Sub(o.Begin) >= starting) // it can have started
	}) {
		if rests && !now.Before(r.shunned) {
			r.shunned, r.spared = now.Add(firstRest), true
		}
		return
	}
	w.back = append(w.back, w.rescue(r)...)
	spared, received, slow := r.slow == 0, r.received, min(max(2*r.slow, firstRest), lastRest)
	w.settle(r)
	r.received = received
	if rests {
		r.slow, r.shunned, r.spared = slow, now.Add(slow), spared
		w.remind(r.shunned)
	}
}
