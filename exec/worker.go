//go:build linux

package exec

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/scm"
)

// Worker is a resident program that runs.
type Worker struct {
	PID    int
	Index  int    // of its place, from 0; -1 with Key
	Key    string // with Key
	Begin  time.Time
	Handed int // connections
	// Note is for Started to set and for Ended to read.
	Note any

	place    *place
	id       int32
	fd       int // the pool's end of the queue; -1: the queue is shared
	theirs   int // a copy of the worker's end, to take back what it leaves there
	sender   *scm.Sender
	receiver *scm.Receiver
	last     time.Time // when it was given a connection, or has started
	unread   bool      // it has not received that yet
	ready    bool      // it can be given one, as far as is known
	spoken   bool      // it has said READY, and asks for each connection
	babble   int       // words that it has said and that are none
	credit   int       // connections that it has said READY for
	leases   []lease
	done     bool      // it has said DONE
	open     int       // descriptors that it has at most, as far as is known; -1: unknown
	most     int       // with so many it has to be looked at anew
	fullAt   time.Time // since when there is no room for more; zero: there is
	told     bool      // that is said
	files    string
	stat     unix.Stat_t // of files, which is its /proc/PID/fd
	received bool        // it has received a connection
	unheard  bool        // there may be more that it has said
	behind   bool        // it has left that for too long
	late     int         // how often that was so of late, times two, less if it was not
	slow     time.Duration
	at       int       // the descriptor at which it was seen to have its queue
	doubted  time.Time // until then it is not looked for whether it has closed its queue
	shunned  time.Time // until then it is given nothing
	spared   bool      // unless no other one can have it for a moment
	retired  bool      // it is told to end
	killed   bool
}

// WorkerStatus is what is known of a worker.
type WorkerStatus struct {
	PID     int
	Index   int
	Key     string
	Begin   time.Time
	Handed  int // connections that it was given
	Leases  int // of which it has not said DONE to so many; -1: it does not say it
	Unread  bool
	Retired bool // it was told to end
}

func (r *Worker) status() WorkerStatus {
	s := WorkerStatus{r.PID, r.Index, r.Key, r.Begin, r.Handed, -1, r.unread, r.retired}
	if r.spoken {
		s.Leases = len(r.leases)
	}
	return s
}

// place is what a worker stands in: one of N, or that of a key.
type place struct {
	index   int
	key     string
	worker  *Worker // the one that is given connections; nil: none
	next    *Worker // one that is to take over
	queued  bool    // the place is in ready
	waiting []parcel
	pause   time.Duration
	startAt time.Time // zero: now
}

const (
	// busy and starting are after how long a connection that a worker has not received
	// goes to one that can have it: a worker that waits receives at once, and one that
	// has never received may still be starting.
	busy     = 40 * time.Millisecond
	starting = time.Second
	// For so long the worker is given none then, at first and at last.
	firstRest = time.Second
	lastRest  = 30 * time.Second
	moment    = 5 * time.Millisecond
)

// start starts a worker in the place: the one for connections, or if there is one the
// next.
func (w *Workers) start(p *place) {
	worker, err := w.spawn(p)
	if err != nil {
		p.fail(time.Now())
		w.remind(p.startAt)
		w.trouble(fmt.Errorf("no worker could be started, the next try is in %v: %w", p.pause, err))
		return
	}
	if p.worker == nil {
		p.worker = worker
	} else {
		p.next = worker
	}
	w.workers[worker.id], w.byPID[worker.PID] = worker, worker
	if w.Started != nil {
		w.Started(worker)
	}
	w.report()
	if w.ReadyTimeout == 0 {
		w.serviceable(worker)
	} else {
		w.remind(worker.Begin.Add(w.ReadyTimeout))
	}
	if w.MaxAge > 0 {
		w.remind(worker.Begin.Add(w.MaxAge))
	}
}

