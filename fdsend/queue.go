//go:build linux

// Package fdsend sends descriptors to other processes, through queues that
// fdkit's commands and package fdrecv receive from.
//
// A queue is a connected pair of AF_UNIX SOCK_SEQPACKET sockets. A message is
// one datagram of it: a payload and up to 253 descriptors (SCM_RIGHTS, unix(7)).
// The format is in fdkit-protocol(7).
//
// The package reserves real-time signal 63: with it, Close ends system calls
// that wait in other goroutines.
package fdsend

import (
	"context"
	"io/fs"
	"time"

	"fdkit/internal/interrupt"
	"fdkit/internal/queue"
	"fdkit/internal/scm"
)

// Limits of one message.
const (
	MaxFDs     = scm.MaxFDs     // descriptors: SCM_MAX_FD, unix(7)
	MaxPayload = scm.MaxPayload // bytes, and at least 1
)

// ErrGone is returned when no receiver is left.
var ErrGone = scm.ErrGone

// ErrSpec is wrapped by Open's error if the text names no queue at all.
var ErrSpec = queue.ErrSpec

// ErrStopped is returned by calls that Close has ended.
var ErrStopped = interrupt.ErrStopped

// Options say how a queue is opened. The zero value is good.
type Options struct {
	// Wait bounds how long to wait for somebody else to make a named queue, or
	// for a foreign program to listen. 0 does not wait: a named queue that is not
	// there is made, a foreign program that is not there is an error.
	Wait time.Duration
	// Mode is the permission bits of a named queue that Open makes: who may
	// write may attach. 0 means 0600.
	Mode fs.FileMode
	// UID and GID own a named queue that Open makes; nil means this process's
	// own. A queue that is there already must have been made by this process's
	// user, by root or by UID.
	UID, GID *int
	// Notice, if not nil, is told at most once why Open takes long.
	Notice func(text string)
	// Keeping, if not nil, is told until Close what becomes of the listening sockets
	// that a named queue keeps when the process that has them is killed, and of what
	// others may not do there.
	Keeping func(text string)
	// Stop, when closed, ends Open with ErrStopped.
	Stop <-chan struct{}
}

// Queue is this process's part in a queue that it sends to. Its methods may be
// called by several goroutines.
type Queue struct{ q *queue.Queue }

// Open opens the queue that spec names:
//
//   - "" is stdout, which must be a shell pipe to a receiver or a Unix socket.
//     Open takes descriptor 1 over and leaves /dev/null in its place.
//   - a path, or @NAME for an abstract name, is a named queue. It is made if it
//     is not there; all who open it share it.
//   - unix:PATH, unix-seqpacket:PATH and unix-dgram:PATH connect to a foreign
//     program's socket of that type (unix: is a stream), unix-listen:PATH and
//     unix-seqpacket-listen:PATH wait for one to connect.
//   - fd:N is an inherited descriptor, which Open takes over, also if it fails.
func Open(spec string, o Options) (*Queue, error) {
	q, err := queue.OpenSend(spec, queue.Options(o))
	if err != nil {
		return nil, err
	}
	return &Queue{q}, nil
}

// Gone is closed when no receiver is left, as far as that can be seen. A named
// queue waits for the next receiver: there Gone is nil.
func (q *Queue) Gone() <-chan struct{} { return q.q.Gone() }

// Drain waits until what was sent needs this process no longer: it has been
// received, or other processes hold the queue. It returns nil early if no
// receiver is left, and ctx.Err() when ctx ends.
func (q *Queue) Drain(ctx context.Context) error { return q.q.Drain(ctx) }

// Attended tells whether somebody else takes part in a named queue, or has come through
// a shell pipe: what is sent before would be lost with this process. At a Unix socket it
// is true. After Close it is false.
func (q *Queue) Attended() bool { return q.q.Attended() }

// Waiting returns how many descriptors are in the queue, from all senders: one for
// each connection. That is not known, and ok is false, where others alone hold the
// receiving end, which is so at a Unix socket, and before Linux 5.6 and after Close.
func (q *Queue) Waiting() (descriptors int, ok bool) { return q.q.Waiting() }

// Close ends all calls of the queue's Senders, and gives up this process's part
// in the queue. Messages that nobody else can receive any more are discarded,
// their descriptors closed; lost is how many those were. Further calls return
// the same.
func (q *Queue) Close() (lost int, err error) { return q.q.Close() }

// Sender sends messages to a queue. It is for one goroutine at a time; a queue
// can have many.
type Sender struct{ s *scm.Sender }

// Sender returns a new Sender.
func (q *Queue) Sender() *Sender { return &Sender{scm.NewSender(q.q.FD, &q.q.Calls)} }

// Send sends one message, and waits while the queue is full. It allocates
// nothing. It does not close the descriptors: the caller still owns them, the
// queue holds copies.
//
// It returns ErrGone when no receiver is left and ErrStopped after Close. When
// more descriptors of this user are in flight than its RLIMIT_NOFILE allows
// (ETOOMANYREFS, unix(7)), it tries again after 1 to 50 ms.
func (s *Sender) Send(payload []byte, fds ...int) error { return s.s.Send(payload, fds...) }

// SendNow is Send that does not wait: the message is sent, or there is an error. That
// wraps EAGAIN if the queue is full, and ETOOMANYREFS, ENOBUFS or ENOMEM if descriptors
// in flight or memory are short, of which poll(2) tells nothing. SendNow must not be
// called after Close.
func (s *Sender) SendNow(payload []byte, fds ...int) error { return s.s.SendNow(payload, fds...) }

// Delay returns the error for which a Send that is under way in another goroutine
// tries again and again: ETOOMANYREFS, ENOBUFS or ENOMEM, unix(7). It is nil if that
// Send waits for nothing but room in the queue. Unlike the other methods, it may be
// called at any time.
func (s *Sender) Delay() error { return s.s.Delay() }

// FD returns the descriptor that messages are written to, for waiting only:
// poll(2) reports POLLOUT while the queue has room. The queue owns it.
func (s *Sender) FD() int { return s.s.FD() }

// AppendVar appends a variable to a payload, which begins with Begin.
func AppendVar(payload []byte, name, value string) []byte {
	return scm.AppendVar(payload, name, value)
}

// Begin is what the payload of an fdkit message begins with.
const Begin = scm.Begin
