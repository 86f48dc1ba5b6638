//go:build linux

package fdinfo

import (
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// PipeInfo is of a pipe or FIFO.
type PipeInfo struct {
	End      string `json:"end,omitempty"`      // read, write, or both: a FIFO opened with O_RDWR
	Unread   *int64 `json:"unread,omitempty"`   // bytes, FIONREAD
	Capacity *int64 `json:"capacity,omitempty"` // bytes, F_GETPIPE_SZ
	// Alone tells that no other end is open: that nobody is left to read, or to write.
	Alone bool `json:"alone,omitempty"`
}

// MemfdInfo is of a memfd_create(2) file.
type MemfdInfo struct {
	Name  string   `json:"name"`
	Seals []string `json:"seals,omitempty"` // F_SEAL_..., fcntl(2)
}

// file tells the kind, and what files have.
func (v *view) file(d *Description) {
	const deleted = " (deleted)"
	switch v.stat.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		d.Kind = File
	case unix.S_IFDIR:
		d.Kind = Directory
	case unix.S_IFLNK:
		d.Kind = Symlink
	case unix.S_IFCHR:
		d.Kind = CharDevice
	case unix.S_IFBLK:
		d.Kind = BlockDevice
	case unix.S_IFIFO:
		d.Kind = FIFO
		if strings.HasPrefix(v.link, "pipe:[") || v.link == "" {
			d.Kind = Pipe
		}
	case unix.S_IFSOCK:
		d.Kind = SocketFile
		if d.Access != "path" {
			d.Kind = Socket // open(2) fails on the file of one with ENXIO
		}
	default:
		d.Kind = Other // an anonymous inode has no type
	}
	v.special(d)

	if path, found := strings.CutSuffix(v.link, deleted); found && strings.HasPrefix(path, "/") && !v.atPath() {
		d.Name, d.Deleted = path, true
	}
	switch d.Kind {
	case File, Directory, BlockDevice, Memfd, Secretmem:
		if at, ok := v.info.number("pos"); ok && d.Access != "path" {
			d.Offset = &at
		}
	}
	switch d.Kind {
	case File, Memfd, Secretmem:
		d.Size = new(int64(v.stat.Size))
	case CharDevice, BlockDevice, TTY, PTY, PTYMaster:
		d.Node = device(v.stat.Rdev_major, v.stat.Rdev_minor)
	}
}

// atPath tells whether the file is to be found at the path that it leads to: a name
// may end with " (deleted)" by itself.
func (v *view) atPath() bool {
	var s unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, v.link, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT|unix.AT_STATX_DONT_SYNC, unix.STATX_INO, &s)
	return v.stat.Nlink > 0 && err == nil && s.Ino == v.stat.Ino && s.Dev_major == v.stat.Dev_major && s.Dev_minor == v.stat.Dev_minor
}

// special recognises the files that are more than their type says.
func (v *view) special(d *Description) {
	major, minor := v.stat.Rdev_major, v.stat.Rdev_minor
	switch {
	case d.Kind == CharDevice && major == 136: // UNIX98_PTY_SLAVE_MAJOR, include/uapi/linux/major.h
		d.Kind, d.PTY = PTY, new(int(minor))
	case d.Kind == CharDevice && major == 5 && minor == 2 && d.Access != "path":
		d.Kind = PTYMaster
		if n, ok := v.info.number("tty-index"); ok {
			d.PTY = new(int(n))
		}
	case d.Kind == CharDevice && (major == 4 || major == 5 && minor < 2):
		d.Kind = TTY // a virtual console, a serial line, /dev/tty or /dev/console
	case d.Kind == File && strings.HasPrefix(v.link, "/memfd:") && v.stat.Nlink == 0:
		d.Kind = Memfd
	case d.Kind == File && v.link == "/secretmem (deleted)" && v.stat.Dev_major == 0:
		d.Kind = Secretmem
	case v.stat.Dev_major == 0 && v.stat.Dev_minor == nsfs():
		d.Kind = Namespace
		name, _, found := strings.Cut(v.link, ":[")
		if !found || strings.HasPrefix(name, "/") {
			name = "" // a path that the namespace is mounted at, as ip-netns(8) does
		}
		d.Namespace = &NamespaceInfo{Type: name}
	case strings.HasPrefix(v.link, "anon_inode:"), strings.HasPrefix(v.link, "pidfd:"):
		d.Kind = Other
	}
}

// nsfs returns the minor number of the file system of all namespaces, or one that no
// file system has.
var nsfs = sync.OnceValue(func() uint32 {
	var s unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, "/proc/self/ns/net", 0, unix.STATX_INO, &s); err != nil {
		return ^uint32(0)
	}
	return s.Dev_minor
})

// pipe tells what a pipe has. None of the calls waits or takes anything out of it.
func (v *view) pipe(d *Description) {
	if d.Access == "path" {
		return
	}
	p := &PipeInfo{End: map[string]string{"r": "read", "w": "write", "rw": "both"}[d.Access]}
	d.Pipe = p
	if v.own < 0 {
		return
	}
	p.Unread = ioctl(v.own, unix.TIOCINQ) // FIONREAD
	if n, err := unix.FcntlInt(uintptr(v.own), unix.F_GETPIPE_SZ, 0); err == nil {
		p.Capacity = new(int64(n))
	}
	// Of a read end POLLHUP, of a write end POLLERR, poll(2).
	p.Alone = poll(v.own)&(unix.POLLHUP|unix.POLLERR) != 0
}

// ioctl returns the number that an ioctl(2) writes, or nil.
func ioctl(fd int, request uint) *int64 {
	n, err := unix.IoctlGetUint32(fd, request)
	if err != nil {
		return nil
	}
	return new(int64(int32(n)))
}

// poll returns what is the matter with a pipe or socket.
func poll(fd int) int16 {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	if n, err := unix.Poll(fds, 0); err != nil || n == 0 {
		return 0
	}
	return fds[0].Revents
}

// memfdSeals are in the order in which fcntl(2) has them.
var memfdSeals = []bitName{
	{unix.F_SEAL_SEAL, "seal"},
	{unix.F_SEAL_SHRINK, "shrink"},
	{unix.F_SEAL_GROW, "grow"},
	{unix.F_SEAL_WRITE, "write"},
	{unix.F_SEAL_FUTURE_WRITE, "future-write"},
	{unix.F_SEAL_EXEC, "exec"},
}

func (v *view) memfd(d *Description) {
	d.Memfd = &MemfdInfo{Name: strings.TrimPrefix(d.Name, "/memfd:")}
	if v.own < 0 {
		return
	}
	if seals, err := unix.FcntlInt(uintptr(v.own), unix.F_GET_SEALS, 0); err == nil {
		d.Memfd.Seals = bits(uint64(seals), memfdSeals)
	}
}
