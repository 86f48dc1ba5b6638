//go:build linux && (amd64 || arm64)

package exec

import (
	"errors"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"fdkit/internal/nofile"
)

// cloneArgs is struct clone_args of clone3(2).
type cloneArgs struct {
	flags      uint64
	_          [3]uint64 // pidfd, child_tid, parent_tid
	exitSignal uint64
	_          [6]uint64 // stack, stack_size, tls, set_tid, set_tid_size, cgroup
}

// step is one system call of the child, with its number and its arguments.
type step struct{ number, a, b, c, d, e uintptr }

// failure is how far a child has come: the step that it made last, and its errno if
// it failed.
type failure struct{ errno, step uintptr }

// vfork starts a child that shares this process's memory, while the calling thread
// waits. The child makes the system calls in steps, of which the last is to be
// execve(2). It enters each in failed before, and if one fails exits with 127.
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

// spawner starts programs, always the same one. It is for one goroutine at a time.
//
// os/exec and syscall.ForkExec would set each signal with a system call of its own
// and learn of errors through a pipe. Here a start is clone3, three or four system
// calls of the child, execve, and no descriptor but the connection.
type spawner struct {
	program *Program
	confine *Confinement
	path    *byte
	argv    []*byte
	fixed   []step   // what each child does, but for its descriptors and execve
	names   []string // of the steps in fixed
	steps   []step
	failed  failure
	pinned  []any // what steps in fixed point to
}

func newSpawner(p *Program, confine *Confinement) (*spawner, error) {
	s := &spawner{program: p, confine: confine}
	var err error
	if s.path, err = unix.BytePtrFromString(p.Path); err != nil {
		return nil, err
	}
	if s.argv, err = syscall.SlicePtrFromStrings(p.Args); err != nil {
		return nil, err
	}
	// A group of its own, so that signals reach what the program starts as well.
	s.fix("setpgid", step{number: unix.SYS_SETPGID})
	s.fixSignals()
	s.fixOpenFiles()
	if err := s.fixConfinement(confine); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *spawner) fix(name string, step step) {
	s.names, s.fixed = append(s.names, name), append(s.fixed, step)
}

// pin returns the address of what p points to, which lives as long as s.
func pin[T any](s *spawner, p *T) uintptr {
	s.pinned = append(s.pinned, p)
	return uintptr(unsafe.Pointer(p))
}

// fixSignals empties the mask, and sets to its default what is ignored here, as
// nohup and the shell's & leave it: it would stay so through execve.
func (s *spawner) fixSignals() {
	var none uint64
	mask := pin(s, &none)
	s.fix("rt_sigprocmask", step{unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, mask, 0, unsafe.Sizeof(none), 0})
	byDefault := pin(s, &sigaction{})
	for _, sig := range ignoredSignals() {
		s.fix("rt_sigaction", step{unix.SYS_RT_SIGACTION, uintptr(sig), byDefault, 0, unsafe.Sizeof(none), 0})
	}
}

// fixOpenFiles undoes what package syscall did to RLIMIT_NOFILE.
func (s *spawner) fixOpenFiles() {
	var now syscall.Rlimit
	original := nofile.Original
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &now); err == nil && original.Cur != 0 && now.Cur != original.Cur {
		s.fixLimit(Limit{Resource: unix.RLIMIT_NOFILE, Cur: original.Cur, Max: now.Max})
	}
}

func (s *spawner) fixLimit(l Limit) {
	limit := pin(s, &unix.Rlimit{Cur: l.Cur, Max: l.Max})
	s.fix("prlimit", step{unix.SYS_PRLIMIT64, 0, uintptr(l.Resource), limit, 0, 0})
}

