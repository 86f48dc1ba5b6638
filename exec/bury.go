//go:build linux

package exec

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"fdkit/internal/scm"
)

// bury takes leave of a worker that has ended. What it has not touched is handed out
// again.
func (w *Workers) bury(r *Worker, status syscall.WaitStatus) {
	delete(w.workers, r.id)
	delete(w.byPID, r.PID)
	retired := r.retired
	if r.fd >= 0 {
		r.retired = true // it is given nothing more, whatever its last words are
		w.hearAll(r)
	}
	untouched, lost := w.rescue(r), 0
	for _, l := range r.leases {
		if l.untouched() {
			untouched = append(untouched, l.parcel)
		} else {
			l.close()
			lost++
		}
	}
	r.leases = nil
	r.close()
	if w.Ended != nil {
		w.Ended(r, status)
	}
	for range lost {
		w.trouble(&LostError{fmt.Errorf("worker %d has ended with it", r.PID)})
	}
	p, now := r.place, time.Now()
	if w.chosen() && (w.Key == "" || w.keys[p.key] == p) {
		p.waiting = append(untouched, p.waiting...)
	} else {
		w.back = append(untouched, w.back...)
	}
	switch {
	case p.next == r:
		p.next = nil
	case p.worker == r:
		p.worker = nil
		if p.next != nil && p.next.ready {
			p.worker, p.next = p.next, nil
		}
	default:
		w.report()
		return // it had been replaced
	}
	atEnd := w.ended && status == 0 // it has seen the end of a shared queue
	// One that has served somebody does not fail at once: who kills it, or crashes it with
	// what they send, is not to keep all others waiting.
	if (!retired || len(untouched) > 0) && !atEnd && !r.done && now.Sub(r.Begin) < atOnce {
		p.fail(now)
		if p.pause == firstPause || p.pause == lastPause {
			w.trouble(fmt.Errorf("worker %d has ended at once (%s); the next is started in %v", r.PID, StatusText(status), p.pause))
		}
		// The end does not wait for a program that may never work.
		w.hasty = w.hasty || w.stopping && len(w.workers) == 0 && p.pause > firstPause
	} else {
		p.pause, p.startAt = 0, time.Time{}
	}
	w.remind(now)
	w.report()
}

// rescue takes back what a worker has not received.
func (w *Workers) rescue(r *Worker) (all []parcel) {
	if r.fd < 0 {
		return nil
	}
	receiver := scm.NewReceiver(r.theirs, nil)
	var m scm.Message
	for {
		came, err := receiver.ReceiveNow(&m)
		if came {
			all = append(all, parcel{m.FDs, withoutLease(m.Payload)}.keep())
			r.Handed--
			r.unlease()
			continue
		}
		if _, lost := errors.AsType[*scm.LostError](err); !lost {
			return all
		}
		w.trouble(&LostError{err})
	}
}
