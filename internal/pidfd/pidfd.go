//go:build linux

// Package pidfd copies descriptors out of other processes.
package pidfd

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"fdkit/internal/hint"
)

// Get returns a copy of descriptor fd of the process pid, close-on-exec and the
// caller's to close. Both share the open file description, as after dup(2).
//
// It needs Linux 5.6, and the right to trace the process, PTRACE_MODE_ATTACH_REALCREDS
// in ptrace(2); the error says so if that is missing.
func Get(pid, fd int) (int, error) {
	process, err := unix.PidfdOpen(pid, 0)
	switch {
	// It is EINVAL of a thread that is not its process's first, and ENOENT since
	// Linux 6.9, pidfd_open(2).
	case errors.Is(err, unix.ESRCH), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
		return -1, fmt.Errorf("there is no process %d", pid)
	case err != nil:
		return -1, os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(process)
	got, err := unix.PidfdGetfd(process, fd, 0)
	switch {
	case errors.Is(err, unix.EBADF):
		return -1, hint.Wrap(fmt.Errorf("process %d has no descriptor %d", pid, fd),
			fmt.Sprintf("ls -l /proc/%d/fd shows those that it has", pid))
	case errors.Is(err, unix.ESRCH):
		return -1, fmt.Errorf("process %d has ended", pid)
	case errors.Is(err, unix.EPERM):
		return -1, hint.Wrap(os.NewSyscallError("pidfd_getfd", err),
			"it takes the right to trace the process: root, or its own user where /proc/sys/kernel/yama/ptrace_scope is 0 or missing")
	case err != nil:
		return -1, os.NewSyscallError("pidfd_getfd", err)
	}
	return got, nil
}
