//go:build linux

package queue

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/hint"
	"fdkit/internal/scm"
)

// Role is what a participant of a named queue does there.
type Role string

// The roles that can be taken over.
const (
	Listening Role = "listen" // it accepts connections and sends them
	Pooling   Role = "pool"   // it receives connections and runs programs
)

// Socket is a listening socket.
type Socket struct {
	FD       int
	Dev, Ino uint64 // of the file to which a Unix socket is bound, 0: it has none
}

// entry is what the register has of one participant.
type entry struct {
	role Role
	// line is the far end of a pair of sockets. Only the participant has the near end,
	// for as long as it accepts or receives.
	line    int
	keep    time.Duration // for how long its sockets stay open if it is killed
	until   time.Duration // when that is over, by CLOCK_BOOTTIME; 0: it is not known to be dead
	sockets []Socket
}

// register is the register of a named queue while this process has its lock. It says who
// can be replaced, and has the listening sockets.
//
// It is a message that lies in the queue the other way round, from the receiving to the
// sending end. So the kernel holds its descriptors, as long as anybody takes part: nobody
// need hand them to newcomers, and no death matters. A change is a new message, after
// which the old one is taken away: whoever is killed in between leaves both, of which the
// last counts.
type register struct {
	n       *named
	entries []*entry
	present bool // there is a message
}

const (
	registerVar = "REGISTER" // in the register's message
	socketWord  = "socket"
	// registerByte of the presence file is locked by who changes the register, fcntl(2).
	registerByte = 1
	// registerTime is how long its lock is waited for.
	registerTime = 5 * time.Second
	// registerRoom is how long its lock is held for want of room in flight.
	registerRoom = time.Second
)

// Errors of the register.
var (
	ErrNoRegister = errors.New("it is no named queue")
	errLocked     = hint.Wrap(errors.New("another process is in the middle of changing the queue's register"),
		"it may be stopped (kill -CONT continues it)")
	errNoRegisterRoom = fmt.Errorf("the register of the queue is full: it has room for %d descriptors in %d bytes", scm.MaxFDs, scm.MaxPayload)
)

// lockRegister waits for the lock, for as long as limit, and reads the register.
func (n *named) lockRegister(limit time.Duration) (*register, error) {
	n.registering.Lock() // the file's lock is the process's: not among its goroutines
	lock := unix.Flock_t{Type: unix.F_WRLCK, Start: registerByte, Len: 1}
	for deadline, pause := time.Now().Add(limit), time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		err := unix.FcntlFlock(uintptr(n.presence), unix.F_OFD_SETLK, &lock)
		if err == nil {
			break
		}
		if err != unix.EAGAIN && err != unix.EACCES && err != unix.EINTR {
			n.registering.Unlock()
			return nil, os.NewSyscallError("fcntl", err)
		}
		if time.Now().After(deadline) {
			n.registering.Unlock()
			return nil, errLocked
		}
		time.Sleep(pause)
	}
	r := &register{n: n}
	if err := r.read(); err != nil {
		r.unlock()
		return nil, err
	}
	return r, nil
}

// unlock ends what lockRegister has begun, and closes the entries' descriptors.
func (r *register) unlock() {
	for _, e := range r.entries {
		e.close()
	}
	lock := unix.Flock_t{Type: unix.F_UNLCK, Start: registerByte, Len: 1}
	_ = unix.FcntlFlock(uintptr(r.n.presence), unix.F_OFD_SETLK, &lock)
	r.n.registering.Unlock()
}

func (e *entry) close() {
	closeAll(e.line)
	for _, s := range e.sockets {
		closeAll(s.FD)
	}
	e.line, e.sockets = -1, nil
}

// read reads the register, with copies of its descriptors. What somebody who has the
// receiving end has sent there that is no register is thrown away.
func (r *register) read() error {
	receiver := scm.NewReceiver(r.n.send, nil)
	var m, last scm.Message
	defer func() { last.Close() }()
	for deadline := time.Now().Add(registerRoom); ; {
		came, err := receiver.Peek(&m)
		if err != nil && !errors.Is(err, io.EOF) {
			m.Close()
			return fmt.Errorf("cannot read the queue's register: %w", err)
		}
		unread, err := unix.IoctlGetInt(r.n.send, unix.SIOCINQ) // of all messages, unix_inq_len() in net/unix/af_unix.c
		switch {
		case !came && (err != nil || unread > 0) && time.Now().Before(deadline):
			// Somebody looks at the socket with SO_PEEK_OFF, socket(7), as fdkit queue does.
			time.Sleep(time.Millisecond)
			continue
		case !came && (err != nil || unread > 0):
			return errors.New("cannot read the queue's register: somebody has set SO_PEEK_OFF there")
		}
		if !came {
			break
		}
		entries, valid := parseRegister(m.Payload, m.FDs)
		if valid && err == nil && unread == len(m.Payload) {
			r.entries, r.present = entries, true
			return nil
		}
		m.Close()
		came, err = receiver.ReceiveNow(&m)
		if _, lost := errors.AsType[*scm.LostError](err); !came && !lost {
			break
		}
		if _, valid := parseRegister(m.Payload, m.FDs); valid && err == nil {
			last.Close()
			last.Payload, last.FDs = slices.Clone(m.Payload), slices.Clone(m.FDs)
		} else {
			m.Close()
		}
	}
	entries, valid := parseRegister(last.Payload, last.FDs)
	if !valid {
		return nil
	}
	r.entries, last.FDs = entries, nil
	return r.write()
}

