//go:build linux

// Package merge writes what comes from many clients at once to one descriptor, in whole
// frames: lines, or blocks that their length stands before.
package merge

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/hint"
	"fdkit/internal/interrupt"
	"fdkit/internal/scm"
)

// Merger receives clients and merges what they send. One goroutine does all: it waits
// for all clients at once, reads from those that have something in turn, and writes.
type Merger struct {
	Framing Framing
	// MaxHeld is how many bytes of unfinished frames are held for all clients together,
	// beyond some for each: room says how.
	MaxHeld int
	// Idle ends Run when for that time no client was there; 0: nothing does.
	Idle time.Duration
	// Out is where frames are written. It may be non-blocking.
	Out int
	// Receive receives the next client, if there is one: the first descriptor of the
	// message, which Run owns then with the others. The error is io.EOF at the end.
	// Queue is readable, poll(2), if there may be one.
	Receive func(*scm.Message) (bool, error)
	Queue   int

	// Came returns the name of a client, whose descriptor is fd. Left is told of each
	// client at its end, Lost of all that is lost, and Full once, when there are as many
	// clients as there may be open files: others wait. Run's goroutine calls them.
	Came func(fd int, payload []byte) (name string)
	Left func(*Client)
	Lost func(Loss)
	Full func(clients int)

	Total Total // what has been done; for reading after Run

	calls   interrupt.Calls // all of Run
	stopped atomic.Bool     // by Stop
	mu      sync.Mutex      // for wake
	wake    int             // an eventfd: look at stopped; 0: Run does not run

	epoll   int
	in, out []byte
	clients []*Client // by descriptor
	n       int       // of them
	ready   []*Client // that may have something to read, in the order of their turns
	spare   []*Client // room for the next ready
	waiting bool      // Queue has something
	ended   bool      // Queue has ended
	alone   time.Time // when the last client left
	quiet   bool      // the time of Idle is over since then, and nobody waits
	limit   int       // clients, by RLIMIT_NOFILE
	full    bool      // Full was told
	polled  [4]unix.PollFd
	events  [256]unix.EpollEvent
	crowd
}

// Total counts.
type Total struct {
	Clients       int
	Frames, Bytes int64 // written, or about to be
	LostBytes     int64
	Lost          int // times
}

const (
	turnSize  = 128 << 10 // bytes that a client may send in its turn
	flushSize = 64 << 10  // bytes that are written at once, at least while there are more
	atOnce    = 64        // clients that are received before others have their turn
	spareFDs  = 8         // descriptors for what is opened and closed meanwhile
)

// Run merges until the queue has ended and the last client left, a client sends the frame
// that ends all, the time of Idle is over, or Stop is called; then it returns nil, and all
// that had come by then is written. An error of Queue is returned at the end, one of Out
// at once. Run closes the clients, but neither Queue nor Out.
func (m *Merger) Run() (failure error) {
	if err := m.calls.Enter(); err != nil {
		return err
	}
	defer m.calls.Exit()
	if err := m.prepare(); err != nil {
		return err
	}
	defer m.dispose()
	for {
		if err := m.receive(); err != nil {
			m.ended, failure = true, fmt.Errorf("cannot receive: %w", err)
		}
		if m.stopped.Load() {
			return errors.Join(m.conclude(), failure)
		}
		err := m.pass()
		if err == errEnd {
			m.gather()
			return errors.Join(m.conclude(), failure)
		}
		if err == nil {
			err = m.flush()
		}
		if err == nil && m.over() {
			return failure
		}
		if err == nil {
			err = m.wait()
		}
		if err != nil {
			return err
		}
	}
}

// over tells whether nobody is there, and nobody will come.
func (m *Merger) over() bool {
	return m.n == 0 && (m.ended || m.quiet)
}

