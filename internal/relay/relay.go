//go:build linux

// Package relay stands between the programs that connect to a Unix socket and the one
// that serves it. What passes through it keeps its boundaries, its descriptors and, as far
// as the kernel lets, the names of those who sent it.
package relay

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdinfo"
	"fdkit/internal/hint"
	"fdkit/internal/interrupt"
	"fdkit/internal/proto"
	"fdkit/internal/scm"
	"fdkit/internal/unixpath"
)

// Relay listens at one Unix socket and connects each of its clients to another one.
type Relay struct {
	listen, target Endpoint
	on             Events
	listener       int
	file           unixpath.Identity // of the socket file

	accepting interrupt.Calls // and receiving datagrams
	sending   interrupt.Calls // of datagrams
	done      sync.WaitGroup  // the connections
	last      atomic.Int64    // the ID that was given last
	noOnce    [notices]sync.Once
	ownPID    atomic.Bool // that of others may not be passed on

	mu    sync.Mutex
	conns map[*Conn]bool
	ended bool
}

// Events are told what passes. They may be called by several goroutines at once, but for
// one direction of a connection by one at a time. Any may be nil but Message.
type Events struct {
	// Opened is called for a client that was connected to the target.
	Opened func(c *Conn)
	// Message is called before a message is passed on. It must not keep m.
	Message func(c *Conn, from proto.Direction, m *scm.Message)
	// Ended is called when one side says that it will send no more.
	Ended func(c *Conn, from proto.Direction)
	// Failed is called for what does not arrive, and for clients, with what is known of
	// them, that cannot be connected.
	Failed func(c *Conn, err error)
	// Closed is called when all is over.
	Closed func(c *Conn)
	// Notice is called, once for each kind, with what a person should know.
	Notice func(err error)
}

// Kinds of notices.
const (
	noticePID = iota
	noticeUser
	noticeShort
	notices
)

func (r *Relay) notice(kind int, err error) {
	r.noOnce[kind].Do(func() { r.on.Notice(err) })
}

// Conn is a connection of a client through the relay to the target. Of datagrams it is a
// sender's address, or all senders that have none.
type Conn struct {
	ID             int64
	Client, Target *fdinfo.PeerProcess // nil: not known
	Source         string              // the client's address, if it has one
	Note           any                 // for those who are told of events

	relay  *Relay
	sides  [2]*side // the client's and the target's
	closed atomic.Bool
}

// Listen begins to listen, so that Serve can serve. The socket file gets the access, of
// which what is not given is that of the target's.
func Listen(listen, target Endpoint, access unixpath.Access, on Events) (r *Relay, err error) {
	served, err := settle(&listen, &target)
	if err != nil {
		return nil, err
	}
	if !served {
		on.Notice(fmt.Errorf("nobody serves %s yet: clients are turned away until somebody does", target.Path))
	}
	if listen.Type == unix.SOCK_DGRAM && unixpath.Abstract(listen.Path) && !unixpath.Abstract(target.Path) {
		return nil, hint.Wrap(fmt.Errorf("cannot bind %s: anybody could send to an abstract name", listen.Path), "a path has permissions")
	}
	r = &Relay{listen: listen, target: target, on: on, conns: map[*Conn]bool{}}
	if r.listener, err = unix.Socket(unix.AF_UNIX, listen.Type|unix.SOCK_CLOEXEC, 0); err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	// What is accepted inherits it, so that nothing comes without its sender.
	if err = scm.PassCredentials(r.listener); err == nil {
		err = unixpath.Bind(r.listener, listen.Path, accessLike(target.Path, access), backlog)
	}
	if err == nil && !unixpath.Abstract(listen.Path) {
		r.file, err = unixpath.Identify(listen.Path)
	}
	if err != nil {
		_ = unix.Close(r.listener)
		if errors.Is(err, unixpath.ErrLive) {
			err = hint.Wrap(err, "another process serves this path; stop it or choose another")
		}
		return nil, fmt.Errorf("cannot bind %s: %w", listen.Path, err)
	}
	return r, nil
}

