//go:build linux

package exec

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Place is a number at which a program finds a descriptor of this process.
type Place struct{ FD, At int }

// PlaceError says that there can be no descriptor of that number.
type PlaceError struct {
	Place int
	Err   error
}

func (e *PlaceError) Error() string {
	return fmt.Sprintf("cannot place the connection at descriptor %d: %v", e.Place, e.Err)
}

func (e *PlaceError) Unwrap() error { return e.Err }

// Become replaces this process by the program (execve(2)) with the connection fd at
// the numbers in places, and returns only if that fails. It is BecomeWith of one
// descriptor, which is blocking for the program.
func (p *Program) Become(fd int, places []int, env []string) error {
	if err := setBlocking(fd); err != nil {
		return err
	}
	all := make([]Place, len(places))
	for i, at := range places {
		all[i] = Place{fd, at}
	}
	return p.BecomeWith(all, env)
}

// BecomeWith replaces this process by the program (execve(2)) with descriptors at
// the numbers in places, which is not empty, and returns only if that fails. A
// descriptor may be at several places; of several at one place the last is there.
//
// Of the other descriptors the program gets 0, 1 and 2 as they are and no more. Its
// signal dispositions are the defaults and its mask is empty.
//
// The descriptors stay the caller's if BecomeWith fails. But then those from 3 on are
// close-on-exec, or the calling goroutine is locked to its thread, which has a descriptor
// table of its own.
func (p *Program) BecomeWith(places []Place, env []string) error {
	collect := func() {}
	if highest(places) <= 2 && alone() {
		if err := CloseOnExec(3); err != nil {
			return err
		}
	} else {
		// The signal mask belongs to the thread that calls execve, signal(7), and from
		// here on so do the descriptors: at one of the places the Go runtime may have
		// one of its own, which its other threads go on using, or another goroutine
		// may write there.
		runtime.LockOSThread()
		if err := unshareFiles(); err != nil {
			return err
		}
		collect = stopCollecting()
	}
	displaced, err := put(places)
	if err == nil {
		defaultSignals()
		emptyMask()
		// syscall.Exec also sets RLIMIT_NOFILE back to what it was before the Go
		// runtime raised it.
		err = syscall.Exec(p.Path, p.Args, env)
	}
	restore(displaced)
	collect()
	if _, ok := err.(*PlaceError); ok {
		return err
	}
	return notRunnable(p.Args[0], err)
}

// alone tells whether there is no other goroutine, and this thread's signal mask is empty,
// as are those of the others then, unless somebody has changed them. Then a process can
// become a program without the thread that the Go runtime starts where a goroutine is
// locked to one, which takes a tenth of the time until exec. The runtime's own goroutines
// do not count: they use no descriptor below 3.
func alone() bool {
	var mask unix.Sigset_t
	err := unix.PthreadSigmask(unix.SIG_BLOCK, nil, &mask)
	return err == nil && mask == (unix.Sigset_t{}) && runtime.NumGoroutine() == 1
}

// stopCollecting keeps the calling goroutine, which is locked to its thread, from using
// descriptors of the Go runtime until collect is called. It does not poll for others, but
// would begin or end garbage collections.
func stopCollecting() (collect func()) {
	percent, memory := debug.SetGCPercent(-1), debug.SetMemoryLimit(math.MaxInt64)
	return func() {
		debug.SetMemoryLimit(memory)
		debug.SetGCPercent(percent)
	}
}

func highest(places []Place) int {
	n := 2
	for _, place := range places {
		n = max(n, place.At)
	}
	return n
}

// unshareFiles gives this thread a descriptor table of its own, in which all from 3 on
// are close-on-exec.
func unshareFiles() error {
	// Not unshare(2), which Docker's seccomp filter forbids.
	err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_UNSHARE|unix.CLOSE_RANGE_CLOEXEC)
	if err == nil {
		return nil
	}
	if err := unix.Unshare(unix.CLONE_FILES); err != nil { // before Linux 5.11
		return os.NewSyscallError("unshare", err)
	}
	return CloseOnExec(3)
}

