//go:build linux

package fdinfo

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// Glance is what a single read tells of a descriptor: its /proc/PID/fdinfo/FD,
// proc_pid_fdinfo(5).
type Glance struct {
	Access      string // as in Description
	CloseOnExec bool
	// InFlight is how many descriptors are in the receive queue of a Unix socket, or in
	// those of the connections that wait to be accepted at it: unix_show_fdinfo() in
	// net/unix/af_unix.c, since Linux 5.8.
	InFlight int
}

// GlanceAt looks at descriptor fd of process pid, which may be this one.
func GlanceAt(pid, fd int) (g Glance, err error) {
	text, err := readAt(unix.AT_FDCWD, "/proc/"+strconv.Itoa(pid)+"/fdinfo/"+strconv.Itoa(fd))
	if err != nil {
		return g, err
	}
	i := parseInfo(text)
	var d Description
	d.flags(i.flags)
	n, _ := i.number("scm_fds")
	return Glance{d.Access, d.CloseOnExec, int(n)}, nil
}
