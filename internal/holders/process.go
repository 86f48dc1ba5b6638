//go:build linux

package holders

import (
	"bytes"
	"os"
	"strconv"
	"strings"
)

// identity returns a process's effective user and its command.
func identity(pid int) (uid int, command string) {
	dir := "/proc/" + strconv.Itoa(pid)
	name, _ := os.ReadFile(dir + "/comm")
	status, _ := os.ReadFile(dir + "/status")
	for line := range strings.Lines(string(status)) {
		// proc_pid_status(5): real, effective, saved set and file system UID.
		if ids, found := strings.CutPrefix(line, "Uid:"); found && len(strings.Fields(ids)) > 1 {
			uid, _ = strconv.Atoi(strings.Fields(ids)[1])
		}
	}
	return uid, strings.TrimSuffix(string(name), "\n")
}

// isEmpty tells whether a process can hold nothing: a thread of the kernel, or a zombie.
func isEmpty(pid int) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return true // it is gone
	}
	const kernelThread = 0x00200000 // PF_KTHREAD, include/linux/sched.h
	// proc_pid_stat(5): the state and, as the seventh, flags follow the name, which may
	// have anything in it.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 7 {
		return false
	}
	flags, err := strconv.ParseUint(fields[6], 10, 64)
	return fields[0] == "Z" || err == nil && flags&kernelThread != 0
}
