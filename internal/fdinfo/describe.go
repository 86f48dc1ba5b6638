//go:build linux

package fdinfo

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Kind is what a descriptor leads to, in one word.
type Kind string

// The kinds. What the kernel knows besides, such as a landlock rule set, is Other, and
// its Name says what it is.
const (
	File        Kind = "file"
	Directory   Kind = "directory"
	Symlink     Kind = "symlink"     // with O_PATH|O_NOFOLLOW
	SocketFile  Kind = "socket-file" // a Unix socket's file, with O_PATH
	CharDevice  Kind = "character-device"
	BlockDevice Kind = "block-device"
	TTY         Kind = "tty"
	PTY         Kind = "pty"        // the side that programs see, /dev/pts/N
	PTYMaster   Kind = "pty-master" // the side of the terminal emulator, /dev/ptmx
	Pipe        Kind = "pipe"
	FIFO        Kind = "fifo" // a pipe with a path
	Socket      Kind = "socket"
	Memfd       Kind = "memfd"
	Secretmem   Kind = "secretmem"
	Namespace   Kind = "namespace"
	Epoll       Kind = "epoll"
	Eventfd     Kind = "eventfd"
	Timerfd     Kind = "timerfd"
	Signalfd    Kind = "signalfd"
	Inotify     Kind = "inotify"
	Fanotify    Kind = "fanotify"
	Pidfd       Kind = "pidfd"
	IOUring     Kind = "io_uring"
	Userfaultfd Kind = "userfaultfd"
	PerfEvent   Kind = "perf_event"
	BPF         Kind = "bpf" // a map, a program or a link
	Other       Kind = "other"
)

// Description is what is known of a descriptor. What is unknown is nil, empty or zero,
// and left out in JSON. Its texts are as the kernel gives them: names may have any
// byte but NUL in them. Line, Verbose and JSON make them harmless.
type Description struct {
	PID         int      `json:"pid,omitempty"` // the process that has it; 0 is this one
	FD          int      `json:"fd"`
	Kind        Kind     `json:"kind"`
	Name        string   `json:"name,omitempty"`    // what /proc/PID/fd/FD leads to: a path, pipe:[12]
	Deleted     bool     `json:"deleted,omitempty"` // the path is there no longer
	Access      string   `json:"access,omitempty"`  // r, w, rw, or path for O_PATH
	Flags       []string `json:"flags,omitempty"`   // of the open file description: nonblock, append, ...
	CloseOnExec bool     `json:"close_on_exec"`
	Offset      *int64   `json:"offset,omitempty"` // bytes
	Size        *int64   `json:"size,omitempty"`   // bytes
	Inode       uint64   `json:"inode,omitempty"`
	Device      string   `json:"device,omitempty"` // of the file system: major:minor
	Mount       *int     `json:"mount,omitempty"`  // as in /proc/PID/mountinfo
	Node        string   `json:"node,omitempty"`   // of a device: its own major:minor
	PTY         *int     `json:"pty,omitempty"`    // N of /dev/pts/N, of both sides
	Locks       []string `json:"locks,omitempty"`  // as in /proc/locks, without the number
	Partial     string   `json:"partial,omitempty"`

	Pipe      *PipeInfo      `json:"pipe,omitempty"`
	Socket    *SocketInfo    `json:"socket,omitempty"`
	Memfd     *MemfdInfo     `json:"memfd,omitempty"`
	Epoll     *EpollInfo     `json:"epoll,omitempty"`
	Eventfd   *EventfdInfo   `json:"eventfd,omitempty"`
	Timerfd   *TimerfdInfo   `json:"timerfd,omitempty"`
	Signalfd  *SignalfdInfo  `json:"signalfd,omitempty"`
	Inotify   *NotifyInfo    `json:"inotify,omitempty"`
	Fanotify  *NotifyInfo    `json:"fanotify,omitempty"`
	Pidfd     *PidfdInfo     `json:"pidfd,omitempty"`
	Namespace *NamespaceInfo `json:"namespace,omitempty"`
	BPF       *BPFInfo       `json:"bpf,omitempty"`
}

// Describe tells what descriptor fd of this process is. It changes nothing, and waits
// for nobody: file systems are asked for what they have in memory (AT_STATX_DONT_SYNC,
// statx(2)). Without /proc it knows less. The error is ErrNotOpen if there is no such
// descriptor.
func Describe(fd int) (Description, error) {
	// What an O_PATH descriptor allows, too, open(2).
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
		return Description{FD: fd}, ErrNotOpen
	}
	v := view{fd: fd, own: fd}
	if err := v.look(); err != nil {
		return Description{FD: fd}, err
	}
	return v.describe(), nil
}

// Inherited returns the descriptors that this process has from its parent, in order:
// those that are not close-on-exec, as execve(2) closes all others, and as whatever a
// Go program opens is.
func Inherited() ([]int, error) {
	fds, err := list(unix.AT_FDCWD, "/proc/self/fd")
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(fds, func(fd int) bool {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		return err != nil || flags&unix.FD_CLOEXEC != 0
	}), nil
}

