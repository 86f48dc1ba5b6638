//go:build linux

package fdinfo

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// Process is another process, whose descriptors are described. It is that very
// process, though its number may be given to another one meanwhile.
type Process struct {
	pid   int
	dir   int // its directory of /proc
	pidfd int // or -1
	// why no copies can be taken, if pidfd is -1
	noPidfd error
}

// ErrEnded is the error of a process that ends while it is looked at.
var ErrEnded = errors.New("the process has ended")

// ErrNoProcess is the error of a number that no process has, or none that can be seen.
var ErrNoProcess = errors.New("there is no such process")

// errChanged is the error of a descriptor that becomes another one meanwhile.
var errChanged = errors.New("it is closed and opened again all the time")

// Open opens the process with that number for a look at its descriptors. The caller
// must Close it.
func Open(pid int) (*Process, error) {
	dir, err := unix.Open("/proc/"+strconv.Itoa(pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil, ErrNoProcess
	}
	if err != nil {
		return nil, os.NewSyscallError("open", err)
	}
	p := &Process{pid: pid, dir: dir}
	p.pidfd, err = unix.PidfdOpen(pid, 0)
	if err != nil {
		p.pidfd, p.noPidfd = -1, os.NewSyscallError("pidfd_open", err)
	}
	// If the directory is still of a process, that one had the number when pidfd_open
	// was called.
	if p.ended() {
		p.Close()
		return nil, ErrNoProcess
	}
	return p, nil
}

// Close closes what Open has opened.
func (p *Process) Close() {
	_ = unix.Close(p.dir)
	if p.pidfd >= 0 {
		_ = unix.Close(p.pidfd)
	}
}

// ended tells whether the process is gone, or a zombie: that has no descriptors.
func (p *Process) ended() bool {
	if p.pidfd >= 0 {
		if running, known := alive(p.pidfd); known && !running {
			return true
		}
	}
	var s unix.Stat_t
	err := unix.Fstatat(p.dir, "fd", &s, 0)
	return err == unix.ESRCH || err == unix.ENOENT
}

// List returns the numbers of all descriptors of the process, in order. It takes the
// right to read its memory: PTRACE_MODE_READ_FSCREDS, ptrace(2).
func (p *Process) List() ([]int, error) {
	fds, err := list(p.dir, "fd")
	if p.ended() {
		return nil, ErrEnded
	}
	return fds, err
}

// Describe tells what descriptor fd of the process is, as the function Describe does
// of an own one. Of a socket, a pipe or a memfd a copy is taken with pidfd_getfd(2) and
// closed at once, as /proc says little of them. If that is not allowed, the
// description's Partial says so. Of other files none is taken: closing a copy of those
// is a thing that their file system or driver is told of, and may wait for.
//
// The error is ErrNotOpen if there is no such descriptor, ErrEnded if the process ends
// meanwhile, and fs.ErrPermission if it may not be looked at at all.
func (p *Process) Describe(fd int) (Description, error) {
	const turns = 10
	for range turns {
		d, err := p.describe(fd)
		switch {
		case err == nil:
			return d, nil
		case p.ended():
			return d, ErrEnded
		case errors.Is(err, fs.ErrNotExist):
			return d, ErrNotOpen
		case err != errChanged:
			return d, err
		}
	}
	return Description{PID: p.pid, FD: fd}, errChanged
}

func (p *Process) describe(fd int) (Description, error) {
	v := view{pid: p.pid, dir: p.dir, fd: fd, own: -1}
	if err := p.look(&v); err != nil {
		return Description{PID: p.pid, FD: fd}, err
	}
	if p.needsCopy(&v) {
		own, err := p.Copy(fd)
		switch {
		case err == nil:
			defer unix.Close(own)
			if err := v.lookAtCopy(own); err != nil {
				return Description{PID: p.pid, FD: fd}, err
			}
		case errors.Is(err, unix.EBADF):
			return Description{PID: p.pid, FD: fd}, errChanged
		default:
			v.why = err.Error()
		}
	}
	return v.describe(), nil
}

// look reads what /proc knows of a descriptor. It is errChanged if the number became
// another file's between the calls.
func (p *Process) look(v *view) error {
	number := strconv.Itoa(v.fd)
	link, err := readlinkat(p.dir, "fd/"+number)
	if err != nil {
		return os.NewSyscallError("readlink", err)
	}
	text, err := readAt(p.dir, "fdinfo/"+number)
	if err != nil {
		return err
	}
	v.info = parseInfo(text)
	const flags = unix.AT_NO_AUTOMOUNT | unix.AT_STATX_DONT_SYNC
	if err := unix.Statx(p.dir, "fd/"+number, flags, unix.STATX_BASIC_STATS, &v.stat); err != nil {
		return os.NewSyscallError("statx", err)
	}
	if v.link, err = readlinkat(p.dir, "fd/"+number); err != nil {
		return os.NewSyscallError("readlink", err)
	}
	// fdinfo has the inode since Linux 5.14.
	if ino, err := strconv.ParseUint(v.info.first("ino"), 10, 64); v.link != link || err == nil && ino != v.stat.Ino {
		return errChanged
	}
	return nil
}

// lookAtCopy looks at a copy instead, which cannot change. The locks of a process and
// the descriptor's close-on-exec flag are not the copy's.
func (v *view) lookAtCopy(own int) error {
	there := *v
	v.own = own
	if err := v.look(); err != nil {
		return err
	}
	if v.link != there.link {
		return errChanged
	}
	v.info.flags = v.info.flags&^unix.O_CLOEXEC | there.info.flags&unix.O_CLOEXEC
	v.info.lines = slices.DeleteFunc(v.info.lines, func(l infoLine) bool { return l.name == "lock" })
	for lock := range there.info.all("lock") {
		v.info.lines = append(v.info.lines, infoLine{"lock", lock})
	}
	return nil
}

// needsCopy tells whether /proc does not say all.
func (p *Process) needsCopy(v *view) bool {
	var d Description
	d.flags(v.info.flags)
	if d.Access == "path" {
		return false
	}
	v.file(&d)
	switch d.Kind {
	case Pipe, FIFO, Socket, Memfd:
		return true
	}
	return false
}

// Copy returns a copy of a descriptor, which is close-on-exec and which the caller must
// close. It takes the right to attach to the process: PTRACE_MODE_ATTACH_REALCREDS.
func (p *Process) Copy(fd int) (int, error) {
	if p.pidfd < 0 {
		return -1, p.noPidfd
	}
	own, err := unix.PidfdGetfd(p.pidfd, fd, 0)
	return own, os.NewSyscallError("pidfd_getfd", err)
}
