//go:build linux

package cmd

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"fdkit/listen"
)

// checkInherited checks that the descriptors that addresses name are open, and
// that none of them is named twice.
func checkInherited(addresses []listen.Address) error {
	by := map[int]listen.Address{}
	for i, a := range addresses {
		sockets, err := a.Sockets()
		if err != nil {
			return fmt.Errorf("address %v: %w", a, err)
		}
		for _, s := range sockets {
			what := fmt.Sprintf("descriptor %d", s.FD)
			if a.Kind == listen.Systemd {
				what = s.String()
			}
			if !inherited(s.FD) {
				return usageHint("a parent process or a supervisor opens it", "address %v: %s is not open", a, what)
			}
			switch other, taken := by[s.FD]; {
			case taken && slices.Contains(addresses[:i], a):
				return usagef("address %v: it is given twice", a)
			case taken:
				return usagef("address %v: %s is that of %v", a, what, other)
			}
			by[s.FD] = a
		}
	}
	return nil
}

// closeUnused closes the sockets that systemd has passed and that nothing uses, if
// others of them are used. Otherwise this process would keep their clients waiting
// when systemd has closed them. It is to be called when all that is used has been
// taken over, and so is close-on-exec.
func closeUnused(addresses []listen.Address, log logger) {
	isPassed := func(a listen.Address) bool { return a.Kind == listen.Systemd }
	if !slices.ContainsFunc(addresses, isPassed) {
		return
	}
	sockets, err := listen.Passed()
	if err != nil {
		return // it was without error when the addresses were bound
	}
	for _, s := range sockets {
		if s.FD > 2 && inherited(s.FD) && unix.Close(s.FD) == nil {
			log.info("no address is for %v, which systemd has passed: closed here, systemd has its own", s)
		}
	}
}

// isSockets tells whether a variable tells of sockets that systemd has passed,
// sd_listen_fds(3). They are for one process, and no program inherits them.
func isSockets(name string) bool {
	switch name {
	case "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID":
		return true
	}
	return false
}

// isManager tells whether a variable is for the process alone that a service
// manager has started: sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3) and
// systemd.exec(5).
func isManager(name string) bool {
	switch name {
	case "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "MAINPID", "MAINPIDFDID", "SYSTEMD_EXEC_PID", "FDSTORE":
		return true
	}
	return isSockets(name)
}

// withoutManager returns the environment for programs of which the service manager
// does not know.
func withoutManager(environ []string) []string { return without(environ, isManager) }

// withoutSockets returns the environment for a program that takes the place of
// this process, but does not get the sockets.
func withoutSockets(environ []string) []string { return without(environ, isSockets) }

func without(environ []string, excluded func(name string) bool) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return excluded(name)
	})
}
