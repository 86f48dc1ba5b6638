//go:build linux

package doctor

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdinfo"
)

// feature is something of the kernel that is tried.
type feature struct {
	name string
	try  func(m *Machine) (value string, err error)
	// What it is for, and what is so without it.
	meaning, without string
	missing          Severity
	change           string
}

func (f feature) look(m *Machine) Finding {
	value, err := m.attempt(f.name, func() (string, error) { return f.try(m) })
	if err == nil {
		return Finding{Severity: OK, Value: value, Meaning: f.meaning}
	}
	if errors.Is(err, unix.ETOOMANYREFS) || errors.Is(err, unix.EMFILE) {
		return Finding{
			Severity: f.missing, Value: "not tried: " + fdinfo.Printable(err.Error()),
			Meaning: "what it is for cannot be told: " + f.meaning, Change: "see in-flight and open-files first",
		}
	}
	return Finding{Severity: f.missing, Value: fdinfo.Printable(err.Error()), Meaning: f.without, Change: f.change}
}

// newer says from when on the kernel has something.
func newer(version string) string {
	return "Linux " + version + " or newer; a filter of system calls (see seccomp) may forbid it too"
}

const filtered = "let the filter of system calls (see seccomp) or the security module (see lsm) allow it"

var features = []feature{
	{
		"rights", (*Machine).tryRights,
		"descriptors pass over stream, packet and datagram sockets, 253 in a message and no more (SCM_MAX_FD)",
		"descriptors do not pass as they should", Error,
		"raise the limit of open files (see open-files), or " + filtered,
	},
	{
		"blocked-rights", (*Machine).tryPassRights,
		"a receiver can refuse descriptors (SO_PASSRIGHTS), and its sender gets EPERM",
		"a program that wants no descriptors cannot refuse them: whoever sends to it can fill its queue", Note,
		newer("6.16"),
	},
	{
		"credentials", (*Machine).tryCredentials,
		"a receiver is told who has sent each message (SO_PASSCRED)",
		"fdkit recv cannot tell who sends", Warning, filtered,
	},
	{
		"message-pidfd", (*Machine).tryPassPidfd,
		"a receiver can have a pidfd of who has sent each message (SO_PASSPIDFD, SCM_PIDFD)",
		"programs that receive know a sender by its number only, which another process may have by then", Note, newer("6.5"),
	},
	{
		"peer-pidfd", (*Machine).tryPeerPidfd,
		"who is at the other end of a socket is known for certain (SO_PEERPIDFD)",
		"the other end's process is known by its number only, which another process may have by then", Note, newer("6.5"),
	},
	{
		"pidfd", (*Machine).tryPidfdOpen,
		"processes can be held on to (pidfd_open)",
		"no descriptor can be taken from another process", Warning, newer("5.3"),
	},
	{
		"pidfd-getfd", (*Machine).tryPidfdGetfd,
		"fdkit send PID:FD and fdkit inspect PID can copy descriptors of an own process",
		"fdkit send PID:FD fails, and fdkit inspect PID tells only what /proc has", Warning,
		newer("5.6") + "; see ptrace-scope",
	},
	{
		"kcmp", (*Machine).tryKcmp,
		"it can be told whether two descriptors are one open file",
		"copies of an open file are told by inode only", Note,
		"a kernel with CONFIG_KCMP; " + filtered,
	},
	{
		"peek-offset", (*Machine).tryPeekOffset,
		"a stream's queue can be looked at without taking from it (SO_PEEK_OFF)",
		"of a stream's queue only the first bytes can be looked at", Note, newer("3.4"),
	},
	{
		"fdinfo-rights", (*Machine).tryScmFDs,
		"/proc tells how many descriptors wait in a socket (scm_fds of fdinfo)",
		"how many connections wait in a queue is not known: metrics and status leave it out", Note, newer("5.6") + "; see proc",
	},
	{
		"queue-size", (*Machine).tryQueueSize,
		"a socket tells what is unread at both of its ends (SIOCOUTQ, SIOCINQ)",
		"a sender cannot wait until all is received", Warning, filtered,
	},
	{
		"close-range", (*Machine).tryCloseRange,
		"programs are started without descriptors that are not theirs (close_range)",
		"fdkit looks through /proc/self/fd instead, which must be there", Note,
		newer("5.11"),
	},
	{
		"memfd", (*Machine).tryMemfd,
		"memory can be passed, and sealed so that its receiver can trust it (memfd_create)",
		"programs that pass memory, as Wayland's do, cannot seal it", Note, newer("3.17"),
	},
	{
		"abstract-names", (*Machine).tryAbstract,
		"queues can have abstract names, and a shell pipe joins different users",
		"queues with @ fail, and so does a shell pipe's sender", Error,
		"a Landlock domain, " + filtered,
	},
}

// featureChecks are those of features.
func featureChecks() (all []check) {
	for _, f := range features {
		all = append(all, check{f.name, f.look})
	}
	return all
}

func (m *Machine) tryRights() (string, error) {
	for _, t := range socketTypes {
		if err := tryRightsOf(t.typ); err != nil {
			return "", fmt.Errorf("%s: %w", t.name, err)
		}
	}
	return "stream, seqpacket, dgram: 253 pass, 254 are refused", nil
}
