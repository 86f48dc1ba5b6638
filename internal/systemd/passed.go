//go:build linux

// Package systemd takes what systemd passes to the programs that it starts.
package systemd

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"fdkit/internal/hint"
)

// firstPassed is SD_LISTEN_FDS_START, sd_listen_fds(3).
const firstPassed = 3

// Socket is a descriptor that a service manager has passed to this process.
type Socket struct {
	FD   int
	Name string // FileDescriptorName of systemd.socket(5)
}

// String names the socket for people.
func (s Socket) String() string { return fmt.Sprintf("descriptor %d (named %s)", s.FD, s.Name) }

// Passed returns the descriptors that systemd, or a program that does as systemd
// does, has passed to this process, as LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES
// tell: sd_listen_fds(3). There is at least one. Passed leaves the variables as
// they are, and does not look at the descriptors, which stay the caller's.
func Passed() ([]Socket, error) { return ParsePassed(os.LookupEnv, os.Getpid()) }

// ParsePassed is Passed of process self with that environment.
func ParsePassed(env func(name string) (string, bool), self int) ([]Socket, error) {
	pid, _ := env("LISTEN_PID")
	count, _ := env("LISTEN_FDS")
	if pid == "" || count == "" {
		return nil, hint.Wrap(errors.New("no sockets were passed to this process"),
			"a socket unit of systemd passes them, and so does systemd-socket-activate -l PORT COMMAND")
	}
	if n, err := strconv.ParseUint(pid, 10, 31); err != nil {
		return nil, fmt.Errorf("LISTEN_PID is %q, which is no process number", pid)
	} else if int(n) != self {
		return nil, hint.Wrap(fmt.Errorf("the sockets were passed to process %d, and this is process %d", n, self),
			"a shell that is started in between gives its own place away with exec: exec COMMAND ...")
	}
	// The kernel's own limit of descriptors is 2^20, nr_open in proc(5).
	n, err := strconv.ParseUint(count, 10, 20)
	if err != nil {
		return nil, fmt.Errorf("LISTEN_FDS is %q, which is no number of descriptors", count)
	}
	if n == 0 {
		return nil, errors.New("no sockets were passed to this process: LISTEN_FDS is 0")
	}
	var names []string
	if text, _ := env("LISTEN_FDNAMES"); text != "" {
		names = strings.Split(text, ":")
		if len(names) != int(n) {
			return nil, fmt.Errorf("LISTEN_FDNAMES has %d names for %d descriptors", len(names), n)
		}
	}
	sockets := make([]Socket, n)
	for i := range sockets {
		sockets[i] = Socket{firstPassed + i, "unknown"} // as sd_listen_fds_with_names(3) has it
		if names != nil {
			sockets[i].Name = names[i]
		}
	}
	return sockets, nil
}
