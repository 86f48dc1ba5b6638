//go:build linux

package exec

import (
	"syscall"

	"golang.org/x/sys/unix"

	"fdkit/internal/interrupt"
)

// What other goroutines ask of Workers and order is done by that of Run, so that
// nothing but this file needs a lock.

// Running returns how many workers run.
func (w *Workers) Running() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.running
}

// Status tells of all workers that run.
func (w *Workers) Status() []WorkerStatus {
	told := make(chan []WorkerStatus, 1)
	w.order(func() {
		var all []WorkerStatus
		for _, worker := range w.workers {
			w.settle(worker) // whether it has received is looked at when that matters
			all = append(all, worker.status())
		}
		told <- all
	})
	select {
	case all := <-told:
		return all
	case <-w.finished():
		return nil
	}
}

// Stop keeps Run from receiving further connections, and returns when it receives none.
// The workers have what is in their queues, and then see the end of them.
func (w *Workers) Stop() {
	stopped := make(chan struct{})
	w.order(func() {
		w.stopping = true
		close(stopped)
	})
	select {
	case <-stopped:
	case <-w.finished():
	}
}

// finished is closed when Run has returned.
func (w *Workers) finished() chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done == nil {
		w.done = make(chan struct{})
	}
	return w.done
}

// Signal sends a signal to the process groups of all workers. What no worker has
// received is closed when they have ended.
func (w *Workers) Signal(sig syscall.Signal) {
	w.order(func() {
		w.stopping, w.hasty = true, true
		for _, worker := range w.workers {
			_ = unix.Kill(-worker.PID, sig)
		}
	})
}

// Renew replaces all workers: of each place a new one is started first, and takes over
// when it runs, or is READY; the old one then sees the end of its queue.
func (w *Workers) Renew() {
	w.order(func() {
		if w.stopping {
			return
		}
		for _, p := range w.places {
			w.replace(p)
		}
		for _, p := range w.keys {
			w.retire(p.worker) // the next connection of the key starts another
		}
	})
}

// order makes Run's goroutine call do.
func (w *Workers) order(do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.orders = append(w.orders, do)
	w.poke()
}

// poke wakes Run's goroutine. The lock is held.
func (w *Workers) poke() {
	if w.wake > 0 {
		_, _ = unix.Write(w.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
}

// obey does what other goroutines have ordered.
func (w *Workers) obey() {
	if !w.poked {
		return
	}
	w.poked = false
	var count [8]byte
	_, _ = unix.Read(w.wake, count[:])
	w.mu.Lock()
	orders := w.orders
	w.orders = nil
	w.mu.Unlock()
	for _, do := range orders {
		do()
	}
}

// report makes Running tell what is now.
func (w *Workers) report() {
	w.mu.Lock()
	w.running = len(w.workers)
	w.mu.Unlock()
}

// reap tells Run's goroutine of the children that have ended, until quit is closed.
func (w *Workers) reap(quit chan struct{}) {
	for {
		switch err := awaitChild(&w.reaping); err {
		case nil:
			collected := make(chan struct{})
			w.order(func() {
				w.collect()
				close(collected)
			})
			select {
			case <-collected:
			case <-quit:
				return
			}
		case interrupt.ErrStopped:
			return
		case unix.EINTR:
		default: // ECHILD: wait until there is a child
			select {
			case <-w.spawned:
			case <-quit:
				return
			}
		}
	}
}

// collect waits for the children that have ended.
func (w *Workers) collect() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if pid <= 0 || err != nil {
			return
		}
		if worker := w.byPID[pid]; worker != nil {
			w.bury(worker, status)
		}
	}
}
