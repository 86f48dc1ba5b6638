//go:build linux

package cmd

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"fdkit/internal/hint"
	"fdkit/internal/interrupt"
	"fdkit/internal/pidfd"
)

// source is where a descriptor that is to be sent comes from.
type source struct {
	text  string        // as the user has it
	fd    int           // of this process or, with pid, of another
	pid   int           // 0: this one
	at    *localAddress // instead of fd: of pid's socket
	path  string        // of a file that is to be opened; "": none
	flags int           // for open(2)
}

// opened are the ways to open a file, as the shell's <, >, >> and <> have them.
var opened = map[string]int{
	"r":  unix.O_RDONLY,
	"w":  unix.O_WRONLY | unix.O_CREAT | unix.O_TRUNC,
	"a":  unix.O_WRONLY | unix.O_CREAT | unix.O_APPEND,
	"rw": unix.O_RDWR | unix.O_CREAT,
}

// parseSource parses an operand of fdkit send. Its errors are those of wrong usage.
func parseSource(text string) (source, error) {
	if fd, ok := parseDescriptor(text); ok {
		return source{text: text, fd: fd}, nil
	}
	before, after, found := strings.Cut(text, ":")
	if flags, isFile := opened[before]; found && isFile {
		if after == "" || strings.Contains(after, "\x00") {
			return source{}, usagef("descriptor %s: the path is empty or has a NUL byte in it", text)
		}
		return source{text: text, fd: -1, path: after, flags: flags}, nil
	}
	if pid, err := strconv.ParseUint(before, 10, 31); found && err == nil {
		return parseRemote(text, int(pid), after)
	}
	cure := "a descriptor is a number, stdin, stdout, stderr, PID:FD, or a file: r:PATH, w:PATH, a:PATH, rw:PATH"
	switch _, err := os.Lstat(text); {
	case err == nil, strings.HasPrefix(text, "/"), strings.HasPrefix(text, "."):
		cure = "a file is r:" + text + " to read it, w: to write it anew, a: to append to it, rw: to read and write it"
	case looksLikeAddress(text):
		cure = "fdkit connect connects to an address and sends the connection, fdkit bind a listening socket"
	}
	return source{}, usageHint(cure, "%q is no descriptor", text)
}

// parseRemote parses what is after PID: in text, a descriptor of another process, or the
// address of a socket of it.
func parseRemote(text string, pid int, after string) (source, error) {
	if fd, ok := parseDescriptor(after); ok && pid != 0 {
		return source{text: text, fd: fd, pid: pid}, nil
	}
	if pid == 0 || !isPath(after) && !strings.ContainsAny(after, ":@") {
		return source{}, usageHint("of process 4711, 4711:3 is descriptor 3", "descriptor %s: it is no PID:FD", text)
	}
	at, err := parseLocalAddress(after)
	return source{text: text, pid: pid, at: &at}, err
}

// parseDescriptor parses a descriptor's number, or the name of one of the first three.
func parseDescriptor(text string) (fd int, ok bool) {
	for i, name := range []string{"stdin", "stdout", "stderr"} {
		if text == name {
			return i, true
		}
	}
	n, err := strconv.ParseUint(text, 10, 20) // the kernel's own limit is 2^20, nr_open in proc(5)
	return int(n), err == nil
}

// check checks what can be checked before anything is opened. The queue, if it is
// one of this process's descriptors, has the number queue.
func (s source) check(queue int) error {
	switch {
	case s.path != "" || s.pid != 0:
		return nil
	case s.fd == queue:
		return usageHint("fdkit send --to QUEUE names another one", "descriptor %s is the queue itself", s.text)
	case !inherited(s.fd):
		return usageHint(fmt.Sprintf("the shell opens it: fdkit send ... %d<FILE", s.fd), "descriptor %s is not open", s.text)
	}
	return nil
}

// acquire returns the descriptor, which the caller is to close if it is not this
// process's own already. Opening a FIFO waits for its other end; that ends with
// interrupt.ErrStopped when calls are stopped.
func (s source) acquire(calls *interrupt.Calls) (fd int, own bool, err error) {
	switch {
	case s.path != "":
		if fd, err = s.open(calls); err != nil {
			return -1, false, fmt.Errorf("cannot open %s: %w", s.text, err)
		}
		return fd, false, nil
	case s.pid != 0:
		fd = s.fd
		if s.at != nil {
			fd, err = s.at.find(s.pid)
		}
		if err == nil {
			fd, err = pidfd.Get(s.pid, fd)
		}
		if err != nil {
			return -1, false, fmt.Errorf("cannot take %s: %w", s.text, explainFiles(err))
		}
		return fd, false, nil
	}
	return s.fd, true, nil
}

func (s source) open(calls *interrupt.Calls) (int, error) {
	if err := calls.Enter(); err != nil {
		return -1, err
	}
	defer calls.Exit()
	for {
		// O_NOCTTY: no terminal becomes this process's own for being passed on.
		fd, err := unix.Open(s.path, s.flags|unix.O_NOCTTY|unix.O_CLOEXEC, 0o666)
		switch {
		case err == nil:
			return fd, nil
		case err == unix.EINTR && calls.Stopped():
			return -1, interrupt.ErrStopped
		case err == unix.EINTR:
		case err == unix.ENXIO && isSocket(s.path):
			return -1, hint.Wrap(errors.New("it is a socket"), "fdkit connect unix:"+s.path+" connects to it and sends the connection")
		default:
			return -1, explainFiles(err)
		}
	}
}

// explainFiles gives the cure of what befalls files.
func explainFiles(err error) error {
	if errors.Is(err, unix.EMFILE) {
		return hint.Wrap(err, "ulimit -n shows and raises the limit (RLIMIT_NOFILE)")
	}
	return err
}
