//go:build linux

package queue

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"fdkit/internal/hint"
	"fdkit/internal/scm"
	"fdkit/internal/unixpath"
)

// named is this process's part in a named queue. Every participant has the
// whole: both ends, the listening socket at which newcomers attach, and proof of
// its own presence. So any of them can let the next one in, and nobody's death
// matters to the others.
type named struct {
	path    string
	send    int
	receive int
	door    int // the listening socket

	// presence is a memfd of the queue with a read lock on its first byte. The
	// lock belongs to the open file description, of which every participant has
	// one of its own; the kernel releases it when the participant is gone. So
	// F_OFD_GETLK tells whether anybody else is there, fcntl(2).
	presence int

	policy policy
	id     unixpath.Identity // of the socket file
	let    *door

	registering sync.Mutex // held with the lock of the register
	keeper      *keeper    // of the register
}

// policy says who may attach, as the mode and owner of a file would.
type policy struct {
	mode     fs.FileMode
	uid, gid int
}

const namedFDNames = "send:receive:door:presence"

func openNamed(path string, o opening, sending bool) (*Queue, error) {
	if err := unixpath.Check(path); err != nil {
		return nil, specError{err}
	}
	patience := o.patience()
	for {
		n, err := joinNamed(path, o, patience)
		if err == nil {
			return n.queue(sending, o)
		}
		again := errors.Is(err, errNoAnswer) || errors.Is(err, errMoved)
		if o.Wait > 0 {
			again = again || errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED)
		}
		if !again || !patience.again(err) {
			return nil, err
		}
	}
}

// errMoved says that what was found at the path has changed meanwhile.
var errMoved = errors.New("the queue is being made or removed by another process")

// joinNamed tries once to attach to the queue at path, or to make it if it is
// not there and need not be waited for.
func joinNamed(path string, o opening, patience *patience) (*named, error) {
	conn, err := connectSeqpacket(path)
	if err == nil {
		defer closeAll(conn)
		return attachNamed(conn, path, o, patience)
	}
	if errors.Is(err, unix.ECONNREFUSED) && !unixpath.Abstract(path) {
		probe, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, os.NewSyscallError("socket", err)
		}
		err = unixpath.Probe(path, probe)
		closeAll(probe)
		if err != nil && !errors.Is(err, unixpath.ErrStale) && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if err == nil {
			return nil, errMoved
		}
	}
	switch {
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		if o.Wait > 0 {
			return nil, fmt.Errorf("nobody has made the queue: %w", err)
		}
		return makeNamed(path, o)
	case errors.Is(err, unix.EPROTOTYPE):
		return nil, hint.Wrap(ErrForeign,
			"a foreign program is reached as unix:"+path)
	case errors.Is(err, unix.EAGAIN):
		return nil, errNoAnswer // its backlog is full
	}
	return nil, err
}

// makeNamed makes the queue at path.
func makeNamed(path string, o opening) (_ *named, err error) {
	n := &named{path: path, send: -1, receive: -1, presence: -1}
	defer func() {
		if err != nil {
			closeAll(n.send, n.receive, n.door, n.presence)
		}
	}()
	if n.door, err = unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0); err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if n.send, n.receive, err = newPair(); err != nil {
		return nil, err
	}
	if n.presence, err = unix.MemfdCreate("fdkit-queue", unix.MFD_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	if err := lockPresence(n.presence); err != nil {
		return nil, err
	}
	access := o.Access()
	if err := unixpath.Bind(n.door, path, access, doorBacklog); errors.Is(err, unixpath.ErrLive) {
		return nil, errMoved
	} else if err != nil {
		return nil, err
	}
	n.policy = policyOf(access)
	if unixpath.Abstract(path) {
		return n, nil
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return nil, os.NewSyscallError("lstat", err)
	}
	n.policy.uid, n.policy.gid = int(st.Uid), int(st.Gid)
	n.id, err = unixpath.Identify(path)
	return n, err
}

// attachNamed asks at conn for the queue.
func attachNamed(conn int, path string, o opening, patience *patience) (*named, error) {
	maker, err := unix.GetsockoptUcred(conn, unix.SOL_SOCKET, unix.SO_PEERCRED) // who made the door listen
	if err != nil {
		return nil, os.NewSyscallError("getsockopt", err)
	}
	if uid := int(maker.Uid); uid != 0 && uid != os.Geteuid() && (o.UID == nil || uid != *o.UID) {
		return nil, hint.Wrap(fmt.Errorf("it was made by uid %d", uid),
			fmt.Sprintf("if you trust that user, say so with --owner %d", uid))
	}
	reply, fds, err := knock(conn, "", patience)
	if err != nil {
		return nil, err
	}
	n := &named{path: path}
	names, _ := scm.Var(reply, fdNamesVar)
	if names != namedFDNames || len(fds) != 4 {
		closeAll(fds...)
		return nil, errors.New("who answers there is no fdkit command")
	}
	n.send, n.receive, n.door, n.presence = fds[0], fds[1], fds[2], fds[3]
	for name, value := range scm.Vars(reply) {
		number, _ := strconv.ParseUint(value, 10, 64)
		switch name {
		case "MODE":
			mode, _ := strconv.ParseUint(value, 8, 32)
			n.policy.mode = fs.FileMode(mode)
		case "UID":
			n.policy.uid = int(number)
		case "GID":
			n.policy.gid = int(number)
		case "DEV":
			n.id.Dev = number
		case "INO":
			n.id.Ino = number
		}
	}
	return n, nil
}

