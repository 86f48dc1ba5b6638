//go:build linux

// Package fdrecv receives descriptors from other processes, through queues that
// fdkit's commands and package fdsend send to.
//
// The package reserves real-time signal 63: with it, Close ends system calls
// that wait in other goroutines.
package fdrecv

import (
	"errors"
	"io/fs"
	"iter"
	"time"

	"fdkit/internal/interrupt"
	"fdkit/internal/queue"
	"fdkit/internal/scm"
)

// ErrEnded is returned by Open if the sender has ended already, so that nothing
// can come. It wraps io.EOF.
var ErrEnded = queue.ErrEnded

// ErrSpec is wrapped by Open's error if the text names no queue at all.
var ErrSpec = queue.ErrSpec

// ErrStopped is returned by calls that Close has ended.
var ErrStopped = interrupt.ErrStopped

// LostError says that a message came without all of its descriptors
// (MSG_CTRUNC, recvmsg(2)): this process was at its RLIMIT_NOFILE, if it is Full, or a
// security module refused one. What did come has been closed.
type LostError = scm.LostError

// Options say how a queue is opened. The zero value is good.
type Options struct {
	// Wait bounds how long to wait for the queue: for the sender to write to the
	// pipe, for somebody else to make the named queue, for a foreign program to
	// listen. With 0 a named queue that is not there is made, a pipe is waited
	// for as long as somebody holds its other end, and a foreign program that is
	// not there is an error.
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

// Queue is this process's part in a queue that it receives from. Its methods may
// be called by several goroutines.
type Queue struct {
	q    *queue.Queue
	name string // for people
}

// Open opens the queue that spec names:
//
//   - "" is stdin, which must be a shell pipe from a sender or a Unix socket.
//     Open takes descriptor 0 over and leaves /dev/null in its place. The pipe
//     keeps what the sender wrote to it, for the next receiver.
//   - a path, or @NAME for an abstract name, is a named queue. It is made if it
//     is not there; all who open it share it.
//   - unix:PATH and unix-seqpacket:PATH connect to a foreign program's socket of
//     that type (unix: is a stream), unix-listen:PATH and unix-seqpacket-listen:PATH
//     wait for one to connect, unix-dgram:PATH receives datagrams there.
//   - fd:N is an inherited descriptor, which Open takes over, also if it fails.
func Open(spec string, o Options) (*Queue, error) {
	q, err := queue.OpenReceive(spec, queue.Options(o))
	if err != nil {
		return nil, err
	}
	if spec == "" {
		spec = "stdin"
	}
	return &Queue{q, spec}, nil
}

// FD returns the descriptor that messages are received from, for waiting only: poll(2)
// reports POLLIN when there is one, and POLLHUP when no sender is left. The queue owns it,
// and Close closes it.
func (q *Queue) FD() int { return q.q.FD }

// Waiting returns how many descriptors are in the queue, from all senders: one for
// each connection. That is not known, and ok is false, before Linux 5.6 and after
// Close.
func (q *Queue) Waiting() (descriptors int, ok bool) { return q.q.Waiting() }

// Close ends all calls of the queue's Receivers, and gives up this process's
// part in the queue. Messages that nobody else can receive any more are
// discarded, their descriptors closed; lost is how many those were. Further calls
// return the same.
func (q *Queue) Close() (lost int, err error) { return q.q.Close() }

// Stop ends all calls of the queue's Receivers with ErrStopped and lets no
// further one begin. When it returns, everything that was received has been
// returned by a call. The queue stays open.
func (q *Queue) Stop() { q.q.Calls.Stop() }

// Receiver receives messages from a queue. It is for one goroutine at a time; a
// queue can have many.
type Receiver struct {
	receive func(*scm.Message) error
	now     func(*scm.Message) (bool, error) // nil: the dialect has none
	close   func()                           // nil: nothing is to be closed
	pending func() (bytes, descriptors int)  // nil: messages come whole
}

// Receiver returns a new Receiver.
func (q *Queue) Receiver() *Receiver {
	r := scm.NewReceiver(q.q.FD, &q.q.Calls)
	return &Receiver{receive: r.Receive, now: r.ReceiveNow}
}

// Message is one message.
type Message struct {
	// Payload is what came with the descriptors, cut to 3776 bytes, or to 128 KiB if the
	// Receiver is that of a dialect: then it is what the dialect leaves of it. It is
	// valid until the Receiver's next Receive.
	Payload []byte
	// FDs are the descriptors, which the caller owns and must close. They are
	// close-on-exec. There may be none: a foreign sender's mistake. The slice is
	// valid until the Receiver's next Receive.
	FDs []int
	// Names are what the sender calls the descriptors, one for each, if it speaks a
	// dialect that has names beside the payload; else nil. Those of fdkit's own
	// messages are the variable FDNAMES.
	Names []string
	// Cut tells that the message had more bytes than there was room for.
	Cut bool
	// Sender is the process that has sent the message, after PassCredentials; else
	// nil. It is valid until the Receiver's next Receive.
	Sender *Credentials
}

// Credentials are a process's number, user and group as the kernel knows them,
// SCM_CREDENTIALS in unix(7).
type Credentials = scm.Credentials

// Receive waits for the next message and stores it in m. It allocates nothing, but in
// dialects.
//
// Of all Receivers that wait on one queue, in any number of processes, each
// message wakes one, the one that has waited longest. The error is io.EOF when
// no sender is left and the queue is empty, ErrStopped after Stop or Close, and
// a *LostError when a message came without its descriptors, after which the next
// message can be received. In a dialect nothing further is to be received after an error,
// but in raw, fdkit, openssh and util-linux.
func (r *Receiver) Receive(m *Message) error {
	return r.receive((*scm.Message)(m))
}

// ReceiveNow is Receive that does not wait: it returns false if there is no message, and
// with an error. After Stop it still receives; it must not be called after Close.
// Several processes that wait with poll(2) for the descriptor FD are all woken by each
// message. A Receiver of a dialect returns errors.ErrUnsupported.
func (r *Receiver) ReceiveNow(m *Message) (bool, error) {
	if r.now == nil {
		return false, errors.ErrUnsupported
	}
	return r.now((*scm.Message)(m))
}

// Close closes what the Receiver holds that came and belongs to no message yet. Of one
// that Queue.Receiver has returned that is nothing.
func (r *Receiver) Close() {
	if r.close != nil {
		r.close()
	}
}

// Close closes the message's descriptors.
func (m *Message) Close() { (*scm.Message)(m).Close() }

// Vars yields the variables in the payload, as names and values. A payload that
// does not begin with FDKIT=1 and a NUL byte has none.
func (m *Message) Vars() iter.Seq2[string, string] { return scm.Vars(m.Payload) }
