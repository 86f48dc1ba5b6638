//go:build linux

package doctor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdinfo"
	"fdkit/internal/scm"
)

// flight is what is known of a user's descriptors in flight: sent, and not received.
type flight struct {
	n      uint64 // at least, if more
	more   bool   // no limit that can be set here is as high
	exempt bool   // this process may send whatever their number is
}

// inFlightLimit tells how far the user is from ETOOMANYREFS. The rule is in
// too_many_unix_fds() of net/unix/af_unix.c: a message with descriptors is refused if
// more than the sender's RLIMIT_NOFILE are in flight of its real user, unless it has
// CAP_SYS_RESOURCE or CAP_SYS_ADMIN in the first user namespace. unix_add_edges() in
// net/unix/garbage.c counts all kinds of files.
func (m *Machine) inFlightLimit() Finding {
	limit, _, err := m.openLimit()
	if err != nil {
		return unseen(err)
	}
	uid, exempt := m.UID, false
	if uid < 0 && m.PID != 0 {
		fields := strings.Fields(m.status("Uid")) // real, effective, saved, of files
		if len(fields) == 0 {
			return unseen(fmt.Errorf("the status of process %d has no user", m.PID))
		}
		uid, exempt = int(limitOf(fields[0])), m.privileged()
	}
	if uid < 0 {
		uid = unix.Getuid()
	}
	f := Finding{Severity: OK, Meaning: "a sender is refused (ETOOMANYREFS) when more are sent and not received"}
	now, err := m.inFlight(uid)
	if err != nil {
		f.Severity, f.Value = Note, fmt.Sprintf("user %d: not measured, limit %d: %v", uid, limit, err)
		f.Change = "look as root, or as that user"
		return f
	}
	if m.PID == 0 && uid == unix.Getuid() {
		exempt = now.exempt
	}
	number := strconv.FormatUint(now.n, 10)
	if now.more {
		number = "more than " + number
	}
	f.Value = fmt.Sprintf("user %d: %s in flight, limit %d", uid, number, limit)
	switch {
	case exempt:
		f.Value += ", and exempt"
		f.Meaning = "CAP_SYS_RESOURCE or CAP_SYS_ADMIN lets it send whatever is in flight; other users are refused (ETOOMANYREFS)"
		return f
	case now.n > limit || now.more:
		f.Severity, f.Meaning = Error, "nothing with descriptors can be sent: ETOOMANYREFS"
	case limit-now.n < scm.MaxFDs:
		f.Severity, f.Meaning = Warning, fmt.Sprintf("after %d further ones nothing with descriptors can be sent: ETOOMANYREFS", limit-now.n+1)
	case now.n > limit/2:
		f.Severity = Note
	default:
		return f
	}
	f.Change = "receive what is in queues (see queued), or raise the sender's limit: ulimit -n"
	return f
}

// privileged tells whether the process has one of the capabilities that count. They
// count in the first user namespace only, which maps all users.
func (m *Machine) privileged() bool {
	caps, err := strconv.ParseUint(m.status("CapEff"), 16, 64)
	return err == nil && caps&(1<<unix.CAP_SYS_RESOURCE|1<<unix.CAP_SYS_ADMIN) != 0 && m.firstNamespace()
}

// firstNamespace tells whether the process's user namespace maps every user to itself.
func (m *Machine) firstNamespace() bool {
	text, err := m.text(m.process("uid_map"))
	return err == nil && strings.Join(strings.Fields(text), " ") == "0 0 4294967295"
}

// measureInFlight counts the descriptors that are in flight of a user. No file tells,
// but the kernel compares the number with the sender's own limit, so it is found by
// lowering that and sending one descriptor to oneself.
//
// The limit is the process's, so nothing else may open files meanwhile. User and
// capabilities are the thread's, which ends with this.
func measureInFlight(uid int) (flight, error) {
	type result struct {
		flight
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // for ever: the thread is not to be used again
		f, err := countInFlight(uid)
		done <- result{f, err}
	}()
	r := <-done
	return r.flight, r.err
}

func countInFlight(uid int) (f flight, err error) {
	if uid != unix.Getuid() {
		const same = ^uintptr(0)
		// Not package syscall's, which changes all threads.
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), same, same); errno != 0 {
			return f, os.NewSyscallError("setresuid", errno)
		}
	}
	var old unix.Rlimit
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &old); err != nil {
		return f, os.NewSyscallError("prlimit", err)
	}
	l, err := newLoop()
	if err != nil {
		return f, err
	}
	defer l.close()
	defer func() { _ = unix.Prlimit(0, unix.RLIMIT_NOFILE, &old, nil) }()
	if f.exempt, err = l.exempt(old.Max); err != nil {
		return f, err
	}
	if f.exempt {
		if err := dropExemption(); err != nil {
			return f, err
		}
		if still, err := l.exempt(old.Max); err != nil || still {
			return f, fmt.Errorf("the limit cannot be made to count (%w)", err)
		}
	}
	return f, l.search(&f, old.Max)
}