// queue opens the door and returns the queue for use.
func (n *named) queue(sending bool, o opening) (*Queue, error) {
	n.let = &door{answer: n.answer}
	n.let.open(n.door)
	q := &Queue{FD: n.receive, in: n.receive, named: n}
	if sending {
		q.FD, q.lasting, q.others = n.send, n.company, n.company
	}
	q.leave = func() (int, error) { return n.leave(sending) }
	if err := n.keep(o.Keeping); err != nil {
		_, _ = q.leave()
		closeAll(q.FD)
		return nil, err
	}
	return q, nil
}

// answer hands the queue to the newcomer at conn. No reply lets it try again.
func (n *named) answer(conn int, request []byte) (reply []byte, fds []int, after func()) {
	refuse := func(reason string) ([]byte, []int, func()) {
		return scm.AppendVar([]byte(scm.Begin), refusedVar, reason), nil, nil
	}
	if _, ok := scm.Var(request, attachVar); !ok {
		return refuse("no " + attachVar + " in the request")
	}
	who, err := unix.GetsockoptUcred(conn, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return refuse("who asks is not known")
	}
	if !n.policy.admits(conn, who) {
		return refuse(fmt.Sprintf("uid %d may not attach (the queue has mode %04o, uid %d, gid %d)",
			who.Uid, n.policy.mode, n.policy.uid, n.policy.gid))
	}
	// The newcomer is present from now on, not from when it gets to it: no
	// instant in which this process could take itself for the last.
	presence, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", n.presence), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, nil // out of descriptors: another participant, or a later try
	}
	if err := lockPresence(presence); err != nil {
		closeAll(presence)
		return refuse(err.Error())
	}
	reply = []byte(scm.Begin)
	for _, v := range [][2]string{
		{attachedVar, ""},
		{fdNamesVar, namedFDNames},
		{"MODE", strconv.FormatUint(uint64(n.policy.mode), 8)},
		{"UID", strconv.Itoa(n.policy.uid)},
		{"GID", strconv.Itoa(n.policy.gid)},
		{"DEV", strconv.FormatUint(n.id.Dev, 10)},
		{"INO", strconv.FormatUint(n.id.Ino, 10)},
	} {
		reply = scm.AppendVar(reply, v[0], v[1])
	}
	return reply, []int{n.send, n.receive, n.door, presence}, func() { closeAll(presence) }
}

// policyOf is the policy of a file that this process makes with that access.
func policyOf(a unixpath.Access) policy {
	p := policy{mode: a.Mode, uid: os.Geteuid(), gid: os.Getegid()}
	if a.UID >= 0 {
		p.uid = a.UID
	}
	if a.GID >= 0 {
		p.gid = a.GID
	}
	return p
}

// admits tells whether the user at conn may write to a file of this mode and owner.
func (p policy) admits(conn int, who *unix.Ucred) bool {
	const owner, group, other = 0o200, 0o020, 0o002
	switch {
	case who.Uid == 0:
		return true
	case int(who.Uid) == p.uid:
		return p.mode&owner != 0
	case int(who.Gid) == p.gid || inGroup(conn, p.gid):
		return p.mode&group != 0
	}
	return p.mode&other != 0
}

// leave gives up this process's part, but for the end that the Queue closes
// itself. The last one removes the path.
func (n *named) leave(sending bool) (lost int, err error) {
	n.keeper.end()
	n.let.shut()
	unlock := func() {}
	if !unixpath.Abstract(n.path) {
		// Without the lock a newcomer might take the path meanwhile.
		if u, err := unixpath.LockSoon(n.path); err == nil {
			unlock = u
		}
	}
	defer unlock()
	// First no longer present, then the look: of two that leave at once one at
	// least sees that it is the last.
	lock := unix.Flock_t{Type: unix.F_UNLCK, Len: 1}
	_ = unix.FcntlFlock(uintptr(n.presence), unix.F_OFD_SETLK, &lock)
	if !n.company() {
		lost = discard(n.receive)
		if !unixpath.Abstract(n.path) {
			unixpath.Remove(n.path, n.id)
		}
	}
	closeAll(n.door, n.presence)
	if sending {
		closeAll(n.receive)
	} else {
		closeAll(n.send)
	}
	return lost, nil
}

// company tells whether another process takes part in the queue.
func (n *named) company() bool {
	lock := unix.Flock_t{Type: unix.F_WRLCK, Len: 1}
	err := unix.FcntlFlock(uintptr(n.presence), unix.F_OFD_GETLK, &lock)
	return err != nil || lock.Type != unix.F_UNLCK
}

func lockPresence(fd int) error {
	lock := unix.Flock_t{Type: unix.F_RDLCK, Len: 1}
	if err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &lock); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	return nil
}

// inGroup tells whether the process at conn has the supplementary group gid.
func inGroup(conn, gid int) bool {
	groups := make([]uint32, 65536) // NGROUPS_MAX
	size := uint32(4 * len(groups))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(conn), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
		uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
	return errno == 0 && slices.Contains(groups[:size/4], uint32(gid))
}
