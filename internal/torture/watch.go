//go:build linux

package torture

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// watch tells which of the open file descriptions that were passed are still open,
// wherever: in another process, or in a queue between processes. It looks into no other
// process, and holds nothing open itself.
//
// It has two means for that. An epoll instance forgets what it watches when the last
// descriptor of it is closed, epoll(7), and its fdinfo in proc(5) says what it still
// knows. Files that cannot be polled get a lock that belongs to the open file
// description, F_OFD_SETLK in fcntl(2), which goes with it.
type watch struct {
	epoll int
	next  int64
	locks map[int64]int // to a descriptor of the same file, by which the lock is seen
}

var errUnwatched = errors.New("it cannot be watched")

func newWatch() (*watch, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	return &watch{epoll: epoll, locks: map[int64]int{}}, nil
}

// add begins to watch what fd leads to, and returns the mark under which open lists it.
// The caller closes fd.
func (w *watch) add(fd int) (mark int64, err error) {
	w.next++
	event := unix.EpollEvent{Fd: int32(w.next)}
	if err := unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, fd, &event); err == nil {
		return w.next, nil
	} else if err == unix.EBADF { // as of O_PATH, which takes no lock either
		return 0, errUnwatched
	} else if err != unix.EPERM { // the file does not support epoll
		return 0, os.NewSyscallError("epoll_ctl", err)
	}
	lock := w.lock(w.next)
	if err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &lock); err != nil {
		return 0, os.NewSyscallError("fcntl", err)
	}
	other, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, os.NewSyscallError("open", err)
	}
	w.locks[w.next] = other
	return w.next, nil
}

// lock is a lock at a place of the file that is nobody else's, should others do the same
// to /dev/full.
func (w *watch) lock(mark int64) unix.Flock_t {
	return unix.Flock_t{Type: unix.F_RDLCK, Start: int64(os.Getpid())<<32 | mark, Len: 1}
}

// open returns the marks of what is still open, in order.
func (w *watch) open() (marks []int64, err error) {
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", w.epoll))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(info)) {
		// tfd:        7 events:       18 data:                7  pos:0 ino:1306c0f sdev:9
		_, after, found := strings.Cut(line, "data:")
		if fields := strings.Fields(after); found && len(fields) > 0 {
			data, err := strconv.ParseUint(fields[0], 16, 64)
			if err != nil {
				return nil, fmt.Errorf("cannot understand %q of proc(5)", line)
			}
			marks = append(marks, markOf(data))
		}
	}
	for mark, other := range w.locks {
		lock := w.lock(mark)
		lock.Type = unix.F_WRLCK
		if err := unix.FcntlFlock(uintptr(other), unix.F_OFD_GETLK, &lock); err != nil {
			return nil, os.NewSyscallError("fcntl", err)
		}
		if lock.Type != unix.F_UNLCK {
			marks = append(marks, mark)
		}
	}
	slices.Sort(marks)
	return marks, nil
}

// markOf takes the mark out of the 64 bits of epoll_data, of which x/sys has the half
// that is first in memory as a number, and the other as padding, 0.
func markOf(data uint64) int64 { return int64(uint32(data) | uint32(data>>32)) }

func (w *watch) close() {
	_ = unix.Close(w.epoll)
	for _, other := range w.locks {
		_ = unix.Close(other)
	}
}
