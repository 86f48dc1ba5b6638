//go:build linux

package fdinfo

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Processes returns the numbers of all processes that can be seen, in order.
func Processes() ([]int, error) { return list(unix.AT_FDCWD, "/proc") }

// Command returns what the process calls itself, /proc/PID/comm, or "" if it has ended.
func (p *Process) Command() string {
	text, _ := readAt(p.dir, "comm")
	return strings.TrimSuffix(string(text), "\n")
}

// UnixSocket tells whether descriptor fd is a Unix socket, and if so which inode it has
// and how many descriptors are in its receive queue; of a listening socket, in those of
// the connections that are not accepted yet. No copy is taken. Before Linux 5.6 it never
// is one.
func (p *Process) UnixSocket(fd int) (inode uint64, descriptors int64, ok bool, err error) {
	number := strconv.Itoa(fd)
	link, err := readlinkat(p.dir, "fd/"+number)
	if err != nil {
		return 0, 0, false, os.NewSyscallError("readlink", err)
	}
	name, isSocket := strings.CutPrefix(link, "socket:[")
	if !isSocket {
		return 0, 0, false, nil
	}
	text, err := readAt(p.dir, "fdinfo/"+number)
	if err != nil {
		return 0, 0, false, err
	}
	// unix_show_fdinfo() in net/unix/af_unix.c; no other socket has it.
	descriptors, ok = parseInfo(text).number("scm_fds")
	inode, err = strconv.ParseUint(strings.TrimSuffix(name, "]"), 10, 64)
	return inode, descriptors, ok && err == nil, nil
}
