//go:build linux

package fdrecv

import "fdkit/internal/queue"

// Register says who listens and who runs pools at a named queue, and has the listening
// sockets: fdkit-protocol(7). While it is open nobody else can enter it.
type Register = queue.Register

// Seat is this process's entry in a Register.
type Seat = queue.Seat

// ErrNoRegister says that the queue is no named one.
var ErrNoRegister = queue.ErrNoRegister

// Register opens the register of a named queue for a process that is to run programs on
// what it receives, and with takeover to replace all others that do. It waits at most five
// seconds for those who have it open.
func (q *Queue) Register(takeover bool) (*Register, error) {
	return q.q.OpenRegister(queue.Pooling, takeover)
}
