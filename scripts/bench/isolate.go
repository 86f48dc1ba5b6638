//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// The run inside is told of its cgroup, "" if there is none, and of its directory for
// files. That they are set tells that this is the run inside.
const (
	cgroupVar = "FDKIT_BENCH_CGROUP"
	dirVar    = "FDKIT_BENCH_DIR"
)

func isolated() bool {
	_, set := os.LookupEnv(cgroupVar)
	return set && os.Getpid() == 1
}

// isolate runs this program again in namespaces of its own: of the network, so that
// ports, ephemeral ports and sockets in TIME_WAIT are its own; and of processes, as
// their init: whatever a contestant has started ends with it, and when init ends, so
// do all, pid_namespaces(7).
func isolate() error {
	group, err := newCgroup()
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: no cgroup: %v\n", err)
	}
	defer group.remove()
	dir, err := os.MkdirTemp("", "fdkit-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	c := exec.Command("/proc/self/exe", os.Args[1:]...)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.Env = append(os.Environ(), cgroupVar+"="+group.String(), dirVar+"="+dir)
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
	}
	if os.Getuid() != 0 {
		c.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		c.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	runtime.LockOSThread() // Pdeathsig is of the thread, PR_SET_PDEATHSIG(2const)
	if err := c.Start(); err != nil {
		return fmt.Errorf("cannot make namespaces: %w; it takes root, or user namespaces", err)
	}
	go func() {
		<-signals
		_ = c.Process.Kill()
	}()
	err = c.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
		return errSaid
	}
	return err
}

// errSaid says that the run inside has said already what was wrong.
var errSaid = errors.New("it has failed")

// ownNetwork makes the new namespaces fit for use.
func ownNetwork() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return os.NewSyscallError("mount", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("cannot mount /proc: %w", err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("cannot set lo up: %w", err)
	}
	for name, value := range map[string]string{
		// Each client address has so many ports. Those below are for contestants.
		"net/ipv4/ip_local_port_range": "10000 65535",
		// 4096 is the default, and listen's as well; SYNs that find a full backlog are
		// sent again after a second, which would be measured instead.
		"net/core/somaxconn":           "4096",
		"net/ipv4/tcp_max_syn_backlog": "4096",
	} {
		err := os.WriteFile("/proc/sys/"+name, []byte(value), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) { // some belong to the first namespace only
			return err
		}
	}
	return nil
}
