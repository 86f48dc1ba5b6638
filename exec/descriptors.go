//go:build linux

package exec

import (
	"fmt"
	"os"

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
	// named queue, what describes the queue to it, and the socket by which the
	// service manager is told something.
	otherFDs = 3
	// maxSpare is how many descriptors are looked for to watch a failing program.
	maxSpare = 1024
)

// workers returns how many workers there may be. A message for which there is
// no descriptor left would be lost, so there must be enough of them from the
// beginning, also if the pool holds the connection of each program.
func (p *Pool) workers() (int, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, os.NewSyscallError("getrlimit", err)
	}
	held := 0
	if p.Times.traffic() {
		held = p.Slots
	}
	enough := maxWorkers*workerFDs + max(held, min(p.Slots, maxSpare))
	free := -otherFDs
	// Not from /proc, which another root directory need not have.
	for fd := 0; uint64(fd) < limit.Cur && free < enough; fd++ {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == unix.EBADF {
			free++
		}
	}
	const cure = "ulimit -n shows and raises it (RLIMIT_NOFILE)"
	if free < workerFDs {
		return 0, hint.Wrap(fmt.Errorf("the limit of %d open files leaves too few descriptors to receive any", limit.Cur), cure)
	}
	if free-held < workerFDs {
		return 0, hint.Wrap(fmt.Errorf("the limit of %d open files leaves too few descriptors to watch the connections of %d programs", limit.Cur, p.Slots), cure)
	}
	workers := min(maxWorkers, p.Slots, (free-held)/workerFDs)
	if p.Full != nil {
		workers = 1
	}
	p.spare = free - workers*workerFDs
	return workers, nil
}
