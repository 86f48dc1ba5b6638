//go:build linux

package holders

import (
	"os"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdinfo"
	"fdkit/internal/peek"
	"fdkit/internal/pidfd"
)

// queue notes the socket at d if descriptors are in flight to it. Each socket is asked
// once.
func (s *search) queue(link string, d Descriptor) {
	known, asked := s.queues[link]
	if asked && known == nil {
		return
	}
	if !asked {
		s.queues[link] = nil
		if g, err := fdinfo.GlanceAt(d.PID, d.FD); err != nil || g.InFlight == 0 {
			return
		}
	}
	s.queues[link] = append(known, d)
}

// inFlight looks for things in the receive queues of Unix sockets.
func (s *search) inFlight(stop <-chan struct{}) {
	self := os.Getpid()
	for _, owners := range s.queues {
		if owners == nil {
			continue
		}
		ok := false
		for _, owner := range owners {
			if ok || isClosed(stop) {
				break
			}
			ok = s.peekOwner(owner, self)
		}
		if !ok {
			s.found.Queues++
		}
	}
}

// peekOwner looks into the queue of a process's socket. It returns false if that is not
// possible.
func (s *search) peekOwner(owner Descriptor, self int) bool {
	socket, err := pidfd.Get(owner.PID, owner.FD)
	if err != nil {
		return false
	}
	defer unix.Close(socket)
	return s.peek(socket, owner, self, map[string]bool{})
}

// peek looks into the queue of socket and, as Unix sockets may be in flight themselves,
// into the queues of those in it. What it finds there is owner's: who has the socket
// that all come through.
func (s *search) peek(socket int, owner Descriptor, self int, seen map[string]bool) bool {
	if listening, err := unix.GetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || listening != 0 {
		return false // the queues are those of connections that nobody has accepted
	}
	ok := true
	look := func(fd int) {
		d := Descriptor{self, fd}
		link, err := os.Readlink(d.path())
		if err != nil {
			ok = false
			return
		}
		g, _ := fdinfo.GlanceAt(self, fd)
		for _, i := range s.are(link, d.path()) {
			s.wanted[i].add(Holder{PID: owner.PID, Place: InFlight, FD: owner.FD, Access: g.Access}, s.keep(d))
		}
		if g.InFlight > 0 && !seen[link] {
			seen[link] = true
			ok = s.peek(fd, owner, self, seen) && ok
		}
	}
	unseen, err := peek.Look(socket, func(m *peek.Message) {
		for _, fd := range m.FDs {
			look(fd)
		}
	})
	return ok && err == nil && unseen == 0
}

// keep returns a copy of an own descriptor that lasts as long as the search.
func (s *search) keep(d Descriptor) Descriptor {
	fd, err := unix.FcntlInt(uintptr(d.FD), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return d
	}
	s.copies = append(s.copies, fd)
	return Descriptor{d.PID, fd}
}
