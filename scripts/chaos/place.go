//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// withinNetwork is set in a process that runs in a network namespace of its own.
const withinNetwork = "FDKIT_CHAOS_NETWORK"

// enterNetwork runs this program again in a network namespace of its own, if that is
// possible, and ends with its status. It returns where the process is otherwise.
func enterNetwork() (string, error) {
	switch {
	case os.Getenv(withinNetwork) != "":
		return "in a network namespace of its own", up()
	case os.Geteuid() != 0:
		return "in the network namespace of this user, as only root can make one", nil
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), withinNetwork+"=1")
	// Pdeathsig goes by the thread, prctl(2), which must live until the child has ended.
	runtime.LockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGTERM}
	switch err := cmd.Run(); {
	case cmd.ProcessState != nil:
		os.Exit(max(cmd.ProcessState.ExitCode(), 0) | map[bool]int{true: 1}[err != nil])
	case errors.Is(err, syscall.EPERM):
		return "in the network namespace of this process, as no other can be made here", nil
	default:
		return "", err
	}
	panic("unreachable")
}

// up switches the loopback interface on, netdevice(7).
func up() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, lo); err != nil {
		return os.NewSyscallError("ioctl", err)
	}
	lo.SetUint16(lo.Uint16() | unix.IFF_UP)
	return os.NewSyscallError("ioctl", unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo))
}

// program puts this program and fdkit, which it builds if none is given, where every user
// can run them.
func program(ctx context.Context, given, dir string) (string, error) {
	if err := copyProgram("/proc/self/exe", filepath.Join(dir, inside)); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "fdkit")
	if given != "" {
		return path, copyProgram(given, path)
	}
	build := exec.CommandContext(ctx, "go", "build", "-tags", "urfave_cli_no_docs", "-o", path, "fdkit")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return "", fmt.Errorf("go build fdkit: %w", err)
	}
	return path, nil
}

func copyProgram(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Close())
}