// displaced is what was at a place before: a copy of the descriptor, -1 if there was
// none, and its flags, fcntl(2).
type displaced struct{ at, fd, flags int }

// put puts the descriptors at their places, where they are not close-on-exec, and
// returns what was at all numbers that it has used. Its errors are PlaceErrors.
func put(places []Place) (before []displaced, err error) {
	highest := highest(places)
	// First all out of the way: one may have the number that is another's place.
	away := map[int]int{}
	for _, place := range places {
		if _, done := away[place.FD]; done {
			continue
		}
		high, err := unix.FcntlInt(uintptr(place.FD), unix.F_DUPFD_CLOEXEC, highest+1)
		if err != nil {
			return before, &PlaceError{highest, os.NewSyscallError("fcntl", err)}
		}
		away[place.FD] = high
		before = append(before, displaced{at: high, fd: -1})
	}
	for _, place := range places {
		old := displaced{at: place.At, fd: -1}
		if old.flags, err = unix.FcntlInt(uintptr(place.At), unix.F_GETFD, 0); err == nil {
			if old.fd, err = unix.FcntlInt(uintptr(place.At), unix.F_DUPFD_CLOEXEC, highest+1); err != nil {
				return before, &PlaceError{place.At, os.NewSyscallError("fcntl", err)}
			}
		}
		if err := unix.Dup3(away[place.FD], place.At, 0); err != nil {
			return before, &PlaceError{place.At, os.NewSyscallError("dup3", err)}
		}
		before = append(before, old)
	}
	return before, nil
}

// restore undoes what put did.
func restore(before []displaced) {
	for _, old := range slices.Backward(before) { // a place may have been taken twice
		if old.fd < 0 {
			_ = unix.Close(old.at)
			continue
		}
		_ = unix.Dup3(old.fd, old.at, unix.O_CLOEXEC)
		_ = unix.Close(old.fd)
		_, _ = unix.FcntlInt(uintptr(old.at), unix.F_SETFD, old.flags)
	}
}

// CloseOnExec sets the close-on-exec flag of all descriptors from first on, so
// that programs do not get what this process has inherited without knowing.
func CloseOnExec(first int) error {
	err := unix.CloseRange(uint(first), ^uint(0), unix.CLOSE_RANGE_CLOEXEC)
	if err == nil {
		return nil
	}
	if err != unix.ENOSYS && err != unix.EINVAL { // before Linux 5.11
		return os.NewSyscallError("close_range", err)
	}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if fd, err := strconv.Atoi(entry.Name()); err == nil && fd >= first {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

// setBlocking clears O_NONBLOCK, which a foreign sender may have set: programs
// that read stdin with plain read(2) would fail with EAGAIN.
func setBlocking(fd int) error {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err == nil && flags&unix.O_NONBLOCK != 0 {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags&^unix.O_NONBLOCK)
	}
	return os.NewSyscallError("fcntl", err)
}

const lastSignal = 64 // _NSIG, asm/signal.h

// sigaction is the kernel's struct of rt_sigaction(2), as amd64, arm64 and
// riscv64 have it.
type sigaction struct {
	handler  uintptr
	flags    uintptr
	restorer uintptr
	mask     uint64
}

// ignoredSignals returns the signals that this process has as ignored.
func ignoredSignals() (signals []syscall.Signal) {
	const ignored = 1 // SIG_IGN
	for sig := syscall.Signal(1); sig <= lastSignal; sig++ {
		var act sigaction
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), 0,
			uintptr(unsafe.Pointer(&act)), unsafe.Sizeof(act.mask), 0, 0)
		if errno == 0 && act.handler == ignored {
			signals = append(signals, sig)
		}
	}
	return signals
}

// defaultSignals sets every ignored signal to its default. What has a handler is
// set to the default by execve itself.
func defaultSignals() {
	for _, sig := range ignoredSignals() {
		var none sigaction
		_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig),
			uintptr(unsafe.Pointer(&none)), 0, unsafe.Sizeof(none.mask), 0, 0)
	}
}

// emptyMask unblocks all signals of the calling thread.
func emptyMask() {
	var none unix.Sigset_t
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &none, nil)
}
