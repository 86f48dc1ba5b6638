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

// doubtful is how often at most it is looked for who holds the queue of a worker.
const doubtful = 10 * time.Second

// doubt looks whether a worker that leaves a connection in its queue has closed it and
// lives on. The kernel does not tell of that, as the pool has a copy of the worker's end.
// A process that the worker has started may receive as well.
func (w *Workers) doubt(r *Worker, now time.Time) {
	var queue unix.Stat_t
	if r.fd < 0 || now.Before(r.doubted) || unix.Fstat(r.theirs, &queue) != nil {
		return
	}
	thing := holders.Socket(queue.Ino)
	link, err := os.Readlink(r.files + "/" + strconv.Itoa(w.QueueFD))
	if link == thing.Link || err != nil && !errors.Is(err, os.ErrNotExist) {
		return
	}
	r.doubted = now.Add(doubtful)
	go func() { // it takes long where there are many processes
		found, err := holders.Find([]holders.Thing{thing}, w.finished())
		if err == nil && len(found.Holders[0]) == 0 {
			w.order(func() { w.desert(r) })
		}
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
