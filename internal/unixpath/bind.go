//go:build linux

// Package unixpath binds Unix sockets to paths: a stale socket file, whose last
// holder was killed, is replaced, a live one never.
package unixpath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/hint"
)

// MaxLen is the longest path in bytes: sun_path of unix(7) less its final NUL.
const MaxLen = 107

// Errors of Bind and Probe, to be tested with errors.Is.
var (
	ErrLive      = errors.New("address already in use") // somebody serves it
	ErrNotSocket = hint.Wrap(errors.New("it exists and is not a socket"), "choose another path, or remove it")
	ErrStale     = errors.New("nobody serves this socket file")
)

// Access says who may connect to a socket's path.
type Access struct {
	Mode fs.FileMode // permission bits, 0: all that the umask leaves
	UID  int         // owner, -1: as the process has it
	GID  int
}

// Check tells whether path fits into a socket address.
func Check(path string) error {
	switch {
	case path == "" || path == "@":
		return errors.New("the path is empty")
	case strings.Contains(path, "\x00"):
		return errors.New("the path has a NUL byte in it")
	case len(path) > MaxLen:
		return hint.Wrap(fmt.Errorf("the path has %d bytes, a socket address holds %d", len(path), MaxLen),
			"change to its directory and use a relative path")
	}
	return nil
}

// Abstract tells whether the name is an abstract one, unix(7): no file, written
// with @ for its leading NUL.
func Abstract(name string) bool { return strings.HasPrefix(name, "@") }

// Bind binds the socket fd to path and makes it listen, with the lock of the
// directory held meanwhile, so that nobody sees a socket that is bound and does
// not listen yet. A stale socket file is replaced.
func Bind(fd int, path string, access Access, backlog int) error {
	if Abstract(path) {
		if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
			return inUse(err)
		}
		return listen(fd, backlog)
	}
	unlock, err := Lock(path)
	if err != nil {
		return err
	}
	defer unlock()
	switch err := Probe(path, fd); {
	case errors.Is(err, ErrStale):
		if err := unix.Unlink(path); err != nil {
			return fmt.Errorf("cannot remove the stale socket file: %w", err)
		}
	case errors.Is(err, fs.ErrNotExist):
	case err == nil:
		return ErrLive
	default:
		return err
	}
	// The file gets the mode of the socket less the umask, bind(2) in
	// net/unix/af_unix.c: never more than asked for, and chmod adds the rest.
	if access.Mode != 0 {
		if err := unix.Fchmod(fd, uint32(access.Mode.Perm())); err != nil {
			return os.NewSyscallError("fchmod", err)
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return inUse(err)
	}
	err = access.Apply(path)
	if err == nil {
		err = listen(fd, backlog)
	}
	if err != nil {
		_ = unix.Unlink(path)
	}
	return err
}

// Apply gives a socket file of this process's user its owner and mode. Who may write to the directory
// could meanwhile have put something else there, a link to a file of ours, say: so
// it goes through a descriptor of the file itself.
func (a Access) Apply(path string) error {
	if a.UID < 0 && a.GID < 0 && a.Mode == 0 {
		return nil
	}
	file, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("open", err)
	}
	defer unix.Close(file)
	var st unix.Stat_t
	if err := unix.Fstat(file, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK || int(st.Uid) != os.Geteuid() || st.Nlink != 1 {
		return errors.New("somebody has put another file in its place")
	}
	if a.UID >= 0 || a.GID >= 0 {
		if err := unix.Fchownat(file, "", a.UID, a.GID, unix.AT_EMPTY_PATH); err != nil {
			return fmt.Errorf("cannot change its owner: %w", err)
		}
	}
	if a.Mode != 0 {
		// An O_PATH descriptor takes no fchmod(2), but has a name in /proc.
		if err := unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", file), uint32(a.Mode.Perm())); err != nil {
			return os.NewSyscallError("chmod", err)
		}
	}
	return nil
}

func listen(fd, backlog int) error {
	err := unix.Listen(fd, backlog)
	if err == unix.EOPNOTSUPP { // a datagram socket needs no more than its address
		return nil
	}
	return os.NewSyscallError("listen", err)
}

func inUse(err error) error {
	if err == unix.EADDRINUSE {
		return ErrLive
	}
	return err
}

// Probe tells what is at path without disturbing it: nil for a live socket,
// ErrStale, ErrNotSocket, or the error of looking there. fd is a socket of the
// type that is expected there.
func Probe(path string, fd int) error {
	info, err := os.Lstat(path)
	if err != nil {
		return errors.Unwrap(err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return ErrNotSocket
	}
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	// With another type: a live socket refuses it for that reason, EPROTOTYPE in
	// unix_find_bsd() of net/unix/af_unix.c, and never gets to see a connection.
	other := unix.SOCK_DGRAM
	if typ == unix.SOCK_DGRAM {
		other = unix.SOCK_STREAM
	}
	probe, err := unix.Socket(unix.AF_UNIX, other|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(probe)
	switch err := unix.Connect(probe, &unix.SockaddrUnix{Name: path}); err {
	case nil, unix.EAGAIN, unix.EPROTOTYPE: // of a third type: nil, or its backlog is full
		return nil
	case unix.ECONNREFUSED:
		return ErrStale
	default:
		return os.NewSyscallError("connect", err)
	}
}

// Lock takes the lock of path's directory, under which socket files are made
// and removed there. The lock is flock(2) on the directory itself: no lock file
// is left behind, and the kernel releases it whatever happens to its holder.
func Lock(path string) (unlock func(), err error) { return lock(path, 5*time.Second) }

// LockSoon is Lock for one who can also go on without: it gives up much earlier.
func LockSoon(path string) (unlock func(), err error) { return lock(path, 200*time.Millisecond) }

func lock(path string, limit time.Duration) (unlock func(), err error) {
	dir := filepath.Dir(path)
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		err = fmt.Errorf("cannot open directory %s: %w", dir, err)
		if errors.Is(err, unix.ENOENT) {
			err = hint.Wrap(err, "mkdir "+dir+" makes it")
		}
		return nil, err
	}
	for deadline := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		switch err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); {
		case err == nil:
			return func() { _ = unix.Close(fd) }, nil
		case err != unix.EWOULDBLOCK && err != unix.EINTR, time.Now().After(deadline):
			_ = unix.Close(fd)
			return nil, fmt.Errorf("cannot lock directory %s: %w", dir, err)
		}
	}
}

// Identity is the device and inode of a file, which tell it from another one
// that has taken its path.
type Identity struct{ Dev, Ino uint64 }

// Identify returns the identity of the file at path.
func Identify(path string) (Identity, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return Identity{}, os.NewSyscallError("lstat", err)
	}
	return Identity{Dev: uint64(st.Dev), Ino: st.Ino}, nil //nolint:unconvert // Dev has 32 bits on some platforms
}

// Remove removes path if it is still the file id.
func Remove(path string, id Identity) {
	if now, err := Identify(path); err == nil && now == id {
		_ = unix.Unlink(path)
	}
}
