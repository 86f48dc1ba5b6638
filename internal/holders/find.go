//go:build linux

package holders

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdinfo"
)

// Place is how a process holds a thing.
type Place string

// The places.
const (
	AtDescriptor Place = "descriptor"
	InFlight     Place = "in-flight" // in a message that the process has not received
	Executable   Place = "exe"
	Directory    Place = "cwd"
	Root         Place = "root"
	Mapped       Place = "mmap"
)

// places are in the order of Find.
var places = []Place{AtDescriptor, InFlight, Executable, Directory, Root, Mapped}

// Holder is a process that holds a thing, and where.
type Holder struct {
	PID     int
	UID     int    // effective
	Command string // /proc/PID/comm
	Place   Place
	// FD is the descriptor or, in flight, that of the socket that has the message in
	// its receive queue.
	FD          int
	Access      string // r, w, rw, path; of memory r, rw, rx, rwx
	CloseOnExec bool
	// Description is a number for each open file description, from 1 on; 0: not known,
	// or there is none.
	Description int
}

// Found is what Find has found.
type Found struct {
	Holders [][]Holder // of each thing
	// Processes is how many processes may not be looked at, and Queues how many sockets
	// have descriptors in flight that may not be.
	Processes, Queues int
	// Short tells that some of those sockets, or the descriptors in them, could not be
	// copied: this process has too many files open, or a security module forbids it.
	Short bool
}

// ErrIndistinct is the error of a thing that has an anonymous inode, if the kernel
// does not compare open file descriptions: kcmp(2) is not there, or not allowed.
var ErrIndistinct = errors.New("things of this kind cannot be told apart")

// Find looks at all processes, once, for whatever holds one of the things: descriptors,
// messages in flight, memory maps and directories. This process is no holder. What
// changes meanwhile may be missed. It ends early when stop is closed.
func Find(things []Thing, stop <-chan struct{}) (Found, error) {
	s := search{byLink: map[string][]int{}, byInode: map[[2]uint64][]int{}, queues: map[string][]Descriptor{}, mapped: map[string][]int{}}
	defer s.close()
	for i, t := range things {
		s.wanted = append(s.wanted, wanted{Thing: t})
		w := &s.wanted[i]
		if t.Descriptor != nil {
			w.groups.compare(*t.Descriptor)
		}
		switch {
		case t.Link == "":
			s.byInode[[2]uint64{t.Dev, t.Ino}] = append(s.byInode[[2]uint64{t.Dev, t.Ino}], i)
		case !w.isAnonymous() || w.groups.ordered != nil:
			s.byLink[t.Link] = append(s.byLink[t.Link], i)
		default:
			return Found{}, ErrIndistinct
		}
	}
	pids, err := fdinfo.Processes()
	if err != nil {
		return Found{}, err
	}
	for _, pid := range pids {
		if isClosed(stop) {
			break
		}
		if pid == os.Getpid() {
			continue
		}
		switch err := s.process(pid); {
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
			return Found{}, err
		case errors.Is(err, fs.ErrPermission) && !isEmpty(pid):
			s.found.Processes++
		}
	}
	s.inFlight(stop)
	for i := range s.wanted {
		s.found.Holders = append(s.found.Holders, s.wanted[i].result())
	}
	return s.found, nil
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// wanted is a thing, and what has been found of it.
type wanted struct {
	Thing
	groups  groups
	holders []Holder
}

func (w *wanted) isAnonymous() bool { return strings.HasPrefix(w.Link, anonymous) }

// add adds a holder that has a copy of the thing at d.
func (w *wanted) add(h Holder, d Descriptor) {
	h.Description = w.groups.compare(d)
	if !w.isAnonymous() || h.Description == 1 {
		w.holders = append(w.holders, h)
	}
}

// result returns the holders in order, without those that have ended meanwhile.
// Descriptions are numbered in that order, after that of the thing's own descriptor.
func (w *wanted) result() []Holder {
	w.holders = slices.DeleteFunc(w.holders, func(h Holder) bool { return isEmpty(h.PID) })
	slices.SortFunc(w.holders, func(a, b Holder) int {
		return cmp.Or(cmp.Compare(a.PID, b.PID), cmp.Compare(slices.Index(places, a.Place), slices.Index(places, b.Place)), cmp.Compare(a.FD, b.FD))
	})
	numbers := map[int]int{0: 0}
	if w.Descriptor != nil {
		numbers[1] = 1
	}
	for i, h := range w.holders {
		w.holders[i].UID, w.holders[i].Command = identity(h.PID)
		if _, known := numbers[h.Description]; !known {
			numbers[h.Description] = len(numbers)
		}
		w.holders[i].Description = numbers[h.Description]
	}
	return w.holders
}

// search is one run of Find.
type search struct {
	wanted  []wanted
	byLink  map[string][]int
	byInode map[[2]uint64][]int
	mapped  map[string][]int        // which of wanted a line of /proc/PID/maps is, by its file
	queues  map[string][]Descriptor // by link, Unix sockets that have descriptors in flight; nil: it has none
	copies  []int                   // own descriptors, open until all are compared
	found   Found
}

func (s *search) close() {
	for _, fd := range s.copies {
		_ = unix.Close(fd)
	}
}

// process looks at a process. Its error says why not all could be seen.
func (s *search) process(pid int) error {
	dir := "/proc/" + strconv.Itoa(pid)
	fds, failed := numbers(dir + "/fd")
	for _, fd := range fds {
		d := Descriptor{pid, fd}
		link, err := os.Readlink(d.path())
		if err != nil {
			failed = cmp.Or(failed, serious(err))
			continue
		}
		if strings.HasPrefix(link, "socket:") {
			s.queue(link, d)
		}
		for _, i := range s.are(link, d.path()) {
			g, err := fdinfo.GlanceAt(pid, fd)
			if failed = cmp.Or(failed, serious(err)); err == nil {
				s.wanted[i].add(Holder{PID: pid, Place: AtDescriptor, FD: fd, Access: g.Access, CloseOnExec: g.CloseOnExec}, d)
			}
		}
	}
	if len(s.byInode) == 0 {
		return failed
	}
	return cmp.Or(failed, s.elsewhere(pid, dir))
}

// FirstOf returns the lowest descriptor at which the process holds a thing that is known by
// its Link alone, or -1.
func FirstOf(pid int, t Thing) (fd int, err error) {
	fds, err := numbers("/proc/" + strconv.Itoa(pid) + "/fd")
	for _, fd := range fds {
		switch link, failed := os.Readlink(Descriptor{pid, fd}.path()); {
		case failed != nil:
			err = cmp.Or(err, serious(failed))
		case link == t.Link:
			return fd, nil
		}
	}
	return -1, err
}

// serious returns no error of what is gone.
func serious(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// are returns which of the wanted things are behind a link of /proc.
func (s *search) are(link, path string) []int {
	if which, found := s.byLink[link]; found || strings.HasPrefix(link, anonymous) || len(s.byInode) == 0 || distinct().MatchString(link) {
		return which
	}
	f, err := stat(path)
	if err != nil {
		return nil
	}
	return s.byInode[[2]uint64{unix.Mkdev(f.Dev_major, f.Dev_minor), f.Ino}]
}

// numbers returns the numbers that a directory has names of, in order.
func numbers(dir string) (all []int, err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, serious(err)
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return all, serious(err)
}

func (d Descriptor) path() string {
	return "/proc/" + strconv.Itoa(d.PID) + "/fd/" + strconv.Itoa(d.FD)
}
