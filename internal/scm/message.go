//go:build linux

// Package scm sends and receives descriptors over Unix sockets (SCM_RIGHTS,
// unix(7)) and has the payload format that travels with them. It is the only
// code of fdkit that calls sendmsg(2) and recvmsg(2).
package scm

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const (
	// MaxFDs is SCM_MAX_FD of unix(7): sendmsg(2) fails with EINVAL above it.
	MaxFDs = 253
	// MaxPayload is the largest payload in bytes. With the kernel's own part a
	// larger one needs a buffer of the next size class, which costs twice the
	// room in the queue.
	MaxPayload = 3776
)

// ErrGone says that no receiver is left at the other end.
var ErrGone = errors.New("no receiver is left")

// LostError says that a message came without all of its descriptors
// (MSG_CTRUNC). What did come was closed.
type LostError struct {
	Came int // descriptors that came and were closed
	// Full tells that the process was out of descriptors, RLIMIT_NOFILE in
	// getrlimit(2). Otherwise a security module has refused one:
	// security_file_receive() in fs/file.c of Linux is all else that can fail.
	Full bool
}

func (e *LostError) Error() string {
	return fmt.Sprintf("descriptors were lost on the way (MSG_CTRUNC), %d that came closed: %s", e.Came, e.Reason())
}

// Reason is why, in a few words.
func (e *LostError) Reason() string {
	if e.Full {
		return "out of descriptors (RLIMIT_NOFILE)"
	}
	return "refused by a security module"
}

// Message is one message as received.
type Message struct {
	// Payload is what came with the descriptors, cut to MaxPayload bytes. It is
	// overwritten by the Receiver's next Receive.
	Payload []byte
	// FDs are the descriptors, close-on-exec, owned by whoever called Receive.
	// The slice is overwritten by the next Receive, the descriptors stay open.
	FDs []int
	// Names are what the sender calls the descriptors, one for each, where it speaks
	// a dialect that has names beside the payload; else nil.
	Names []string
	// Cut tells that the message had more bytes than there was room for.
	Cut bool
	// Sender is the process that has sent the message, if the socket has
	// SO_PASSCRED; else nil. It is overwritten by the next Receive.
	Sender *Credentials
}

// Credentials are those of SCM_CREDENTIALS, unix(7): checked by the kernel, and seen
// from this process's namespaces.
type Credentials struct {
	PID int // 0: in a PID namespace that is not seen from here
	UID int // 65534: as above
	GID int // 65534: as above
}

// Close closes all descriptors of m.
func (m *Message) Close() {
	closeAll(m.FDs)
	m.FDs = nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// PassCredentials makes Receivers of the socket fd set Message.Sender from now on.
func PassCredentials(fd int) error {
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1))
}
