//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// marker is the variable that everything has which a case has started. fdkit keeps those
// that begin with FDKIT from its programs.
const marker = "CHAOS_RUN"

// left returns the processes that the case has started, or that those have, and that run.
func (e *env) left() (pids []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(text, []byte(marker+"="+e.marker+"\x00")) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

// children returns the children of a process that run, proc_pid_task(5).
func children(pid int) (pids []int) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, file := range files {
		text, _ := os.ReadFile(file)
		for word := range strings.FieldsSeq(string(text)) {
			if child, err := strconv.Atoi(word); err == nil && state(child) != 'Z' {
				pids = append(pids, child)
			}
		}
	}
	return pids
}

// state returns the letter of proc_pid_stat(5), 0 if there is no such process.
func state(pid int) byte {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if i := bytes.LastIndex(text, []byte(") ")); err == nil && i >= 0 && i+2 < len(text) {
		return text[i+2]
	}
	return 0
}

// signalChild sends a signal to a child of the process parent, and tells whether it has:
// never to another process that has got its number meanwhile.
func signalChild(parent, pid int, sig unix.Signal) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil || !bytes.Contains(status, fmt.Appendf(nil, "\nPPid:\t%d\n", parent)) {
		return false
	}
	return unix.PidfdSendSignal(fd, sig, nil, 0) == nil
}

// descriptors returns how many descriptors a process has open.
func descriptors(pid int) int {
	entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(entries)
}

// descriptorsAtRest returns how many it has when that has not changed for a second. A pool
// gives up the last connections a moment after their clients have had their answer.
func (e *env) descriptorsAtRest(pid int) int {
	n := descriptors(pid)
	for since := time.Now(); time.Since(since) < time.Second && e.Err() == nil; time.Sleep(10 * time.Millisecond) {
		if now := descriptors(pid); now != n {
			n, since = now, time.Now()
		}
	}
	return n
}

// processorTime returns the time that all threads of a process have run.
func processorTime(pid int) (time.Duration, error) {
	const sched = 2 // CPUCLOCK_SCHED in include/linux/posix-timers.h; see clock_getcpuclockid(3)
	var at unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|sched), &at); err != nil {
		return 0, os.NewSyscallError("clock_gettime", err)
	}
	return time.Duration(at.Nano()), nil
}

// memory returns the anonymous memory that a process has, in KiB, proc_pid_status(5): that
// of files is shared, and comes and goes as the kernel likes.
func memory(pid int) (kib int64) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			_, _ = fmt.Sscan(value, &kib)
		}
	}
	return kib
}

// fewFiles sets the limit of open files of a process that runs, so that it can open n more
// than it has now.
func fewFiles(pid, n int) (restore func() error, err error) {
	var old unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &old); err != nil {
		return nil, os.NewSyscallError("prlimit", err)
	}
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return nil, err
	}
	used := map[int]bool{}
	for _, entry := range entries {
		if fd, err := strconv.Atoi(entry.Name()); err == nil {
			used[fd] = true
		}
	}
	limit := 0 // the limit is for numbers, not for how many
	for free := 0; free < n || used[limit]; limit++ {
		if !used[limit] {
			free++
		}
	}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(limit), Max: old.Max}, nil); err != nil {
		return nil, os.NewSyscallError("prlimit", err)
	}
	return func() error { return os.NewSyscallError("prlimit", unix.Prlimit(pid, unix.RLIMIT_NOFILE, &old, nil)) }, nil
}
