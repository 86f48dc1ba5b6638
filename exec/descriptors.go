//go:build linux

package exec

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"fdkit/internal/hint"
)

const (
	// maxWorkers is the number of goroutines that receive and start programs: one
	// can receive while another waits for execve.
	maxWorkers = 2
	// A worker has the connection open, and while it starts a program, where
	// vfork is not to be had, a pipe of ForkExec and a copy of its end.
	workerFDs = 4
	// The rest of the process has at most these for moments: who attaches to a
	// named queue, and what describes the queue to it.
	otherFDs = 2
)

// workers returns how many workers there may be. A message for which there is
// no descriptor left would be lost, so there must be enough of them from the
// beginning, also if the pool holds the connection of each program.
func (p *Pool) workers() (int, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, os.NewSyscallError("getrlimit", err)
	}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0, err
	}
	free := int64(min(limit.Cur, 1<<20)) - otherFDs
	for _, entry := range entries {
		if fd, err := strconv.ParseUint(entry.Name(), 10, 64); err == nil && fd < limit.Cur {
			free--
		}
	}
	free++ // the directory itself
	const cure = "ulimit -n shows and raises it (RLIMIT_NOFILE)"
	if free < workerFDs {
		return 0, hint.Wrap(fmt.Errorf("the limit of %d open files leaves too few descriptors to receive any", limit.Cur), cure)
	}
	held := int64(0)
	if p.Times.traffic() {
		held = int64(p.Slots)
	}
	if free-held < workerFDs {
		return 0, hint.Wrap(fmt.Errorf("the limit of %d open files leaves too few descriptors to watch the connections of %d programs", limit.Cur, p.Slots), cure)
	}
	workers := min(maxWorkers, p.Slots, int((free-held)/workerFDs))
	p.spare = int(free) - workers*workerFDs
	return workers, nil
}