// ErrNotOpen is the error of a number that is no open descriptor's.
var ErrNotOpen = errors.New("it is not open")

// view is from where a descriptor is looked at.
type view struct {
	pid  int    // the process that has it; 0 is this one
	dir  int    // that process's directory of /proc, if it is not this one
	fd   int    // its number there
	own  int    // a descriptor of this process with the same open file description, or -1
	why  string // own is -1 because of this
	link string
	stat unix.Statx_t
	info info
}

func (v *view) describe() (d Description) {
	d = Description{PID: v.pid, FD: v.fd, Name: v.link, Inode: v.stat.Ino, Partial: v.why}
	d.Device = device(v.stat.Dev_major, v.stat.Dev_minor)
	d.flags(v.info.flags)
	if mount, err := strconv.Atoi(v.info.first("mnt_id")); err == nil {
		d.Mount = &mount
	}
	for lock := range v.info.all("lock") {
		_, lock, _ = strings.Cut(lock, ":")
		d.Locks = append(d.Locks, strings.Join(strings.Fields(lock), " "))
	}
	v.file(&d)
	switch d.Kind {
	case Pipe, FIFO:
		v.pipe(&d)
	case Socket:
		v.socket(&d)
	case Memfd:
		v.memfd(&d)
	default:
		v.anonymous(&d)
	}
	return d
}

// look reads what /proc and fstat know of an own descriptor.
func (v *view) look() (err error) {
	number := strconv.Itoa(v.own)
	v.link, _ = readlinkat(unix.AT_FDCWD, "/proc/self/fd/"+number)
	text, _ := readAt(unix.AT_FDCWD, "/proc/self/fdinfo/"+number)
	v.info = parseInfo(text)
	err = unix.Statx(v.own, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_BASIC_STATS, &v.stat)
	if err != nil {
		return os.NewSyscallError("statx", err)
	}
	if v.info.first("flags") != "" {
		return nil
	}
	// There is no /proc.
	flags, err := unix.FcntlInt(uintptr(v.own), unix.F_GETFL, 0)
	if err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	v.info.flags = uint64(flags)
	if flags, err = unix.FcntlInt(uintptr(v.own), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC != 0 {
		v.info.flags |= unix.O_CLOEXEC
	}
	return nil
}

// statusFlags are the names of open(2)'s flags, without O_, that remain with the open
// file description. O_LARGEFILE is always there.
var statusFlags = []struct {
	bits uint64
	name string
}{
	{unix.O_APPEND, "append"},
	{unix.O_NONBLOCK, "nonblock"},
	{unix.O_ASYNC, "async"},
	{unix.O_DIRECT, "direct"},
	{unix.O_SYNC, "sync"}, // has the bit of O_DSYNC in it
	{unix.O_DSYNC, "dsync"},
	{unix.O_NOATIME, "noatime"},
	{unix.O_TMPFILE, "tmpfile"}, // has the bit of O_DIRECTORY in it
	{unix.O_DIRECTORY, "directory"},
	{unix.O_NOFOLLOW, "nofollow"},
}

func (d *Description) flags(flags uint64) {
	d.CloseOnExec = flags&unix.O_CLOEXEC != 0
	d.Access = [...]string{"r", "w", "rw", ""}[flags&unix.O_ACCMODE] // 3 is for ioctl(2) only, open(2)
	if flags&unix.O_PATH != 0 {
		d.Access = "path"
	}
	for _, f := range statusFlags {
		if flags&f.bits == f.bits {
			d.Flags = append(d.Flags, f.name)
			flags &^= f.bits
		}
	}
}

func device(major, minor uint32) string { return fmt.Sprintf("%d:%d", major, minor) }

func readlinkat(dir int, path string) (string, error) {
	for size := 256; ; size *= 4 {
		buf := make([]byte, size)
		n, err := unix.Readlinkat(dir, path, buf)
		if err != nil {
			return "", err
		}
		if n < size {
			return string(buf[:n]), nil
		}
	}
}

// readAt reads a file of /proc to its end.
func readAt(dir int, path string) ([]byte, error) {
	fd, err := unix.Openat(dir, path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("open", err)
	}
	defer unix.Close(fd)
	buf := make([]byte, 0, 4096)
	for {
		n, err := unix.Read(fd, buf[len(buf):cap(buf)])
		switch {
		case err == unix.EINTR:
		case err != nil:
			return nil, os.NewSyscallError("read", err)
		case n == 0:
			return buf, nil
		default:
			buf = slices.Grow(buf[:len(buf)+n], 1024)
		}
	}
}

// list returns the numbers that a directory has names of, in order.
func list(dir int, path string) (numbers []int, err error) {
	fd, err := unix.Openat(dir, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("open", err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}