// fail makes the place wait before its next start, longer each time.
func (p *place) fail(now time.Time) {
	p.pause = min(max(2*p.pause, firstPause), lastPause)
	p.startAt = now.Add(p.pause)
}

func (w *Workers) spawn(p *place) (*Worker, error) {
	w.next++
	r := &Worker{Index: p.index, Key: p.key, place: p, id: w.next, fd: -1, theirs: -1, at: w.QueueFD}
	env := append([]string(nil), w.Environ...)
	env = append(env, "FDKIT_QUEUE_FD="+strconv.Itoa(w.QueueFD))
	if w.Key != "" {
		env = append(env, w.Key+"="+p.key)
	} else {
		env = append(env, "FDKIT_WORKER="+strconv.Itoa(p.index))
	}
	var block envBlock
	for _, v := range env {
		entry, err := unix.BytePtrFromString(v)
		if err != nil {
			return nil, err
		}
		block.entries = append(block.entries, entry)
	}
	block.entries = append(block.entries, nil)
	theirs := w.Queue
	if !w.Share {
		var err error
		if r.fd, r.theirs, err = privateQueue(); err != nil {
			return nil, err
		}
		theirs = r.theirs
	}
	at := theirs
	if theirs == w.QueueFD { // dup3(2) refuses that
		var err error
		if at, err = unix.FcntlInt(uintptr(theirs), unix.F_DUPFD_CLOEXEC, w.QueueFD+1); err != nil {
			r.close()
			return nil, os.NewSyscallError("fcntl", err)
		}
		defer unix.Close(at)
	}
	r.Begin = time.Now()
	r.last = r.Begin
	pid, err := w.spawner.spawnAt(at, []int{w.QueueFD}, &block)
	if err != nil {
		r.close()
		if _, ok := errors.AsType[*os.SyscallError](err); !ok && !temporary(err) { // execve
			err = notRunnable(w.Program.Args[0], err)
		}
		return nil, err
	}
	select {
	case w.spawned <- struct{}{}:
	default:
	}
	r.PID, r.files = pid, "/proc/"+strconv.Itoa(pid)+"/fd"
	if w.Share {
		return r, nil
	}
	r.sender = scm.NewSender(r.fd, nil)
	r.receiver = scm.NewReceiverSize(r.fd, nil, 256)
	// Edges: one comes whenever the worker has sent something, or has received.
	err = unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, r.fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: r.id})
	if err == nil {
		err = unix.EpollCtl(w.receipts, unix.EPOLL_CTL_ADD, r.fd, &unix.EpollEvent{Events: unix.EPOLLOUT | unix.EPOLLET, Fd: r.id})
	}
	if err != nil {
		w.trouble(os.NewSyscallError("epoll_ctl", err)) // reap finds its end
		_ = unix.Kill(-pid, syscall.SIGKILL)
	}
	return r, nil
}

// privateQueue makes a queue that is as short as the kernel lets it be.
func privateQueue() (ours, theirs int, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, -1, os.NewSyscallError("socketpair", err)
	}
	if err := unix.SetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_SNDBUF, 0); err != nil {
		_ = unix.Close(fds[0])
		_ = unix.Close(fds[1])
		return -1, -1, os.NewSyscallError("setsockopt", err)
	}
	return fds[0], fds[1], nil
}

func (r *Worker) close() {
	if r.fd >= 0 {
		_ = unix.Close(r.fd)
		_ = unix.Close(r.theirs)
		r.fd, r.theirs = -1, -1
	}
}

// serviceable lets a worker have connections, in place of the one before.
func (w *Workers) serviceable(r *Worker) {
	if r.ready || r.retired {
		return
	}
	r.ready = true
	p := r.place
	if p.next == r {
		old := p.worker
		p.worker, p.next = r, nil
		if old != nil {
			w.retire(old)
		}
	}
	w.settle(r)
}

