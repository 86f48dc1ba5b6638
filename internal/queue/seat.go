//go:build linux

package queue

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/interrupt"
	"fdkit/internal/scm"
)

// The words that a participant gets over its line from who takes its place.
const (
	successorVar = "SUCCESSOR" // is about to begin
	takeoverVar  = "TAKEOVER"  // has begun
)

// Register is the register of a named queue, locked: nobody else enters it meanwhile.
type Register struct {
	*register
	role     Role
	takeover bool
}

// OpenRegister locks the register for a process that is to have that role, and perhaps to
// take the place of all others that have it. It waits at most five seconds. Close must be
// called soon.
//
// With takeover it is an error if one of the others is another user's, and this process
// not root's.
func (q *Queue) OpenRegister(role Role, takeover bool) (*Register, error) {
	if q.named == nil {
		return nil, ErrNoRegister
	}
	r, err := q.named.lockRegister(registerTime)
	if err != nil {
		return nil, err
	}
	for _, e := range r.entries {
		if takeover && e.role == role && !e.dead() && !e.yields() {
			who := e.owner()
			r.unlock()
			return nil, fmt.Errorf("process %d is of uid %d: only the same user and root may take its place", who.Pid, who.Uid)
		}
	}
	return &Register{register: r, role: role, takeover: takeover}, nil
}

// Sockets returns copies of the listening sockets that this process may have: those of
// others that have died and, with takeover, of those that it is to replace. The caller
// owns the descriptors.
func (r *Register) Sockets() (sockets []Socket, err error) {
	seen := map[uint64]bool{} // two may have the same one for a moment
	for _, e := range r.entries {
		if e.role != r.role || !e.yields() || !r.takeover && !e.dead() {
			continue
		}
		for _, s := range e.sockets {
			inode := inodeOf(s.FD)
			if seen[inode] || !r.n.trusts(s.FD) {
				continue
			}
			seen[inode] = true
			if s.FD, err = unix.FcntlInt(uintptr(s.FD), unix.F_DUPFD_CLOEXEC, 3); err != nil {
				for _, s := range sockets {
					closeAll(s.FD)
				}
				return nil, os.NewSyscallError("fcntl", err)
			}
			sockets = append(sockets, s)
		}
	}
	return sockets, nil
}

// Live tells whether a process that lives has the role.
func (r *Register) Live() bool {
	return slices.ContainsFunc(r.entries, func(e *entry) bool { return e.role == r.role && !e.dead() })
}

// Has tells whether the register has the listening socket fd.
func (r *Register) Has(fd int) bool {
	inode := inodeOf(fd)
	return slices.ContainsFunc(r.entries, func(e *entry) bool {
		return slices.ContainsFunc(e.sockets, func(s Socket) bool { return inodeOf(s.FD) == inode })
	})
}

// Enter enters this process with the listening sockets that it has, copies of which stay
// open, for as long as keep, when it is killed. It must be able to accept or receive at
// once. Dead ones whose sockets it has taken are no longer in the register.
func (r *Register) Enter(keep time.Duration, sockets []Socket) (_ *Seat, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	near, own := pair[0], &entry{role: r.role, line: pair[1], keep: keep}
	s := &Seat{n: r.n, role: r.role, near: near, uid: os.Geteuid(), identity: own.identity(), replaced: make(chan struct{})}
	defer func() {
		if err != nil {
			own.close()
			closeAll(near)
			for _, e := range s.others {
				closeAll(e.line)
			}
		}
	}()
	if err := scm.PassCredentials(near); err != nil {
		return nil, err
	}
	taken := map[uint64]bool{}
	for _, socket := range sockets {
		if socket.FD, err = unix.FcntlInt(uintptr(socket.FD), unix.F_DUPFD_CLOEXEC, 3); err != nil {
			return nil, os.NewSyscallError("fcntl", err)
		}
		own.sockets = append(own.sockets, socket)
		taken[inodeOf(socket.FD)] = true
	}
	r.entries = slices.DeleteFunc(r.entries, func(e *entry) bool {
		if e.role != r.role || !e.dead() || !e.yields() {
			return false
		}
		e.sockets = slices.DeleteFunc(e.sockets, func(socket Socket) bool {
			gone := r.takeover || taken[inodeOf(socket.FD)]
			if gone {
				closeAll(socket.FD)
			}
			return gone
		})
		if len(e.sockets) == 0 {
			e.close()
		}
		return e.line < 0
	})
	for _, e := range r.entries {
		if !r.takeover || e.role != r.role || e.dead() {
			continue
		}
		line, err := unix.FcntlInt(uintptr(e.line), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return nil, os.NewSyscallError("fcntl", err)
		}
		s.others = append(s.others, &entry{line: line})
	}
	r.entries = append(r.entries, own)
	if err := r.write(); err != nil {
		r.entries = r.entries[:len(r.entries)-1]
		return nil, err
	}
	for _, e := range s.others {
		e.tell(successorVar)
	}
	r.n.sit(s)
	return s, nil
}

