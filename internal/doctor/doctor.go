//go:build linux

// Package doctor finds out what decides on this machine whether descriptors pass from
// one program to another. What can be tried is tried, on sockets of its own: a kernel's
// version says neither what was backported to it nor what a filter forbids.
package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"fdkit/internal/nofile"
)

// Severity is how bad a finding is.
type Severity string

// The severities, the least one first.
const (
	OK      Severity = "ok"
	Note    Severity = "note"    // good to know: something that few need is missing
	Warning Severity = "warning" // descriptors may be lost or refused under load
	Error   Severity = "error"   // descriptors do not pass, or soon will not
)

// Severities are all there are, in the order in which they are shown.
var Severities = []Severity{OK, Note, Warning, Error}

// Finding is what a check has found.
type Finding struct {
	Check    string   `json:"check"`
	Severity Severity `json:"severity"`
	Value    string   `json:"value"`   // what is so
	Meaning  string   `json:"meaning"` // what that means for descriptors
	Change   string   `json:"change"`  // how to change it; "": there is nothing to change
}

// Machine is what is looked at.
type Machine struct {
	PID        int          // the process whose limits count; 0: this one
	UID        int          // the real user whose descriptors in flight are counted; -1: the process's own
	SendBuffer int          // SO_SNDBUF of the queue that is measured, in bytes
	Limit      nofile.Limit // this process's own, which the Go runtime may have raised
	// Child starts a process that holds a copy of the descriptor fd as its own
	// descriptor 3 until end is called. Nil: what takes one is not tried.
	Child func(fd int) (pid int, end func(), err error)

	// What tests have others of.
	root     string // where proc, sys, run and so on are
	attempt  func(check string, try func() (string, error)) (string, error)
	inFlight func(uid int) (flight, error)
	depth    func(size int) (ready, full int, err error)
	place    func(dir string) error
}

// NewMachine returns this machine, and this process.
func NewMachine() *Machine {
	return &Machine{
		UID: -1, SendBuffer: QueueBuffer, Limit: nofile.Original,
		root:     "/",
		attempt:  func(_ string, try func() (string, error)) (string, error) { return try() },
		inFlight: measureInFlight,
		depth:    measureDepth,
		place:    tryPlace,
	}
}

// check is one of the things that are looked at.
type check struct {
	name string
	look func(m *Machine) Finding // without the name
}

// Names returns the names of all checks, in their order.
func Names() (names []string) {
	for _, c := range checks() {
		names = append(names, c.name)
	}
	return names
}

func checks() (all []check) {
	for _, some := range [][]check{limitChecks, featureChecks(), processChecks, moduleChecks, placeChecks} {
		all = append(all, some...)
	}
	return all
}

// Examine does all checks. Nothing that it opens or makes is left.
func (m *Machine) Examine() (findings []Finding) {
	for i, c := range checks() {
		var f Finding
		if err := spare(); err != nil && i > 0 { // the first tells of it
			f = Finding{Severity: Note, Value: "not looked at: " + err.Error(), Meaning: "it cannot be told what this allows", Change: "see open-files first"}
		} else {
			f = c.look(m)
		}
		f.Check = c.name
		findings = append(findings, f)
	}
	return findings
}

// spare returns an error if this process has no descriptors left to look at anything
// with: what cannot be opened for that would seem not to be there.
func spare() (err error) {
	const enough = 3 // a pair of sockets, and what is sent
	var fds []int
	for len(fds) < enough && err == nil {
		var fd int
		if fd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err == nil {
			fds = append(fds, fd)
		}
	}
	closeAll(fds...)
	return os.NewSyscallError("epoll_create1", err)
}

// path returns where a file is, such as /proc/sys/fs/nr_open.
func (m *Machine) path(name string) string { return filepath.Join(m.root, name) }

// text returns what a file of one line has.
func (m *Machine) text(name string) (string, error) {
	b, err := os.ReadFile(m.path(name))
	return strings.TrimRight(string(b), "\n\x00"), err
}

// number returns the first number in a file.
func (m *Machine) number(name string) (uint64, error) {
	text, err := m.text(name)
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(strings.TrimSpace(text), "\t")
	return strconv.ParseUint(first, 10, 64)
}

// process returns the path of a file of the process that is looked at.
func (m *Machine) process(name string) string {
	who := "self"
	if m.PID != 0 {
		who = strconv.Itoa(m.PID)
	}
	return "/proc/" + who + "/" + name
}

// status returns a field of the process's status, proc_pid_status(5): "" if there is
// none.
func (m *Machine) status(field string) string {
	text, _ := m.text(m.process("status"))
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// whose tells of which process a finding is.
func (m *Machine) whose() string {
	if m.PID == 0 {
		return ""
	}
	return fmt.Sprintf("process %d: ", m.PID)
}

// unseen is the finding of a file that cannot be read.
func unseen(err error) Finding {
	return Finding{
		Severity: Note, Value: "not known: " + err.Error(),
		Meaning: "it cannot be told what this allows", Change: "mount proc and sys, or look from outside of the container",
	}
}