// backlog is how many clients may wait: SOMAXCONN, the most that the kernel allows.
const backlog = 4096

// accessLike completes access with that of the socket file at path.
func accessLike(path string, access unixpath.Access) unixpath.Access {
	var st unix.Stat_t
	if unixpath.Abstract(path) || unix.Lstat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return access
	}
	if access.Mode == 0 {
		access.Mode = fs.FileMode(st.Mode & 0o777)
	}
	// Only root gives files away; a group may be one of the process's own.
	if access.UID < 0 && access.GID < 0 && os.Geteuid() == 0 {
		access.UID, access.GID = int(st.Uid), int(st.Gid)
	}
	return access
}

// Type is the type of the sockets.
func (r *Relay) Type() int { return r.target.Type }

// Serve serves clients until Stop. It returns when all connections have ended.
func (r *Relay) Serve() error {
	var err error
	if r.target.Type == unix.SOCK_DGRAM {
		err = r.passDatagrams()
	} else {
		err = r.accept()
	}
	r.done.Wait()
	_ = unix.Close(r.listener)
	if err == interrupt.ErrStopped {
		return nil
	}
	return err
}

// accept accepts clients, and lets each be served.
func (r *Relay) accept() error {
	connecting := make(chan struct{}, maxConnecting)
	for {
		connecting <- struct{}{}
		target, err := r.again(func() (int, error) {
			fd, err := unix.Socket(unix.AF_UNIX, r.target.Type|unix.SOCK_CLOEXEC, 0)
			return fd, os.NewSyscallError("socket", err)
		})
		if err != nil {
			return err
		}
		client, err := r.again(r.acceptOne)
		if err != nil {
			_ = unix.Close(target)
			return err
		}
		r.done.Go(func() { r.serve(client, target, func() { <-connecting }) })
	}
}

// maxConnecting is how many clients may wait at once for the target to accept them:
// others wait in the relay's own backlog.
const maxConnecting = 64

// again makes a call until it has what it needs: descriptors and memory may be short for
// a time.
func (r *Relay) again(call func() (int, error)) (int, error) {
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		fd, err := call()
		if !isShortage(err) {
			return fd, err
		}
		r.notice(noticeShort, fmt.Errorf("accepting pauses: %w", err))
		if r.accepting.Stopped() {
			return -1, interrupt.ErrStopped
		}
		time.Sleep(pause) // the backlog stays readable: only time can be waited for
	}
}

func isShortage(err error) bool {
	for _, errno := range []unix.Errno{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.ETOOMANYREFS} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

func (r *Relay) acceptOne() (int, error) {
	if err := r.accepting.Enter(); err != nil {
		return -1, err
	}
	defer r.accepting.Exit()
	for {
		fd, _, err := unix.Accept4(r.listener, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		switch {
		case err == unix.EINTR && r.accepting.Stopped():
			return -1, interrupt.ErrStopped
		case err == unix.EINTR, err == unix.ECONNABORTED:
		default:
			return fd, os.NewSyscallError("accept4", err)
		}
	}
}

// Stop stops accepting and receiving, and removes the socket file. What is in hand is
// still delivered; then Serve returns.
func (r *Relay) Stop() {
	if !unixpath.Abstract(r.listen.Path) {
		unixpath.Remove(r.listen.Path, r.file)
	}
	r.accepting.Stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	for c := range r.conns {
		c.stop()
	}
}

// Close is Stop that gives up what cannot be delivered at once. Serve, which must have
// been called, returns soon.
func (r *Relay) Close() {
	r.Stop()
	r.sending.Stop()
	r.mu.Lock()
	for c := range r.conns {
		c.close()
	}
	r.mu.Unlock()
}

// add takes note of a connection; false: the relay has ended.
func (r *Relay) add(c *Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.ended {
		r.conns[c] = true
	}
	return !r.ended
}

func (r *Relay) remove(c *Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, c)
}