// Close unlocks the register. Further calls do nothing.
func (r *Register) Close() {
	if r != nil && r.register != nil {
		r.unlock()
		r.register = nil
	}
}

// Seat is this process's entry in the register. Closing the queue leaves it, too.
type Seat struct {
	n        *named
	role     Role
	near     int // the end of the line that no other process has
	uid      int // when it was entered
	identity uint64
	others   []*entry   // lines of those whose place is taken
	telling  sync.Mutex // for others
	calls    interrupt.Calls
	left     sync.Once

	coming   []int // processes that have said that they are about to begin
	by       int
	replaced chan struct{}
}

// Replaced is closed when another process has begun in this one's place, which is to stop
// now. By then tells its number, 0 if it is not known. A nil Seat is never replaced.
func (s *Seat) Replaced() <-chan struct{} {
	if s == nil {
		return nil
	}
	return s.replaced
}

// By returns the process that has taken this one's place.
func (s *Seat) By() int { return s.by }

// Predecessor is a process whose place was taken.
type Predecessor struct {
	PID  int
	Left bool // it has stopped
}

// TakeOver tells those whose place this process takes that it has begun, and waits until
// they have stopped, at most as long as limit for all. What they have left in the register
// then is taken away.
func (s *Seat) TakeOver(limit time.Duration) (all []Predecessor) {
	s.telling.Lock()
	defer s.telling.Unlock()
	for _, e := range s.others {
		e.tell(takeoverVar)
	}
	for deadline := time.Now().Add(limit); len(s.others) > 0; s.others = s.others[1:] {
		e := s.others[0]
		left, err := s.calls.Wait(e.line, 0, max(0, time.Until(deadline)))
		if err == nil {
			all = append(all, Predecessor{int(e.owner().Pid), left})
		}
		if left {
			s.n.strike(e.identity())
		}
		closeAll(e.line)
	}
	return all
}

// tell sends a word. There is always room: nobody is told much.
func (e *entry) tell(word string) {
	_, _ = scm.NewSender(e.line, nil).TransmitNow(scm.AppendVar([]byte(scm.Begin), word, ""), nil, nil)
}

// hear receives what has come over the line. It returns what is to be said of it.
func (s *Seat) hear() (said []string) {
	if s == nil {
		return nil
	}
	receiver := scm.NewReceiver(s.near, nil)
	var m scm.Message
	for {
		came, err := receiver.ReceiveNow(&m)
		if _, lost := errors.AsType[*scm.LostError](err); !came && !lost {
			return said
		}
		m.Close()
		who := m.Sender
		if who == nil {
			continue
		}
		// Who was root when it announced itself may have given that up since.
		allowed := who.UID == 0 || who.UID == s.uid || who.UID == os.Geteuid()
		_, successor := scm.Var(m.Payload, successorVar)
		_, takeover := scm.Var(m.Payload, takeoverVar)
		switch {
		case successor && allowed:
			s.coming = append(s.coming, who.PID)
		case takeover && !allowed && !slices.Contains(s.coming, who.PID):
			said = append(said, fmt.Sprintf("process %d of uid %d may not take this one's place: only the same user and root may", who.PID, who.UID))
		case takeover:
			if s.by == 0 {
				s.by = who.PID
				close(s.replaced)
			}
		}
	}
}

// Leave takes this process out of the register: it no longer accepts or receives. Further
// calls do nothing, and those of a nil Seat.
func (s *Seat) Leave() {
	if s == nil {
		return
	}
	s.left.Do(func() {
		s.calls.Stop()
		s.n.strike(s.identity)
		s.n.rise()
		closeAll(s.near)
		s.telling.Lock()
		defer s.telling.Unlock()
		for _, e := range s.others {
			closeAll(e.line)
		}
		s.others = nil
	})
}

// strike takes an entry out of the register.
func (n *named) strike(identity uint64) {
	r, err := n.lockRegister(registerTime / 5)
	if err != nil {
		return // its line is closed, which says the same
	}
	defer r.unlock()
	i := slices.IndexFunc(r.entries, func(e *entry) bool { return e.identity() == identity })
	if i < 0 {
		return
	}
	gone := r.entries[i]
	defer gone.close()
	r.entries = slices.Delete(r.entries, i, i+1)
	_ = r.write()
}
