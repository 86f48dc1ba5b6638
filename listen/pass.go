//go:build linux

package listen

import (
	"fdkit/internal/fdinfo"
	"fdkit/internal/scm"
)

// Name returns the name under which systemd has passed the socket, or "".
func (l *Listener) Name() string { return l.name }

// FD returns the listening socket's descriptor, which stays the Listener's.
func (l *Listener) FD() int { return l.fd }

// Take gives the socket away: the caller owns the descriptor, close-on-exec and
// listening, and its socket file if it has one, which nobody removes. The Listener
// is of no further use; Close does nothing.
func (l *Listener) Take() int {
	l.Stop()
	fd := -1
	l.closed.Do(func() { fd = l.fd })
	return fd
}

// AppendPayload appends the payload for passing the listening socket on, with the
// variables of its own address: fdkit-environ(7).
func (l *Listener) AppendPayload(b []byte) []byte {
	socket := fdinfo.Conn{Local: l.local}
	return socket.AppendVars(append(b, scm.Begin...))
}
