//go:build linux

// Package interrupt ends blocking system calls from another goroutine.
//
// A thread that sleeps in accept4(2), recvmsg(2) or sendmsg(2) on a shared
// descriptor cannot be woken by closing or shutting down that descriptor
// without harming the others who share it, and waiting in poll(2) first would
// wake every sleeper for each message. So the threads sleep in the calls
// themselves, and a signal sent with tgkill(2) to exactly that thread ends the
// sleep with EINTR. Go installs its handlers with SA_RESTART, with which these
// calls go on by themselves (signal(7)); this package takes that flag off one
// real-time signal that it keeps for itself.
package interrupt

import (
	"errors"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Signal is the signal that this package reserves in any process that uses it.
// glibc keeps 32 and 33; 63 is one below SIGRTMAX, which supervisors use.
const Signal = syscall.Signal(63)

// ErrStopped is returned by a call that was ended, or not begun, because of Stop.
var ErrStopped = errors.New("stopped")

// Calls is a set of blocking system calls that end together. The zero value is
// ready for use; it must not be copied. A nil Calls is for calls that nothing is to end:
// it has all methods but Stop and Resume, and reserves no signal.
type Calls struct {
	stopped atomic.Bool
	mu      sync.Mutex
	inside  []int // the kernel's ids of the threads that are in a call
}

// Enter announces that the calling goroutine is about to make system calls
// that may block. It keeps the goroutine on its thread until Exit. After Stop
// it returns ErrStopped, and Exit must not be called.
func (c *Calls) Enter() error {
	if c == nil {
		return nil
	}
	reserve()
	runtime.LockOSThread()
	if blocked {
		_ = unix.PthreadSigmask(unix.SIG_UNBLOCK, &only, nil)
	}
	c.mu.Lock()
	// Under the lock, so that Stop either sees this thread or is seen by it.
	if c.stopped.Load() {
		c.mu.Unlock()
		runtime.UnlockOSThread()
		return ErrStopped
	}
	c.inside = append(c.inside, unix.Gettid())
	c.mu.Unlock()
	return nil
}

// Exit ends what Enter began, on the same goroutine.
func (c *Calls) Exit() {
	if c == nil {
		return
	}
	c.mu.Lock()
	if len(c.inside) == 1 { // it is this thread
		c.inside = c.inside[:0]
	} else if i := slices.Index(c.inside, unix.Gettid()); i >= 0 {
		c.inside = slices.Delete(c.inside, i, i+1)
	}
	c.mu.Unlock()
	runtime.UnlockOSThread()
}

// Stopped tells whether Stop was called. A call that fails with EINTR is to be
// made again unless Stopped.
func (c *Calls) Stopped() bool { return c != nil && c.stopped.Load() }

// Stop makes the calls that are under way fail with EINTR, lets no further one
// begin, and returns when every goroutine that had entered has left. What a
// call had already done (a connection accepted, a message received) is
// returned by it as usual, so nothing is lost.
func (c *Calls) Stop() {
	c.stopped.Store(true)
	for pause := 50 * time.Microsecond; ; pause = min(2*pause, 10*time.Millisecond) {
		c.mu.Lock()
		inside := slices.Clone(c.inside)
		c.mu.Unlock()
		if len(inside) == 0 {
			return
		}
		// A signal that comes before the thread has reached its system call
		// ends nothing, so it is sent again until the thread has left. Handler
		// and flags are set anew each time: the program may have called
		// signal.Ignore or signal.Notify for all signals meanwhile.
		handle()
		for _, tid := range inside {
			_ = unix.Tgkill(os.Getpid(), tid, Signal) // ESRCH: it has ended
		}
		time.Sleep(pause)
	}
}

// Poll waits, between Enter and Exit, until fd is ready for events or is closed or
// broken at its other end. Stop ends it with ErrStopped.
func (c *Calls) Poll(fd int, events int16) error {
	_, err := c.PollAny([]unix.PollFd{{Fd: int32(fd), Events: events}}, -1)
	return err
}

// Wait is Poll with a limit, and with Enter and Exit. It returns false if the time
// is up; a negative limit is none.
func (c *Calls) Wait(fd int, events int16, limit time.Duration) (bool, error) {
	if err := c.Enter(); err != nil {
		return false, err
	}
	defer c.Exit()
	return c.PollAny([]unix.PollFd{{Fd: int32(fd), Events: events}}, limit)
}

// PollAny is Poll for several descriptors, with a limit as Wait has it: it waits until
// one of them is ready, and sets Revents.
func (c *Calls) PollAny(fds []unix.PollFd, limit time.Duration) (bool, error) {
	var deadline time.Time
	if limit >= 0 {
		deadline = time.Now().Add(limit)
	}
	for {
		timeout := -1
		if limit >= 0 {
			timeout = int(max(time.Until(deadline), 0).Milliseconds()) + 1
		}
		n, err := unix.Poll(fds, timeout)
		switch {
		case err == nil:
			return n > 0, nil
		case err != unix.EINTR:
			return false, os.NewSyscallError("poll", err)
		case c.Stopped():
			return false, ErrStopped
		}
	}
}

// blocked tells whether this process was started with the signal blocked, which
// the runtime's threads inherit. It is found out when the program is initialised:
// later a thread may have another mask.
var blocked = func() bool {
	var mask unix.Sigset_t
	err := unix.PthreadSigmask(unix.SIG_BLOCK, nil, &mask)
	return err != nil || mask.Val[word]&only.Val[word] != 0
}()

// only is the set of just that signal, which stands in that word of it.
var (
	only = func() (set unix.Sigset_t) {
		set.Val[word] = 1 << ((Signal - 1) % bits)
		return set
	}()
	bits = syscall.Signal(8 * unsafe.Sizeof(unix.Sigset_t{}.Val[0]))
	word = (Signal - 1) / bits
)

// Resume lets calls begin again after Stop.
func (c *Calls) Resume() { c.stopped.Store(false) }

var reserve = sync.OnceFunc(handle)

var received = make(chan os.Signal, 1) // nobody reads it: the signal's effect is EINTR

// handle makes the signal interrupt system calls, also after the program has
// called signal.Ignore.
func handle() {
	signal.Notify(received, Signal)
	withoutRestart()
}

// sigaction is the kernel's struct of rt_sigaction(2), as amd64, arm64 and
// riscv64 have it.
type sigaction struct {
	handler  uintptr
	flags    uintptr
	restorer uintptr
	mask     uint64
}

const saRestart = 0x10000000 // SA_RESTART, asm/signal.h

func withoutRestart() {
	var act sigaction
	const maskSize = unsafe.Sizeof(act.mask)
	if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(Signal), 0,
		uintptr(unsafe.Pointer(&act)), maskSize, 0, 0); errno != 0 || act.flags&saRestart == 0 {
		return
	}
	act.flags &^= saRestart
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(Signal),
		uintptr(unsafe.Pointer(&act)), 0, maskSize, 0, 0)
}
