//go:build linux

package fdrecv

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"fdkit/internal/hint"
	"fdkit/internal/systemd"
)

// OpenEnviron opens the queue that this process was started with:
//
//   - the descriptor in FDKIT_QUEUE_FD, which a worker of fdkit pool --resident has;
//   - else, of the descriptors that a service manager has passed, sd_listen_fds(3), the one
//     named "queue" or, if it is the only one, whatever its name is: a connected Unix socket,
//     as a socket unit with Accept=yes passes it;
//   - else stdin, as Open has it.
//
// OpenEnviron takes the descriptor over, as Open does, and unsets FDKIT_QUEUE_FD, LISTEN_PID,
// LISTEN_FDS and LISTEN_FDNAMES, so that programs which this one starts do not take them for
// their own. Who is passed further descriptors looks at the variables before.
func OpenEnviron(o Options) (*Queue, error) {
	spec, passed, err := fromEnviron(os.LookupEnv, os.Getpid())
	for _, s := range passed {
		unix.CloseOnExec(s.FD) // as sd_listen_fds(3) does
	}
	for _, name := range []string{"FDKIT_QUEUE_FD", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		_ = os.Unsetenv(name)
	}
	if err != nil {
		return nil, err
	}
	return Open(spec, o)
}

// fromEnviron returns the queue, as Open takes it, that the environment of process self
// tells, and all descriptors that a service manager has passed.
func fromEnviron(env func(name string) (string, bool), self int) (spec string, passed []systemd.Socket, err error) {
	if text, ok := env("FDKIT_QUEUE_FD"); ok {
		n, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return "", nil, fmt.Errorf("FDKIT_QUEUE_FD is %q, which is no number of a descriptor", text)
		}
		return fmt.Sprintf("fd:%d", n), nil, nil
	}
	if pid, ok := env("LISTEN_PID"); !ok || pid != strconv.Itoa(self) {
		return "", nil, nil // a shell in between may have left those of its own
	}
	passed, err = systemd.ParsePassed(env, self)
	if err != nil {
		return "", nil, err
	}
	var names []string
	for _, s := range passed {
		if s.Name == "queue" || len(passed) == 1 {
			return fmt.Sprintf("fd:%d", s.FD), passed, nil
		}
		names = append(names, s.Name)
	}
	return "", passed, hint.Wrap(errors.New("none of the descriptors that were passed to this process is named queue"),
		"FileDescriptorName= of the socket unit gives the name; those that were passed are named "+strings.Join(names, ", "))
}