// fixConfinement does what needs privileges before it gives them up.
func (s *spawner) fixConfinement(c *Confinement) error {
	if c.Nice != nil {
		s.fix("setpriority", step{unix.SYS_SETPRIORITY, unix.PRIO_PROCESS, 0, uintptr(*c.Nice), 0, 0})
	}
	for _, l := range c.Limits {
		s.fixLimit(l)
	}
	if c.Umask != nil {
		s.fix("umask", step{unix.SYS_UMASK, uintptr(*c.Umask), 0, 0, 0, 0})
	}
	dir := c.Dir
	if c.Chroot != "" {
		root, err := unix.BytePtrFromString(c.Chroot)
		if err != nil {
			return err
		}
		s.fix("chroot", step{unix.SYS_CHROOT, pin(s, root), 0, 0, 0, 0})
		dir = "/" + dir // chroot(2) leaves the working directory outside
	}
	if dir != "" {
		path, err := unix.BytePtrFromString(dir)
		if err != nil {
			return err
		}
		s.fix("chdir", step{unix.SYS_CHDIR, pin(s, path), 0, 0, 0, 0})
	}
	if u := c.User; u != nil {
		groups := make([]uint32, len(u.Groups)+1)
		for i, group := range u.Groups {
			groups[i] = uint32(group)
		}
		gid, uid := uintptr(u.GID), uintptr(u.UID)
		s.fix("setgroups", step{unix.SYS_SETGROUPS, uintptr(len(u.Groups)), pin(s, &groups[0]), 0, 0, 0})
		s.fix("setresgid", step{unix.SYS_SETRESGID, gid, gid, gid, 0, 0})
		s.fix("setresuid", step{unix.SYS_SETRESUID, uid, uid, uid, 0, 0})
	}
	if c.NoNewPrivs {
		s.fix("prctl", step{unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0})
	}
	return nil
}

// spawn starts the program with fd at 0 and 1. The other descriptors of this
// process must be close-on-exec; 2 stays.
func (s *spawner) spawn(fd int, env *envBlock) (pid int, err error) {
	return s.spawnAt(fd, bothEnds, env)
}

var bothEnds = []int{0, 1}

// spawnAt starts the program with fd at the places, none of which is fd.
func (s *spawner) spawnAt(fd int, places []int, env *envBlock) (pid int, err error) {
	if noVfork.Load() {
		return forkExec(s.program, s.confine, fd, places, env.strings())
	}
	s.steps = append(s.steps[:0], s.fixed...)
	for _, place := range places {
		s.steps = append(s.steps, step{unix.SYS_DUP3, uintptr(fd), uintptr(place), 0, 0, 0})
	}
	s.steps = append(s.steps, step{
		unix.SYS_EXECVE, uintptr(unsafe.Pointer(s.path)),
		uintptr(unsafe.Pointer(&s.argv[0])), uintptr(unsafe.Pointer(&env.entries[0])), 0, 0,
	})
	pid, err = s.run()
	runtime.KeepAlive(env)
	if err == errNoVfork {
		return forkExec(s.program, s.confine, fd, places, env.strings())
	}
	return pid, err
}

// try does all that spawn does but execute the program, and returns the error that
// it would have each time. It waits for its child.
func (s *spawner) try() error {
	const here = ^uintptr(99) // AT_FDCWD, -100
	s.steps = append(append(s.steps[:0], s.fixed...),
		step{unix.SYS_FACCESSAT, here, uintptr(unsafe.Pointer(s.path)), unix.X_OK, 0, 0},
		step{number: unix.SYS_EXIT_GROUP})
	pid, err := s.run()
	if err == errNoVfork {
		if !s.confine.plain() {
			return errConfine
		}
		return nil
	}
	if err == nil {
		waitFor(pid)
	}
	return err
}

// waitFor waits for a child that exits, unless the reaper has.
func waitFor(pid int) {
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
			return
		}
	}
}

var errNoVfork = errors.New("there is no clone3(2)")

// run starts a child that makes the steps, and returns its pid. If one of them fails, the
// child exits and is waited for; if that one is fixed, the error names the system call.
func (s *spawner) run() (pid int, err error) {
	s.failed = failure{}
	pid = vfork(&vforkArgs, unsafe.Sizeof(vforkArgs), &s.steps[0], &s.failed)
	switch {
	case pid == -int(unix.ENOSYS), pid == -int(unix.EINVAL), pid == -int(unix.EPERM):
		noVfork.Store(true)
		return 0, errNoVfork
	case pid < 0:
		return 0, unix.Errno(-pid)
	}
	defer func() {
		if err != nil {
			waitFor(pid)
			pid = 0
		}
	}()
	failed := int((s.failed.step - uintptr(unsafe.Pointer(&s.steps[0]))) / unsafe.Sizeof(step{}))
	errno := unix.Errno(s.failed.errno)
	switch {
	case errno == 0 && failed == len(s.steps)-1:
		return pid, nil
	case errno == 0:
		// It was killed before: by a signal to this process's group, say, in the
		// instant before it had a group of its own. The program has done nothing yet.
		return pid, errKilled
	case failed < len(s.names):
		return pid, os.NewSyscallError(s.names[failed], errno)
	}
	return pid, errno
}
