//go:build linux

package cmd

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"fdkit/exec"
	"fdkit/internal/hint"
)

// privilegeFlags are the options that say what this process gives up when it has bound
// its addresses.
func privilegeFlags() []cli.Flag {
	return []cli.Flag{
		onceFlag("user", "after binding, run as `USER[:GROUP]`, with the user's supplementary groups unless GROUP is given"),
		onceFlag("group", "after binding, run with `GROUP[,GROUP...]`, the first as its own group"),
		onceFlag("chroot", "after binding, make `DIR` the root directory"),
		&cli.BoolFlag{Name: "no-new-privs", Usage: "after binding, get no privileges by set-user-ID bits and the like", DisableDefaultText: true},
	}
}

// drop makes this process, all its threads, what identify has found: that user, in that
// root directory.
func drop(p exec.Confinement) error {
	if p.Chroot != "" {
		err := os.NewSyscallError("chroot", unix.Chroot(p.Chroot))
		if err == nil {
			err = os.NewSyscallError("chdir", unix.Chdir("/"))
		}
		if err != nil {
			return onlyRoot(fmt.Errorf("cannot change the root directory to %s: %w", p.Chroot, err))
		}
	}
	if p.User != nil {
		// Package syscall makes these calls in every thread: the kernel's are for
		// one, nptl(7).
		err := os.NewSyscallError("setgroups", syscall.Setgroups(p.User.Groups))
		if err == nil {
			err = os.NewSyscallError("setresgid", syscall.Setresgid(p.User.GID, p.User.GID, p.User.GID))
		}
		if err == nil {
			err = os.NewSyscallError("setresuid", syscall.Setresuid(p.User.UID, p.User.UID, p.User.UID))
		}
		if err != nil {
			return onlyRoot(fmt.Errorf("cannot run as uid %d, gid %d: %w", p.User.UID, p.User.GID, err))
		}
	}
	if p.NoNewPrivs {
		_, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0)
		if errno == syscall.ENOTSUP {
			return errors.New("option --no-new-privs: this fdkit was built with cgo; build it with CGO_ENABLED=0, as make does")
		} else if errno != 0 {
			return fmt.Errorf("cannot give up new privileges: %w", os.NewSyscallError("prctl", errno))
		}
	}
	return nil
}

func onlyRoot(err error) error {
	if errors.Is(err, unix.EPERM) {
		return hint.Wrap(err, "only root may do that")
	}
	return err
}
