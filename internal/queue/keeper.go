//go:build linux

package queue

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdinfo"
)

// keeper watches the register, as every participant does: it takes out the entries of the
// dead, with their listening sockets when the time for which these are kept is over.
type keeper struct {
	n      *named
	notice func(string)
	file   *os.File       // an epoll, on which the runtime waits: no thread does
	lines  map[uint64]int // copies of the lines of all participants, by their inodes
	done   chan struct{}
	stop   chan struct{}

	mu   sync.Mutex
	seat *Seat
}

// keepRetry is when a keeper looks again that could not change the register.
const keepRetry = 100 * time.Millisecond

// keep begins to watch the register.
func (n *named) keep(notice func(string)) error {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	_ = unix.SetNonblock(fd, true) // so that NewFile takes it for one to be polled
	k := &keeper{
		n: n, notice: notice, file: os.NewFile(uintptr(fd), "register"), lines: map[uint64]int{},
		done: make(chan struct{}), stop: make(chan struct{}),
	}
	if notice == nil {
		k.notice = func(string) {}
	}
	// Edges: the register is always there to be read, and each new one is an event.
	if err := k.watch(n.send, unix.EPOLLIN); err != nil {
		_ = k.file.Close()
		return err
	}
	n.keeper = k
	go k.run(fd)
	return nil
}

func (k *keeper) watch(fd int, events uint32) error {
	return k.control(unix.EPOLL_CTL_ADD, fd, events)
}

func (k *keeper) control(op, fd int, events uint32) error {
	raw, err := k.file.SyscallConn()
	if err != nil {
		return err
	}
	controlErr := raw.Control(func(epoll uintptr) {
		err = unix.EpollCtl(int(epoll), op, fd, &unix.EpollEvent{Events: events | unix.EPOLLET, Fd: int32(fd)})
	})
	return errors.Join(controlErr, os.NewSyscallError("epoll_ctl", err))
}

func (k *keeper) run(epoll int) {
	defer close(k.done)
	defer func() {
		for _, line := range k.lines {
			closeAll(line)
		}
	}()
	raw, err := k.file.SyscallConn()
	if err != nil {
		return
	}
	for {
		next, said := k.look()
		k.tell(said) // without the lock: who reads the log may have stopped
		if next >= 0 {
			_ = k.file.SetReadDeadline(time.Now().Add(next))
		} else {
			_ = k.file.SetReadDeadline(time.Time{})
		}
		err := raw.Read(func(uintptr) bool {
			var events [16]unix.EpollEvent
			n, err := unix.EpollWait(epoll, events[:], 0)
			return err != nil || n > 0
		})
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return // closed
		}
		k.mu.Lock()
		said = k.seat.hear()
		k.mu.Unlock()
		k.tell(said)
	}
}

func (k *keeper) tell(said []string) {
	for _, text := range said {
		k.notice(text)
	}
}

// look reads the register, and does what is due. It returns after what time there is more
// to do, a negative one if nothing is to come, and what is to be said.
func (k *keeper) look() (next time.Duration, said []string) {
	select {
	case <-k.stop:
		return -1, nil
	default:
	}
	r, err := k.n.lockRegister(keepRetry)
	if err != nil {
		return keepRetry, nil
	}
	defer r.unlock()
	next = -1
	now := bootTime()
	var gone []*entry
	changed := false
	r.entries = slices.DeleteFunc(r.entries, func(e *entry) bool {
		if !e.dead() {
			return false
		}
		switch {
		case len(e.sockets) == 0 || e.keep == 0:
		case e.until == 0:
			e.until, changed = now+e.keep, true
			said = append(said, fmt.Sprintf("the process that listened at %s has died: clients wait there for another one, for %v", e.addresses(), e.keep))
			fallthrough
		case e.until > now:
			if left := e.until - now; next < 0 || left < next {
				next = left
			}
			return false
		default:
			said = append(said, fmt.Sprintf("nobody has come to listen at %s: closed", e.addresses()))
		}
		gone = append(gone, e)
		return true
	})
	k.follow(r.entries)
	defer func() {
		for _, e := range gone {
			e.close()
		}
	}()
	if changed || len(gone) > 0 {
		if err := r.write(); err != nil {
			return keepRetry, nil
		}
	}
	return next, said
}

func (e *entry) addresses() string {
	var all []string
	for _, s := range e.sockets {
		if a, ok := fdinfo.LocalAddress(s.FD); ok {
			all = append(all, a.String())
		}
	}
	return strings.Join(all, ", ")
}

// follow watches the lines of these entries, and no others.
func (k *keeper) follow(entries []*entry) {
	there := map[uint64]bool{}
	for _, e := range entries {
		id := e.identity()
		there[id] = true
		if _, known := k.lines[id]; known {
			continue
		}
		line, err := unix.FcntlInt(uintptr(e.line), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			continue // out of descriptors: at the next change
		}
		if err := k.watch(line, 0); err != nil {
			closeAll(line)
			continue
		}
		k.lines[id] = line
	}
	for id, line := range k.lines {
		if !there[id] {
			// epoll(7) goes on with what others have open.
			_ = k.control(unix.EPOLL_CTL_DEL, line, 0)
			closeAll(line)
			delete(k.lines, id)
		}
	}
}

// end leaves this process's seat, and ends the watch.
func (k *keeper) end() {
	if k == nil {
		return
	}
	k.mu.Lock()
	seat := k.seat
	k.mu.Unlock()
	seat.Leave()
	close(k.stop)
	_ = k.file.Close()
	<-k.done
}

// sit makes what comes over the seat's line heard.
func (n *named) sit(s *Seat) {
	n.keeper.mu.Lock()
	defer n.keeper.mu.Unlock()
	n.keeper.seat = s
	_ = n.keeper.watch(s.near, unix.EPOLLIN)
}

// rise ends what sit has begun.
func (n *named) rise() {
	n.keeper.mu.Lock()
	defer n.keeper.mu.Unlock()
	if s := n.keeper.seat; s != nil {
		_ = n.keeper.control(unix.EPOLL_CTL_DEL, s.near, 0)
		n.keeper.seat = nil
	}
}
