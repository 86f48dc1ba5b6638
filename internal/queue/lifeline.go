//go:build linux

package queue

import (
	"sync"

	"fdkit/internal/interrupt"
)

// lifeline watches over the other side of a pipe or socket.
type lifeline struct {
	fd    int
	calls interrupt.Calls
	gone  chan struct{} // closed when nobody holds the other side any more
	once  sync.Once
}

func newLifeline(fd int) *lifeline { return &lifeline{fd: fd, gone: make(chan struct{})} }

func (l *lifeline) watch() {
	go func() {
		if l.calls.Enter() != nil {
			return
		}
		defer l.calls.Exit()
		// POLLERR and POLLHUP are reported without being asked for: the first of a
		// pipe without readers, the second of a socket without a peer.
		if l.calls.Poll(l.fd, 0) == nil {
			l.cut()
		}
	}()
}

// cut closes gone.
func (l *lifeline) cut() { l.once.Do(func() { close(l.gone) }) }

// stop ends the watch. A poll under way would keep the file open after close.
func (l *lifeline) stop() { l.calls.Stop() }