// Stop makes Run receive no more clients, write what has come whole and return. It may be
// called at any time.
func (m *Merger) Stop() {
	m.stopped.Store(true)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.wake > 0 {
		_, _ = unix.Write(m.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
}

// Abort makes Run return at once, also while nobody reads Out. It returns when Run is
// about to.
func (m *Merger) Abort() { m.calls.Stop() }

func (m *Merger) prepare() (err error) {
	if m.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(m.epoll)
		return os.NewSyscallError("eventfd", err)
	}
	m.mu.Lock()
	m.wake = wake
	m.mu.Unlock()
	m.in, m.alone = make([]byte, turnSize), time.Now()
	var files unix.Rlimit
	if err = unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err == nil {
		var open []os.DirEntry
		open, err = os.ReadDir("/proc/self/fd")
		m.limit = int(min(files.Cur, 1<<30)) - len(open) - spareFDs
	}
	if err == nil && m.limit < 1 {
		err = hint.Wrap(fmt.Errorf("the limit of %d open files leaves no descriptor for a client", files.Cur),
			"ulimit -n shows and raises it (RLIMIT_NOFILE)")
	}
	if err != nil {
		m.dispose()
	}
	return err
}

// dispose closes all, and tells what is lost with it.
func (m *Merger) dispose() {
	if len(m.out) > 0 {
		m.lose(nil, len(m.out), errUnwritten)
	}
	for _, c := range m.clients {
		if c != nil {
			m.drop(c, errConcluded)
		}
	}
	m.mu.Lock()
	_ = unix.Close(m.wake)
	m.wake = 0
	m.mu.Unlock()
	_ = unix.Close(m.epoll)
}

// receive receives the clients that the queue has, as far as there is room.
func (m *Merger) receive() error {
	var message scm.Message
	for range atOnce {
		if !m.waiting || m.ended || m.n >= m.limit {
			return nil
		}
		came, err := m.Receive(&message)
		_, lost := errors.AsType[*scm.LostError](err)
		switch {
		case lost:
			m.tell(Loss{Reason: "truncated", Err: err})
		case err == io.EOF:
			m.ended = true
		case err != nil:
			return err
		case !came:
			m.waiting = false
		default:
			m.admit(&message)
		}
	}
	return nil
}

// pass gives each client that may have something its turn.
func (m *Merger) pass() error {
	turns := m.ready
	m.ready = m.spare[:0]
	for i, c := range turns {
		turns[i] = nil
		c.ready = false
		if c.fd < 0 {
			continue
		}
		if err := m.turn(c); err != nil {
			return err
		}
		if len(m.out) >= flushSize {
			if err := m.flush(); err != nil {
				return err
			}
		}
	}
	m.spare = turns
	return nil
}

// flush writes the frames that are whole. While nobody reads them nothing else is done, so
// that clients are held up by their own connections.
func (m *Merger) flush() error {
	b := m.out
	for len(b) > 0 {
		n, err := unix.Write(m.Out, b)
		switch {
		case err == nil:
			b = b[n:]
		case err == unix.EINTR && m.calls.Stopped():
			err = interrupt.ErrStopped
		case err == unix.EINTR:
			err = nil
		case err == unix.EAGAIN:
			err = m.calls.Poll(m.Out, unix.POLLOUT)
		default:
			err = cannotWrite(err)
		}
		if err != nil {
			m.out = append(m.out[:0], b...)
			return err
		}
	}
	m.out = m.out[:0]
	return nil
}

func cannotWrite(err error) error {
	return fmt.Errorf("cannot write to stdout: %w", os.NewSyscallError("write", err))
}

// wait sleeps until there is something to do, and sees what.
func (m *Merger) wait() error {
	m.polled = [...]unix.PollFd{
		{Fd: int32(m.epoll), Events: unix.POLLIN},
		{Fd: int32(m.wake), Events: unix.POLLIN},
		{Fd: int32(m.Out)},
		{Fd: int32(m.Queue), Events: unix.POLLIN},
	}
	fds := m.polled[:]
	if m.ended || m.n >= m.limit {
		fds = fds[:3]
	}
	limit := m.patience()
	if m.n == 0 && m.Idle > 0 {
		limit = max(0, time.Until(m.alone.Add(m.Idle)))
	}
	timeout := -1
	switch {
	case len(m.ready) > 0:
		timeout = 0
	case limit >= 0:
		timeout = int(min(limit.Milliseconds()+1, 1<<30)) // poll(2) has milliseconds, rounded up here
	}
	switch _, err := unix.Poll(fds, timeout); {
	case m.calls.Stopped():
		return interrupt.ErrStopped
	case err != nil && err != unix.EINTR:
		return os.NewSyscallError("poll", err)
	}
	if fds[2].Revents&(unix.POLLERR|unix.POLLHUP) != 0 {
		// Whoever reads a pipe or socket has closed it: what a write would say.
		return cannotWrite(unix.EPIPE)
	}
	m.waiting = len(fds) > 3 && fds[3].Revents != 0
	m.quiet = m.n == 0 && !m.waiting && m.Idle > 0 && time.Since(m.alone) >= m.Idle
	m.relieve()
	if fds[0].Revents == 0 {
		return nil
	}
	n, err := unix.EpollWait(m.epoll, m.events[:], 0)
	if err != nil && err != unix.EINTR {
		return os.NewSyscallError("epoll_wait", err)
	}
	for _, e := range m.events[:max(n, 0)] {
		if c := m.clients[e.Fd]; c != nil {
			m.enqueue(c)
		}
	}
	return nil
}

// enqueue lets a client have a turn.
func (m *Merger) enqueue(c *Client) {
	if !c.ready && !c.stalled {
		c.ready = true
		m.ready = append(m.ready, c)
	}
}

// gather receives the clients that are in the queue now: whoever was there before the end
// is to be heard.
func (m *Merger) gather() {
	for range 16 {
		m.waiting = !m.ended
		if m.receive() != nil || !m.waiting {
			return
		}
	}
}

// conclude reads what all clients have sent by now, and writes what is whole.
func (m *Merger) conclude() error {
	for _, c := range m.clients {
		if c == nil {
			continue
		}
		unread, _ := unix.IoctlGetInt(c.fd, unix.TIOCINQ)
		for c.fd >= 0 {
			n, _ := m.take(c, len(m.in))
			if n <= 0 || unread <= 0 { // one more than unread says, to see the end
				break
			}
			unread -= n
			if len(m.out) >= flushSize {
				if err := m.flush(); err != nil {
					return err
				}
			}
		}
		if c.fd >= 0 {
			m.drop(c, errConcluded)
		}
	}
	return m.flush()
}
