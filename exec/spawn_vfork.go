//go:build linux && (amd64 || arm64)

package exec

import (
	"runtime"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"fdkit/internal/nofile"
)

// cloneArgs is struct clone_args of clone3(2).
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

// step is one system call of the child, with its number and its arguments.
type step struct{ number, a, b, c, d uintptr }

// failure is the system call of the child that failed.
type failure struct{ errno, step uintptr }

// vfork starts a child that shares this process's memory, while the calling thread
// waits. The child makes the system calls in steps, of which the last is to be
// execve(2). If one fails, it enters it in failed and exits with 127.
//
//go:noescape
func vfork(args *cloneArgs, size uintptr, steps *step, failed *failure) (pid int)

var vforkArgs = cloneArgs{
	// Of the handlers, which are Go's, none may run in the child.
	flags:      unix.CLONE_VM | unix.CLONE_VFORK | unix.CLONE_CLEAR_SIGHAND,
	exitSignal: uint64(unix.SIGCHLD),
}

// noVfork is set where clone3(2) is not to be had: before Linux 5.5, or by the will
// of a seccomp filter.
var noVfork atomic.Bool

// spawner starts programs, always the same one. It is for one goroutine at a time,
// which is locked to its thread.
//
// os/exec and syscall.ForkExec would set each signal with a system call of its own
// and learn of errors through a pipe. Here a start is clone3, three or four system
// calls of the child, execve, and no descriptor but the connection.
type spawner struct {
	program *Program
	path    *byte
	argv    []*byte
	ignored []syscall.Signal
	limit   syscall.Rlimit // RLIMIT_NOFILE for the program
	steps   []step
	failed  failure
	// What steps point to.
	noSignals uint64
	byDefault sigaction
}

func newSpawner(p *Program) (*spawner, error) {
	s := &spawner{program: p, ignored: ignoredSignals(), limit: syscall.Rlimit(nofile.Original)}
	var err error
	if s.path, err = unix.BytePtrFromString(p.Path); err != nil {
		return nil, err
	}
	if s.argv, err = syscall.SlicePtrFromStrings(p.Args); err != nil {
		return nil, err
	}
	return s, nil
}

// spawn starts the program with fd at 0 and 1, in a process group of its own, so
// that signals reach what it starts as well. The other descriptors of this process
// must be close-on-exec; 2 stays.
func (s *spawner) spawn(fd int, env *envBlock) (pid int, err error) {
	if noVfork.Load() {
		return forkExec(s.program, fd, env.strings())
	}
	s.steps = append(s.steps[:0],
		step{unix.SYS_SETPGID, 0, 0, 0, 0},
		step{unix.SYS_DUP3, uintptr(fd), 0, 0, 0},
		step{unix.SYS_DUP3, uintptr(fd), 1, 0, 0},
		step{unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&s.noSignals)), 0, unsafe.Sizeof(s.noSignals)},
	)
	// What is ignored here, as nohup and the shell's & leave it, would stay so
	// through execve.
	for _, sig := range s.ignored {
		s.steps = append(s.steps, step{
			unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&s.byDefault)), 0, unsafe.Sizeof(s.byDefault.mask),
		})
	}
	s.restoreLimit()
	s.steps = append(s.steps, step{
		unix.SYS_EXECVE, uintptr(unsafe.Pointer(s.path)),
		uintptr(unsafe.Pointer(&s.argv[0])), uintptr(unsafe.Pointer(&env.entries[0])), 0,
	})
	s.failed = failure{}
	pid = vfork(&vforkArgs, unsafe.Sizeof(vforkArgs), &s.steps[0], &s.failed)
	runtime.KeepAlive(env)
	switch {
	case pid == -int(unix.ENOSYS), pid == -int(unix.EINVAL), pid == -int(unix.EPERM):
		noVfork.Store(true)
		return forkExec(s.program, fd, env.strings())
	case pid < 0:
		return 0, unix.Errno(-pid)
	case s.failed.errno != 0:
		// The child has exited; the reaper takes it for a program that was never
		// entered.
		return 0, unix.Errno(s.failed.errno)
	}
	return pid, nil
}

// restoreLimit adds the step that undoes what package syscall did to RLIMIT_NOFILE.
func (s *spawner) restoreLimit() {
	var now syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &now); err == nil && s.limit.Cur != 0 && now.Cur != s.limit.Cur {
		s.limit.Max = now.Max
		s.steps = append(s.steps, step{
			unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, uintptr(unsafe.Pointer(&s.limit)), 0,
		})
	}
}
