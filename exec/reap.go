//go:build linux

package exec

import (
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"fdkit/internal/interrupt"
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

// reap waits for the programs until done is closed and reaping is stopped.
func (p *Pool) reap(done chan struct{}) {
	for {
		var err error
		if !p.linger(done) {
			err = awaitChild(&p.reaping)
		}
		switch err {
		case nil:
			p.mu.Lock()
			for p.collectOne() { // also those that are being started
			}
			p.mu.Unlock()
		case interrupt.ErrStopped:
			return
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

// awaitChild waits until a child has ended, and leaves it a zombie: until it is waited for its
// number is nobody else's. That is done where no signal is sent meanwhile, under the pool's
// lock or in the goroutine of Workers.Run.
func awaitChild(calls *interrupt.Calls) error {
	if err := calls.Enter(); err != nil {
		return err
	}
	defer calls.Exit()
	return unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOWAIT, nil)
}

// reapDelay is for how long the reaper leaves programs that have ended to the starts of
// others.
const reapDelay = 10 * time.Millisecond

// linger waits for reapDelay, or until ends are wanted, if programs are started one after
// the other, and tells whether it has: each start collects what has ended meanwhile, in a
// thread that is awake anyway. To wake the reaper for each would cost more, and to wait
// in waitid(2) instead would take a processor from those that receive: keepProcessors in
// package cmd.
func (p *Pool) linger(done chan struct{}) bool {
	p.mu.Lock()
	// A connection that is held ends for its client only when its program is collected.
	linger := time.Since(p.previous) < reapDelay && len(p.slots) < cap(p.slots) && p.held == 0 && !p.Times.traffic()
	p.mu.Unlock()
	if !linger {
		return false
	}
	timer := time.NewTimer(reapDelay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.wanted:
	case <-done:
		return false
	}
	return true
}

// want keeps the reaper from lingering.
func (p *Pool) want() {
	select {
	case p.wanted <- struct{}{}:
	default:
	}
}

// slot takes a slot if one is free. If none is, the reaper does not linger.
func (p *Pool) slot() bool {
	for collected := false; ; collected = true {
		select {
		case p.slots <- struct{}{}:
			return true
		default:
		}
		if collected {
			break
		}
		p.mu.Lock()
		p.collect()
		p.mu.Unlock()
	}
	p.want()
	return false
}

// collect waits for the programs that have ended, if any runs: when Run has returned,
// children are somebody else's. The lock is held.
func (p *Pool) collect() {
	for len(p.running) > 0 && p.collectOne() {
	}
}

// collectOne waits for one program if one has ended, and tells whether it has. The lock is
// held.
func (p *Pool) collectOne() bool {
	var status syscall.WaitStatus
	pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
	if pid <= 0 || err != nil {
		return false
	}
	p.finish(pid, ending{status, time.Now()})
	return true
}

// quietChildren sets SIGCHLD to its default for this process, and returns what undoes
// that. Go's handler would run for each child that ends, in any thread, and interrupt
// what that waits for. By default the kernel does not send the signal at all, and
// children are to be waited for as ever: wait(2).
func quietChildren() (undo func()) {
	var before, byDefault sigaction
	const maskSize = unsafe.Sizeof(before.mask)
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGCHLD),
		uintptr(unsafe.Pointer(&byDefault)), uintptr(unsafe.Pointer(&before)), maskSize, 0, 0)
	return func() {
		if errno == 0 {
			_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGCHLD),
				uintptr(unsafe.Pointer(&before)), 0, maskSize, 0, 0)
		}
	}
}
