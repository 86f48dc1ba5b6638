//go:build linux

package exec

import (
	"errors"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/holders"
)

// doubtful is how often at most all processes are searched for one that holds the queue of
// a worker.
const doubtful = 10 * time.Second

// searching is how many times longer than a search the pause behind it is: the more
// descriptors there are the longer it takes, and it is a busy machine on which workers are
// late.
const searching = 50

// doubt looks whether a worker that leaves a connection in its queue has closed it and
// lives on. The kernel does not tell of that, as the pool has a copy of the worker's end.
// A process that the worker has started may receive as well.
func (w *Workers) doubt(r *Worker, now time.Time) {
	var queue unix.Stat_t
	if r.fd < 0 || w.searches || now.Before(w.searchAt) || now.Before(r.doubted) || unix.Fstat(r.theirs, &queue) != nil {
		return
	}
	thing := holders.Socket(queue.Ino)
	link, err := os.Readlink(r.files + "/" + strconv.Itoa(r.at))
	if link == thing.Link || err != nil && !errors.Is(err, os.ErrNotExist) {
		return
	}
	w.searches = true
	pid := r.PID // of a process that may end meanwhile: desert looks
	go func() {
		at, err := holders.FirstOf(pid, thing)
		deserted := false
		if err == nil && at < 0 {
			var found holders.Found
			found, err = holders.Find([]holders.Thing{thing}, w.finished())
			deserted = err == nil && len(found.Holders[0]) == 0
		}
		w.order(func() {
			end := time.Now()
			w.searches, w.searchAt = false, end.Add(searching*end.Sub(now))
			switch {
			case deserted:
				w.desert(r)
			case at >= 0:
				r.at = at
			default:
				r.doubted = end.Add(doubtful)
			}
		})
	}()
}

// desert takes back what is in a queue that the worker has closed.
func (w *Workers) desert(r *Worker) {
	if w.workers[r.id] != r || r.fd < 0 {
		return // it has ended
	}
	left, p := w.rescue(r), r.place
	r.unread = false
	if w.chosen() && (w.Key == "" || w.keys[p.key] == p) {
		p.waiting = append(left, p.waiting...)
	} else {
		w.back = append(left, w.back...)
	}
	if p.worker == r && !r.retired {
		w.forsake(r, "closed")
	}
}
