//go:build linux

package cmd

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/fdsend"
	"fdkit/internal/route"
)

// routeQueue is a queue of a route.
type routeQueue struct {
	*fdsend.Queue
	*fdsend.Sender
}

// long is how long a program that is yet to come is waited for.
const long = 10 * 365 * 24 * time.Hour

// open opens a queue. A named queue is there at once, and an inherited descriptor once
// only. A foreign program may be yet to come.
func (r *routing) open(name string, wait bool, stop <-chan struct{}) (route.Queue, error) {
	kind, _, _ := strings.Cut(name, ":")
	switch {
	case name == "":
		return nil, usagef("the name of a queue is empty")
	case kind == "fd" && wait:
		return nil, fdsend.ErrGone
	case kind == "fd" && queueFD(name) != noQueue && !inherited(queueFD(name)):
		return nil, usageHint("the shell opens it: fdkit route ... "+name[len("fd:"):]+">&...", "cannot open queue %s: it is not open", name)
	case strings.HasSuffix(kind, "-listen") && !wait:
		return nil, route.ErrAbsent
	}
	o := fdsend.Options(queueOptionsOf(r.cli, r.log))
	o.Stop = stop
	o.Notice = func(text string) { r.log.notice("queue %s: %s", name, text) }
	if wait {
		o.Wait = long
	}
	q, err := fdsend.Open(name, o)
	absent := errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.EAGAIN)
	from := r.cli.String("from")
	switch {
	case err != nil && absent && isForeign(name):
		return nil, fmt.Errorf("%w: %w", route.ErrAbsent, err)
	case err != nil:
		return nil, err
	case from != "" && (name == from || sameFile(from, name)):
		_, _ = q.Close()
		return nil, usageHint("what is sent there would be received again", "the queue of --from and of a route are both %s", name)
	}
	return routeQueue{q, q.Sender()}, nil
}
