//go:build linux

package exec

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// finish enters the end of a program. The lock is held.
func (p *Pool) finish(pid int, e ending) {
	run, ours := p.running[pid]
	if !ours {
		if p.starting > 0 {
			p.early[pid] = e
		}
		return
	}
	delete(p.running, pid)
	run.Status, run.Took, run.Running = e.status, e.at.Sub(run.Begin), len(p.running)
	p.fail(p.judge(run), run.Begin, func() string { return StatusText(run.Status) })
	p.release(run.watch)
	if p.Ended != nil {
		p.Ended(run)
	}
	<-p.slots
}

// reap waits for the programs until done is closed.
func (p *Pool) reap(done chan struct{}) {
	for {
		// What has ended is left waiting, and is waited for under the lock: until then
		// its number is nobody else's, so that Signal sends to no other process.
		switch err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOWAIT, nil); err {
		case nil:
			p.collect()
		case unix.EINTR:
		default: // ECHILD: wait until there is a child
			select {
			case <-p.spawned:
			case <-done:
				return
			}
		}
	}
}

// collect waits for the programs that have ended.
func (p *Pool) collect() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if pid <= 0 || err != nil {
			return
		}
		p.finish(pid, ending{status, time.Now()})
	}
}