// search finds the lowest limit with which a message is sent: that many are in flight.
func (l *loop) search(f *flight, most uint64) error {
	low, high := uint64(0), most
	if sent, err := l.sends(high, most); err != nil {
		return err
	} else if !sent {
		f.n, f.more = high, true
		return nil
	}
	for low < high {
		middle := low + (high-low)/2
		sent, err := l.sends(middle, most)
		switch {
		case err != nil:
			return err
		case sent:
			high = middle
		default:
			low = middle + 1
		}
	}
	f.n = low
	return nil
}

// loop is a pair of sockets through which a process sends to itself.
type loop struct {
	pair [2]int
	fd   int // what is sent
	send *scm.Sender
}

func newLoop() (*loop, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		closeAll(pair[:]...)
		return nil, os.NewSyscallError("eventfd2", err)
	}
	return &loop{pair, fd, scm.NewSender(pair[0], nil)}, nil
}

func (l *loop) close() { closeAll(l.pair[0], l.pair[1], l.fd) }

// sends tells whether a descriptor can be sent with that limit of open files.
func (l *loop) sends(limit, most uint64) (bool, error) {
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: most}, nil); err != nil {
		return false, os.NewSyscallError("prlimit", err)
	}
	switch _, err := l.send.Try([]byte{0}, []int{l.fd}, nil, 0); {
	case err == nil:
		return true, l.drop()
	case errors.Is(err, unix.ETOOMANYREFS):
		return false, nil
	default:
		return false, os.NewSyscallError("sendmsg", err)
	}
}

// exempt tells whether a limit of 0 lets a descriptor be sent while one is in flight.
func (l *loop) exempt(most uint64) (bool, error) {
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: most}, nil); err != nil {
		return false, os.NewSyscallError("prlimit", err)
	}
	for sent := 0; ; sent++ {
		_, err := l.send.Try([]byte{0}, []int{l.fd}, nil, 0)
		if err == nil && sent == 0 {
			continue
		}
		for ; sent > 0; sent-- {
			if err := l.drop(); err != nil {
				return false, err
			}
		}
		switch {
		case err == nil:
			return true, l.drop()
		case errors.Is(err, unix.ETOOMANYREFS):
			return false, nil
		}
		return false, err
	}
}

// drop receives a message and not its descriptor, for which there is no number: what
// there is no room for is closed, recvmsg(2).
func (l *loop) drop() error {
	_, err := unix.Read(l.pair[1], make([]byte, 1))
	return os.NewSyscallError("read", err)
}

// dropExemption gives up, in this thread, the capabilities that make exempt.
func dropExemption() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	sets[0].Effective &^= 1<<unix.CAP_SYS_RESOURCE | 1<<unix.CAP_SYS_ADMIN
	return os.NewSyscallError("capset", unix.Capset(&header, &sets[0]))
}

// queued tells in whose receive queues descriptors wait, as far as that may be seen:
// scm_fds in fdinfo, unix_show_fdinfo() of net/unix/af_unix.c.
func (m *Machine) queued() Finding {
	files, err := filepath.Glob(m.path("/proc/[0-9]*/fdinfo/*"))
	if err != nil || len(files) == 0 {
		return unseen(fmt.Errorf("no process can be seen in %s", m.path("/proc")))
	}
	var sum, most uint64
	fullest, sockets := "", map[string]bool{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // another user's, or it has ended
		}
		n, inode := scmFDs(string(text))
		if n == 0 || inode != "" && sockets[inode] {
			continue // none, or a copy of one that was seen
		}
		if inode == "" {
			inode = file // before Linux 5.14
		}
		sockets[inode] = true
		if sum += n; n > most {
			most, fullest = n, file
		}
	}
	f := Finding{Severity: OK, Value: "no descriptors wait in sockets", Meaning: "all that was sent is received, as far as can be seen from here"}
	if sum > 0 {
		fields := strings.Split(strings.TrimPrefix(fullest, m.path("/proc")+"/"), "/") // PID, fdinfo, FD
		name, _ := m.text("/proc/" + fields[0] + "/comm")
		at := fmt.Sprintf("%s:%s", fields[0], fields[2])
		f.Value = fmt.Sprintf("%d wait in receive queues of sockets (%d), most of them, %d, in %s (%s)", sum, len(sockets), most, at, fdinfo.Printable(name))
		f.Meaning = "they count as in flight until they are received; a receiver that takes none is stuck or busy"
		f.Change = "fdkit queue " + at + " shows them"
	}
	return f
}

// scmFDs returns what fdinfo has of a Unix socket's queue, and the inode.
func scmFDs(text string) (n uint64, inode string) {
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, ":")
		switch name {
		case "scm_fds":
			n, _ = strconv.ParseUint(strings.TrimSpace(value), 10, 64)
		case "ino":
			inode = strings.TrimSpace(value)
		}
	}
	return n, inode
}
