//go:build linux

// Package queue finds and makes queues of descriptors: connected pairs of
// AF_UNIX SOCK_SEQPACKET sockets that live in the kernel and are reached
// through a shell pipe, a Unix socket or a name.
package queue

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/hint"
	"fdkit/internal/interrupt"
	"fdkit/internal/scm"
	"fdkit/internal/unixpath"
)

// Options say how a queue is opened.
type Options struct {
	// Wait bounds how long to wait for a queue that is not there: for the sender
	// to write to the pipe, for somebody to make the named queue, for the
	// foreign program to listen. 0 does not wait: a named queue that is not
	// there is made. For a pipe, 0 waits as long as the pipe has a writer.
	Wait time.Duration
	// Mode is the permission bits of a named queue that this call makes, 0 means
	// 0600. Who may write may attach.
	Mode fs.FileMode
	// UID and GID are the owner of a named queue that this call makes, nil the
	// process's own. An existing queue is attached to if this user, the process's
	// own or root made it.
	UID, GID *int
	// Notice is told, at most once, why opening takes long. It may be nil.
	Notice func(text string)
	// Keeping is told what becomes of the listening sockets that a named queue keeps
	// when the process that has them is killed, and of what others may not do there. It
	// may be nil, and may be called at any time until Close.
	Keeping func(text string)
	// Stop, when closed, ends opening with interrupt.ErrStopped. It may be nil.
	Stop <-chan struct{}
}

// Queue is this process's part in a queue.
type Queue struct {
	// FD is the end that this process uses.
	FD int
	// Calls are the system calls that Senders and Receivers make on FD.
	Calls interrupt.Calls
	// Foreign tells that this is a socket that fdkit has not made: both ends may
	// send, and who is at the other one may know nothing of fdkit.
	Foreign bool

	named  *named // nil: it has no name
	in     int    // the receiving end, -1: this process does not hold it
	mu     sync.Mutex
	shut   bool // in is not to be used any more
	passed bool // PassCredentials has changed the socket

	gone    chan struct{}                // closed when no receiver is left; nil if that cannot be seen
	lasting func() bool                  // whether what is queued survives this process; nil: it does
	others  func() bool                  // whether anybody else is, or was, at the queue; nil: somebody is
	leave   func() (lost int, err error) // gives up what stands behind FD; nil: nothing does
	closed  func() (lost int, err error) // leave, once
}

// sendBuffer makes the queue short, so that waiting connections stay in the
// accept backlog, where they cost nothing. The kernel doubles it and grants
// POLLOUT while at most a quarter is used, unix_writable() in
// net/unix/af_unix.c: some four messages with an environment each.
const sendBuffer = 8192

// OpenSend opens the queue that spec names for sending: "" is stdout.
func OpenSend(spec string, o Options) (*Queue, error) { return open(spec, o, true) }

// OpenReceive opens the queue that spec names for receiving: "" is stdin.
func OpenReceive(spec string, o Options) (*Queue, error) { return open(spec, o, false) }

func open(spec string, o Options, sending bool) (*Queue, error) {
	var calls *interrupt.Calls
	if o.Stop != nil {
		calls = new(interrupt.Calls)
		opened := make(chan struct{})
		defer close(opened)
		go func() {
			select {
			case <-o.Stop:
				calls.Stop()
			case <-opened:
			}
		}()
	}
	q, err := find(spec, opening{o, calls}, sending)
	if err != nil && calls.Stopped() {
		err = interrupt.ErrStopped
	}
	if err != nil {
		name := spec
		if spec == "" {
			name = standard(sending)
		}
		return nil, fmt.Errorf("cannot open queue %s: %w", name, err)
	}
	q.closed = sync.OnceValues(func() (int, error) {
		q.mu.Lock()
		q.shut = true
		if q.passed {
			_ = unix.SetsockoptInt(q.FD, unix.SOL_SOCKET, unix.SO_PASSCRED, 0)
		}
		q.mu.Unlock()
		q.Calls.Stop()
		var lost int
		var err error
		if q.leave != nil {
			lost, err = q.leave()
		}
		return lost, errors.Join(err, os.NewSyscallError("close", unix.Close(q.FD)))
	})
	return q, nil
}

// ErrSpec is wrapped by the error of a text that names no queue at all.
var ErrSpec = errors.New("no such kind of queue")

// specError is the error of such a text.
type specError struct{ error }

func (e specError) Is(target error) bool { return target == ErrSpec }

func (e specError) Unwrap() error { return e.error }

// IsNamed tells whether spec is the name of a named queue: a path, or @NAME.
func IsNamed(spec string) bool {
	switch {
	case spec == "":
		return false
	case strings.HasPrefix(spec, "/"), strings.HasPrefix(spec, "@"), strings.HasPrefix(spec, "."):
		return true
	}
	return !strings.Contains(spec, ":")
}

func find(spec string, o opening, sending bool) (*Queue, error) {
	kind, rest, _ := strings.Cut(spec, ":")
	switch {
	case spec == "":
		return openStandard(o, sending)
	case IsNamed(spec):
		return openNamed(spec, o, sending)
	case kind == "fd":
		return openNumber(rest, o, sending)
	}
	return openForeign(kind, rest, o, sending)
}

// Gone is closed when no receiver is left. It is nil, and so never ready, where
// that cannot be seen: a named queue waits for the next receiver.
func (q *Queue) Gone() <-chan struct{} { return q.gone }

