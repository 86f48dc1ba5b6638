//go:build linux

package doctor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdinfo"
)

var placeChecks = []check{
	{"temporary-files", (*Machine).temporary},
	{"runtime-directory", (*Machine).runtimeDirectory},
	{"standard-descriptors", (*Machine).standard},
}

// temporary tries the places at which a sender makes the private socket of a shell
// pipe: listenPrivate() in internal/queue.
func (m *Machine) temporary() Finding {
	var troubles []string
	for _, dir := range []string{os.TempDir(), "/tmp", "/run", "/dev/shm"} {
		err := m.place(dir)
		if err == nil {
			f := Finding{Severity: OK, Value: fdinfo.Printable(dir), Meaning: "a shell pipe's private socket can be made and reached there"}
			if troubles != nil {
				f.Severity = Note
				f.Value = fdinfo.Printable(strings.Join(troubles, "; ")) + "; " + f.Value + " does"
				f.Change = "TMPDIR=DIR names a directory that can be written to, on a file system that has sockets, with a short path"
			}
			return f
		}
		troubles = append(troubles, dir+": "+err.Error())
	}
	return Finding{
		Severity: Warning, Value: fdinfo.Printable(strings.Join(troubles, "; ")),
		Meaning: "a shell pipe joins only commands that share the network namespace: there is no place for its private socket",
		Change:  "TMPDIR=DIR names a directory that can be written to, on a file system that has sockets",
	}
}

// tryPlace binds a socket in the directory and connects to it through /proc.
func tryPlace(dir string) error {
	made, err := os.MkdirTemp(dir, "fdkit-") // 0700
	if err != nil {
		return errors.Unwrap(err)
	}
	path := filepath.Join(made, "q")
	defer func() {
		_ = unix.Unlink(path)
		_ = unix.Rmdir(made)
	}()
	door, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(door)
	if err := unix.Bind(door, &unix.SockaddrUnix{Name: path}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	file, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("open", err)
	}
	defer unix.Close(file)
	if err := unix.Listen(door, 1); err != nil {
		return os.NewSyscallError("listen", err)
	}
	client, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(client)
	return os.NewSyscallError("connect", unix.Connect(client, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d", file)}))
}

// runtimeDirectory looks for the place for named queues.
func (m *Machine) runtimeDirectory() Finding {
	const what = "named queues of this user belong there"
	dir, from := os.Getenv("XDG_RUNTIME_DIR"), "XDG_RUNTIME_DIR"
	if dir == "" {
		dir, from = m.path("/run"), "/run"
	}
	f := Finding{Severity: OK, Value: from + " " + fdinfo.Printable(dir), Meaning: what}
	if from == "/run" {
		f.Value = "/run, and XDG_RUNTIME_DIR is not set"
	}
	var s unix.Stat_t
	err := unix.Stat(dir, &s)
	if err == nil {
		err = unix.Access(dir, unix.W_OK)
	}
	switch {
	case err != nil:
		f.Severity, f.Value = Note, f.Value+": "+err.Error()
		f.Meaning = "there is no place for named queues that is safe of itself"
		f.Change = "a directory of mode 0700: RuntimeDirectory= in systemd.exec(5), or mkdir -m 700"
	case from == "XDG_RUNTIME_DIR" && (int(s.Uid) != os.Geteuid() || s.Mode&0o077 != 0):
		f.Severity, f.Value = Warning, f.Value+fmt.Sprintf(", of user %d, mode %04o", s.Uid, s.Mode&0o7777)
		f.Meaning = "others can reach what is made there, or put their own in its place"
		f.Change = "chmod 700, or unset XDG_RUNTIME_DIR after su"
	}
	return f
}

// standard tells what descriptors 0, 1 and 2 are. One that was closed the Go runtime
// has opened as /dev/null.
func (m *Machine) standard() Finding {
	var all []string
	for fd := range 3 {
		kind := "not known"
		if d, err := fdinfo.Describe(fd); err == nil {
			kind = string(d.Kind)
			if d.Name == os.DevNull {
				kind = os.DevNull
			}
		}
		all = append(all, fmt.Sprintf("%d %s", fd, fdinfo.Printable(kind)))
	}
	return Finding{
		Severity: OK, Value: strings.Join(all, ", "),
		Meaning: "commands that receive take a pipe or a Unix socket at 0 for their queue, those that send at 1; what is /dev/null may have been closed",
	}
}
