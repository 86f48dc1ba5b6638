//go:build linux

// Package holders finds the processes that hold an open socket, pipe or file.
package holders

import (
	"os"
	"regexp"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdinfo"
)

// Thing is what processes hold.
type Thing struct {
	// Link is what /proc/PID/fd has of a thing without a path, such as socket:[12]; ""
	// is for one that is known by its inode.
	Link string
	// The inode and its device, as stat(2) has them.
	Dev, Ino uint64
	// Descriptor, if it is not nil, is one that leads to the thing. Its open file
	// description is number 1, and of an anonymous inode, which many things share, it
	// is the only one.
	Descriptor *Descriptor
}

// Descriptor is a descriptor of a process, which may be this one.
type Descriptor struct {
	PID int `json:"pid"`
	FD  int `json:"fd"`
}

// distinct are links by which things are told apart. What anon_inode: is before is of
// one inode, and other links are paths.
var distinct = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z_0-9]+:\[[0-9]+\]$`) })

const anonymous = "anon_inode:"

// OfDescriptor returns what the descriptor leads to. The error is fdinfo.ErrNotOpen if
// there is none.
func OfDescriptor(d Descriptor) (Thing, error) {
	path := d.path()
	link, err := os.Readlink(path)
	if os.IsNotExist(err) {
		return Thing{}, fdinfo.ErrNotOpen
	}
	if err != nil {
		return Thing{}, os.NewSyscallError("readlink", err.(*os.PathError).Err)
	}
	if distinct().MatchString(link) || strings.HasPrefix(link, anonymous) {
		return Thing{Link: link, Descriptor: &d}, nil
	}
	t, err := OfFile(path)
	t.Descriptor = &d
	return t, err
}

// OfFile returns the file at path.
func OfFile(path string) (Thing, error) {
	s, err := stat(path)
	if err != nil {
		return Thing{}, err
	}
	return Thing{Dev: unix.Mkdev(s.Dev_major, s.Dev_minor), Ino: s.Ino}, nil
}

// stat waits for no server: file systems tell what they have in memory.
func stat(path string) (s unix.Statx_t, err error) {
	const flags = unix.AT_NO_AUTOMOUNT | unix.AT_STATX_DONT_SYNC
	err = unix.Statx(unix.AT_FDCWD, path, flags, unix.STATX_BASIC_STATS, &s)
	return s, os.NewSyscallError("statx", err)
}