// Drain waits until what was sent is safe without this process: received, or in
// a queue that others hold. It returns early with nil when no receiver is left,
// and with the context's error when that ends.
func (q *Queue) Drain(ctx context.Context) error {
	// Nothing tells when a queue has run empty, so it is looked at from time to
	// time.
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for q.lasting != nil && !q.lasting() && q.Queued() {
		select {
		case <-tick.C:
		case <-q.gone:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Attended tells whether somebody else takes part in a named queue, or has come through
// a shell pipe. What is sent before would be lost with this process.
func (q *Queue) Attended() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return !q.shut && (q.others == nil || q.others())
}

// Queued tells whether anything that was sent through FD is still unreceived.
func (q *Queue) Queued() bool {
	// SIOCOUTQ, which Linux also gives for Unix sockets: bytes sent through this
	// socket that nobody has received yet.
	n, err := unix.IoctlGetInt(q.FD, unix.SIOCOUTQ)
	return err == nil && n > 0
}

// Waiting returns how many descriptors are in the queue, if that can be known: where
// this process holds the receiving end, and the kernel is Linux 5.6 or newer.
func (q *Queue) Waiting() (n int, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.shut || q.in < 0 {
		return 0, false
	}
	// scm_fds is what unix_show_fdinfo() in net/unix/af_unix.c tells of a socket's
	// receive queue.
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", q.in))
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(info)) {
		if count, found := strings.CutPrefix(line, "scm_fds:"); found {
			n, err = strconv.Atoi(strings.TrimSpace(count))
			return n, err == nil
		}
	}
	return 0, false
}

// PassCredentials makes messages come with their sender's credentials, until Close:
// others may go on with the socket, who have no room for them beside the descriptors.
func (q *Queue) PassCredentials() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.shut {
		return interrupt.ErrStopped
	}
	before, err := unix.GetsockoptInt(q.FD, unix.SOL_SOCKET, unix.SO_PASSCRED)
	if err == nil && before != 0 {
		return nil
	}
	err = scm.PassCredentials(q.FD)
	q.passed = err == nil
	return err
}

// Close stops the calls that are under way and gives up this process's part. It
// returns how many queued messages were lost because nobody else held the
// queue; their descriptors are closed.
func (q *Queue) Close() (lost int, err error) { return q.closed() }

// discard receives and closes all that is in the queue whose receiving end is
// fd, and returns how many messages that were.
func discard(fd int) (n int) {
	var m scm.Message
	r := scm.NewReceiver(fd, nil)
	for {
		came, err := r.ReceiveNow(&m)
		var lost *scm.LostError
		if !came && !errors.As(err, &lost) {
			return n
		}
		m.Close()
		n++
	}
}

// newPair makes the two ends of a queue.
func newPair() (send, receive int, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, -1, os.NewSyscallError("socketpair", err)
	}
	if err := shorten(fds[0]); err != nil {
		closeAll(fds[0], fds[1])
		return -1, -1, err
	}
	return fds[0], fds[1], nil
}

func shorten(fd int) error {
	return os.NewSyscallError("setsockopt",
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer))
}

// opening is what the functions that open a queue are given.
type opening struct {
	Options
	calls *interrupt.Calls // stopped when opening is to end, nil: nothing ends it
}

// Access is that of a socket file that is made.
func (o Options) Access() unixpath.Access {
	a := unixpath.Access{Mode: o.Mode, UID: -1, GID: -1}
	if o.Mode == 0 {
		a.Mode = 0o600
	}
	if o.UID != nil {
		a.UID = *o.UID
	}
	if o.GID != nil {
		a.GID = *o.GID
	}
	return a
}

func standard(sending bool) string {
	if sending {
		return "stdout"
	}
	return "stdin"
}

func closeAll(fds ...int) {
	for _, fd := range fds {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// patience is a bounded or unbounded wait for a queue.
type patience struct {
	begin    time.Time
	deadline time.Time // zero: none
	notice   func(string)
	pause    time.Duration
	calls    *interrupt.Calls // stopped when opening is to end
}

func (o opening) patience() *patience {
	p := &patience{begin: time.Now(), notice: o.Notice, pause: time.Millisecond, calls: o.calls}
	if o.Wait > 0 {
		p.deadline = p.begin.Add(o.Wait)
	}
	return p
}

// again pauses before the next try and returns true, or false when the time is up.
// After a second it tells the notice, once, what is waited for.
func (p *patience) again(reason error) bool {
	now := time.Now()
	if !p.deadline.IsZero() && !now.Before(p.deadline) || p.calls.Stopped() {
		return false
	}
	if p.notice != nil && now.Sub(p.begin) > time.Second {
		p.notice(fmt.Sprintf("still waiting: %v", reason))
		p.notice = nil
	}
	time.Sleep(p.pause)
	p.pause = min(2*p.pause, 50*time.Millisecond)
	return true
}

// left returns the time that is left, at most limit unless that is negative.
func (p *patience) left(limit time.Duration) time.Duration {
	if p.deadline.IsZero() {
		return limit
	}
	left := max(time.Until(p.deadline), 0)
	if limit < 0 {
		return left
	}
	return min(limit, left)
}

var errNoAnswer = hint.Wrap(errors.New("nobody answers there"),
	"a process that holds the queue may be stopped (kill -CONT continues it)")
