//go:build linux

package listen

import (
	"errors"
	"fmt"
	"os"
	"slices"
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
func Passed() ([]Socket, error) { return parsePassed(os.Getenv, os.Getpid()) }

func parsePassed(env func(name string) string, self int) ([]Socket, error) {
	pid, count := env("LISTEN_PID"), env("LISTEN_FDS")
	if pid == "" || count == "" {
		return nil, hint.Wrap(errors.New("no sockets were passed to this process"),
			"a socket unit of systemd passes them, and so does systemd-socket-activate -l PORT COMMAND")
	}
	if n, err := strconv.ParseUint(pid, 10, 31); err != nil {
		return nil, fmt.Errorf("LISTEN_PID is %q, which is no process number", pid)
	} else if int(n) != self {
		return nil, hint.Wrap(fmt.Errorf("the sockets were passed to process %d, and this is process %d", n, self),
			"a shell that is started in between gives its own place away with exec: exec fdkit listen --to QUEUE ...")
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
	if text := env("LISTEN_FDNAMES"); text != "" {
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

// Sockets returns the descriptors that Listen would take over for the address: of
// an inherited one its own, of those that systemd passes all with its name. For
// other addresses there are none.
func (a Address) Sockets() ([]Socket, error) {
	switch a.Kind {
	case Inherited:
		return []Socket{{FD: a.FD}}, nil
	case Systemd:
	default:
		return nil, nil
	}
	all, err := Passed()
	if err != nil || a.Name == "" {
		return all, err
	}
	var named []Socket
	var names []string
	for _, s := range all {
		if s.Name == a.Name {
			named = append(named, s)
		}
		if !slices.Contains(names, s.Name) {
			names = append(names, s.Name)
		}
	}
	if named == nil {
		return nil, hint.Wrap(fmt.Errorf("no socket of that name was passed to this process"),
			"FileDescriptorName= of the socket unit gives the name; those that were passed are named "+strings.Join(names, ", "))
	}
	return named, nil
}

// checkName checks what follows systemd: in an address, as systemd checks
// FileDescriptorName, systemd.socket(5).
func checkName(name string) error {
	bad := strings.ContainsFunc(name, func(c rune) bool { return c < ' ' || c >= 0x7f || c == ':' })
	if bad || len(name) > 255 {
		return fmt.Errorf("%q is no name of a socket: at most 255 characters of ASCII, without a colon", name)
	}
	return nil
}

// takePassed makes a Listener of each socket that systemd passes for the address.
func takePassed(a Address, o Options) (ls []*Listener, err error) {
	sockets, err := a.Sockets()
	if err != nil {
		return nil, err
	}
	for _, s := range sockets {
		l, err := inherit(s.FD, a, o)
		if err != nil {
			for _, l := range ls {
				l.Close()
			}
			if _, named := errors.AsType[*OptionError](err); named {
				return nil, err
			}
			return nil, fmt.Errorf("%v: %w", s, err)
		}
		l.name = s.Name
		ls = append(ls, l)
	}
	return ls, nil
}
