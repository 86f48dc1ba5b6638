//go:build linux

package queue

import (
	"fmt"
	"os"
	"strings"
)

// Waiting returns how many descriptors are in the queue, which is how many
// connections if each message has one. They are those of all senders. It is not
// known where this process does not hold the receiving end.
func (q *Queue) Waiting() (n int, known bool) {
	if q.receive == nil {
		return 0, false
	}
	// scm_fds is what unix_show_fdinfo() in net/unix/af_unix.c tells of the
	// descriptors in a socket's receive queue, since Linux 5.9.
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", *q.receive))
	if err != nil {
		return 0, false
	}
	return parseWaiting(string(text))
}

func parseWaiting(fdinfo string) (n int, known bool) {
	for line := range strings.Lines(fdinfo) {
		if _, err := fmt.Sscanf(line, "scm_fds: %d\n", &n); err == nil {
			return n, true
		}
	}
	return 0, false
}