// retire lets the worker see the end of its queue, behind what is in it.
func (w *Workers) retire(r *Worker) {
	if r == nil || r.retired {
		return
	}
	r.retired = true
	if r.fd < 0 { // the queue is not its own
		_ = unix.Kill(-r.PID, syscall.SIGTERM)
		return
	}
	_ = unix.Shutdown(r.fd, unix.SHUT_WR)
}

// replace starts a worker that is to take over.
func (w *Workers) replace(p *place) {
	switch {
	case p.worker == nil || p.next != nil || p.worker.retired:
	case time.Now().Before(p.startAt): // the last that was to has failed
		w.remind(p.startAt)
	default:
		w.start(p)
	}
}

// forsake lets another worker take the place of one that has closed its queue, or shut it
// down, which may go on with the connections that it has.
func (w *Workers) forsake(r *Worker, how string) {
	w.trouble(fmt.Errorf("worker %d has %s its queue: it is given nothing more", r.PID, how))
	w.retire(r)
	p, now := r.place, time.Now()
	p.worker = nil
	if p.next != nil && p.next.ready {
		p.worker, p.next = p.next, nil
	} else if now.Sub(r.Begin) < atOnce {
		p.fail(now)
	}
	w.remind(now)
}

// attend hears what the worker says, and sees whether it has received something.
func (w *Workers) attend(r *Worker) {
	w.hearAll(r)
	w.settle(r)
}

// hearAll hears what the worker has said since the last time.
func (w *Workers) hearAll(r *Worker) {
	var m scm.Message
	r.unheard = false
	for n := 0; ; n++ {
		if n == 64 { // others have their turn first
			r.unheard = true
			w.remind(time.Now())
			break
		}
		came, err := r.receiver.ReceiveNow(&m)
		if !came {
			if _, lost := errors.AsType[*scm.LostError](err); lost {
				continue
			}
			break // also at the end: the worker has closed its queue, or has ended
		}
		m.Close()
		for line := range bytes.Lines(m.Payload) {
			w.hear(r, string(bytes.TrimRight(line, "\n\x00")))
		}
	}
}

// hear takes one word of the worker.
func (w *Workers) hear(r *Worker, text string) {
	word, value, given := strings.Cut(text, "=")
	var n uint64
	var err error
	if given {
		n, err = strconv.ParseUint(value, 10, 32)
	}
	switch {
	case word == "READY" && (!given || err == nil && n > 0):
		r.spoken = true
		if !r.received { // it has started at last
			r.shunned, r.late, r.slow = time.Time{}, 0, 0
		}
		r.credit += int(max(n, 1))
		w.serviceable(r)
	case word == "DONE" && (!given || err == nil):
		r.done = true
		r.finish(n, given)
	case r.babble < 10:
		r.babble++
		w.trouble(fmt.Errorf("worker %d says %q, which is neither READY nor DONE", r.PID, text))
	}
}

// settle sees whether the worker can be given a connection now.
func (w *Workers) settle(r *Worker) {
	if r.unread {
		// Whether all that was sent has been received, SIOCOUTQ also tells of a
		// Unix socket. Who is woken by that may still see a byte of each message that
		// is just being freed, sock_wfree() in net/core/sock.c.
		const message = 256 // any takes more
		n, err := unix.IoctlGetInt(r.fd, unix.SIOCOUTQ)
		if err == nil && n >= message {
			return
		}
		if !r.behind {
			r.late /= 2
		}
		r.unread, r.received, r.behind, r.slow = false, true, false, 0
	}
	p := r.place
	if p.worker != r || !r.free() {
		return
	}
	if w.chosen() {
		w.flush(p)
	} else if !p.queued {
		p.queued = true
		w.ready = append(w.ready, p)
	}
}

// free tells whether the worker can be given a connection.
func (r *Worker) free() bool {
	return r.ready && !r.retired && r.fd >= 0 && !r.unread && (!r.spoken || r.credit > 0)
}
