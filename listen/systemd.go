//go:build linux

package listen

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"fdkit/internal/hint"
	"fdkit/internal/systemd"
)

// Socket is a descriptor that a service manager has passed to this process.
type Socket = systemd.Socket

// Passed returns the descriptors that systemd, or a program that does as systemd
// does, has passed to this process, as LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES
// tell: sd_listen_fds(3). There is at least one. Passed leaves the variables as
// they are, and does not look at the descriptors, which stay the caller's.
func Passed() ([]Socket, error) { return systemd.Passed() }

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
