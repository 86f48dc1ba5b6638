//go:build linux

package exec

import "golang.org/x/sys/unix"

// margin is how many descriptors a worker with that RLIMIT_NOFILE is left for other things
// than connections.
func margin(limit uint64) uint64 { return min(16, limit/4) }

// unwatched is for how many descriptors at most full does not look anew.
const unwatched = 32

// full tells whether n descriptors more would bring the worker to its RLIMIT_NOFILE.
func (r *Worker) full(n int) bool {
	if r.open < 0 {
		return false
	}
	if r.open += n; r.open < r.most {
		return false
	}
	var limit unix.Rlimit
	now, known := r.descriptors()
	if !known || unix.Prlimit(r.PID, unix.RLIMIT_NOFILE, nil, &limit) != nil {
		r.open = -1
		return false
	}
	r.open = now + n
	r.most = int(min(limit.Cur-margin(limit.Cur), uint64(r.open+unwatched)))
	if n > int(margin(limit.Cur)) { // so many may use that too: tooMany knows of no more
		return uint64(r.open) > limit.Cur
	}
	return r.open >= r.most
}

// tooMany tells whether n descriptors are more than this worker, and any other one that may
// have them, can be expected to have room for when it has closed all others.
func (w *Workers) tooMany(r *Worker, n int) bool {
	never := func(r *Worker) bool {
		var limit unix.Rlimit
		err := unix.Prlimit(r.PID, unix.RLIMIT_NOFILE, nil, &limit)
		return err == nil && uint64(n)+margin(limit.Cur) >= limit.Cur
	}
	if w.chosen() {
		return never(r)
	}
	for _, other := range w.workers {
		if !other.retired && !never(other) {
			return false
		}
	}
	return true
}

// descriptors returns how many descriptors the worker has open: the size of its
// directory fd, since Linux 6.2, proc_pid_fd(5).
func (r *Worker) descriptors() (int, bool) {
	if err := unix.Stat(r.files, &r.stat); err != nil || r.stat.Size == 0 {
		return 0, false
	}
	return int(r.stat.Size), true
}