// write puts the entries in the place of the register that was read.
func (r *register) write() error {
	receiver := scm.NewReceiver(r.n.send, nil)
	if len(r.entries) > 0 {
		payload, fds := r.message()
		if len(payload) > scm.MaxPayload || len(fds) > scm.MaxFDs {
			return errNoRegisterRoom
		}
		if err := trySoon(r.n.receive, payload, fds); err != nil {
			return fmt.Errorf("cannot write the queue's register: %w", err)
		}
	}
	if r.present {
		var before scm.Message
		if _, err := receiver.ReceiveNow(&before); err == nil {
			before.Close()
		}
	}
	r.present = len(r.entries) > 0
	return nil
}

// trySoon sends a message. Too many descriptors in flight, and the like, heal with time.
func trySoon(fd int, payload []byte, fds []int) error {
	sender := scm.NewSender(fd, nil)
	for deadline, pause := time.Now().Add(registerRoom), time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		_, err := sender.TransmitNow(payload, fds, nil)
		heals := errors.Is(err, unix.ETOOMANYREFS) || errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.EAGAIN)
		if !heals || time.Now().After(deadline) {
			return err
		}
		time.Sleep(pause)
	}
}

// message is the register as it is sent. Each descriptor has a word: a participant's line
// ROLE:KEEP:UNTIL, both in milliseconds, and behind it its sockets socket:DEV:INO.
func (r *register) message() (payload []byte, fds []int) {
	var words []string
	add := func(fd int, word string, a, b uint64) {
		fds = append(fds, fd)
		words = append(words, fmt.Sprintf("%s:%d:%d", word, a, b))
	}
	for _, e := range r.entries {
		add(e.line, string(e.role), uint64(e.keep.Milliseconds()), uint64(e.until.Milliseconds()))
		for _, s := range e.sockets {
			add(s.FD, socketWord, s.Dev, s.Ino)
		}
	}
	return scm.AppendVar([]byte(scm.Begin), registerVar, strings.Join(words, " ")), fds
}

// parseRegister is the opposite of message. Roles that it does not know stay as they are.
func parseRegister(payload []byte, fds []int) (entries []*entry, valid bool) {
	text, found := scm.Var(payload, registerVar)
	words := strings.Split(text, " ")
	if !found || len(words) != len(fds) {
		return nil, false
	}
	const most = uint64(1<<63-1) / uint64(time.Millisecond)
	for i, word := range words {
		parts := strings.Split(word, ":")
		if len(parts) != 3 || parts[0] == "" {
			return nil, false
		}
		a, errA := strconv.ParseUint(parts[1], 10, 64)
		b, errB := strconv.ParseUint(parts[2], 10, 64)
		isSocket := parts[0] == socketWord
		switch {
		case errA != nil || errB != nil, isSocket && i == 0, !isSocket && (a > most || b > most):
			return nil, false
		case isSocket:
			e := entries[len(entries)-1]
			e.sockets = append(e.sockets, Socket{fds[i], a, b})
		default:
			entries = append(entries, &entry{
				role: Role(parts[0]), line: fds[i],
				keep: time.Duration(a) * time.Millisecond, until: time.Duration(b) * time.Millisecond,
			})
		}
	}
	return entries, true
}

// dead tells whether the participant has ended, or no longer accepts or receives.
func (e *entry) dead() bool {
	fds := []unix.PollFd{{Fd: int32(e.line)}}
	_, err := unix.Poll(fds, 0)
	return err == nil && fds[0].Revents&unix.POLLHUP != 0
}

// owner returns the process and the user who have made the line: SO_PEERCRED of a pair of
// sockets is whoever has made it, unix(7).
func (e *entry) owner() unix.Ucred {
	who, err := unix.GetsockoptUcred(e.line, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return unix.Ucred{Uid: ^uint32(0), Gid: ^uint32(0)}
	}
	return *who
}

// yields tells whether this process may have what is the entry's: the same user's
// processes and root's may.
func (e *entry) yields() bool {
	euid := os.Geteuid()
	return euid == 0 || e.owner().Uid == uint32(euid)
}

// trusts tells whether a socket was made by root, this user or the owner of the queue: who
// else can write to the register need not be trusted with the clients of an address.
func (n *named) trusts(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && (st.Uid == 0 || int(st.Uid) == os.Geteuid() || int(st.Uid) == n.policy.uid)
}

// identity tells an entry from others.
func (e *entry) identity() uint64 { return inodeOf(e.line) }

func inodeOf(fd int) uint64 {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return 0
	}
	return st.Ino
}

// bootTime goes on while the machine sleeps, and is the same for all processes,
// clock_gettime(2).
func bootTime() time.Duration {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &now)
	return time.Duration(now.Nano())
}
