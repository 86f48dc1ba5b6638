//go:build linux

package route

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
)

// retirement has the queues that no route has any more, until they are empty.
type retirement struct {
	group sync.WaitGroup
	ctx   context.Context
	end   context.CancelFunc
	mu    sync.Mutex
	lost  int
}

// SetTable makes that the table, and opens its queues. If one cannot be opened, that is
// the error, and the table stays as it was. Programs who are yet to come are waited for
// afterwards. It ends when stop is closed. One goroutine at a time may call it.
func (r *Router) SetTable(table *Table, stop <-chan struct{}) error {
	names := table.Queues()
	if r.Silent != "" {
		names = append(names, r.Silent)
	}
	opened := map[string]*target{}
	giveUp := func() {
		for _, t := range opened {
			if t.queue != nil {
				_, _ = t.queue.Close()
			}
		}
	}
	do := r.ask
	if r.targets == nil { // before Run
		r.targets, r.polled, r.pausing = map[string]*target{}, map[int32]*target{}, map[*target]struct{}{}
		r.retired.ctx, r.retired.end = context.WithCancel(context.Background())
		do = func(f func()) bool {
			f()
			return true
		}
	}
	for {
		var missing []string
		running := do(func() {
			for _, name := range names {
				if r.targets[name] == nil && opened[name] == nil && !slices.Contains(missing, name) {
					missing = append(missing, name)
				}
			}
			if missing == nil {
				r.install(table, opened)
			}
		})
		if !running {
			giveUp()
		}
		if !running || missing == nil {
			return nil
		}
		for _, name := range missing {
			queue, err := r.Open(name, false, stop)
			switch {
			case err == nil:
				opened[name] = newTarget(name, queue)
			case errors.Is(err, ErrAbsent):
				opened[name] = newTarget(name, nil)
			default:
				giveUp()
				return err
			}
		}
	}
}

func newTarget(name string, queue Queue) *target {
	return &target{name: name, queue: queue, over: make(chan struct{})}
}

// install goes by another table, whose further queues were opened.
func (r *Router) install(table *Table, opened map[string]*target) {
	r.table = table
	for name, t := range opened {
		r.targets[name] = t
		if t.queue == nil {
			r.reopen(t)
		} else {
			r.attach(t, t.queue)
		}
	}
	named := map[string]bool{r.Silent: true}
	for _, name := range table.Queues() {
		named[name] = true
	}
	for _, t := range r.targets {
		t.dropped = !named[t.name]
		r.retire(t)
	}
}

// retire gives up a queue that no route has, and that nothing waits for. It is closed when
// what was sent to it is received.
func (r *Router) retire(t *target) {
	if !t.dropped || len(t.waiting) > 0 || r.targets[t.name] != t {
		return
	}
	delete(r.targets, t.name)
	close(t.over)
	queue := t.queue
	if queue == nil {
		return
	}
	r.poll(t, false)
	close(t.closed)
	t.queue = nil
	r.retired.group.Go(func() {
		_ = queue.Drain(r.retired.ctx)
		lost, _ := queue.Close()
		r.retired.mu.Lock()
		r.retired.lost += lost
		r.retired.mu.Unlock()
	})
}

// Drain waits, after Run, until what was sent is received, or safe with others, or until
// ctx ends.
func (r *Router) Drain(ctx context.Context) {
	for _, t := range r.targets {
		if t.queue != nil {
			_ = t.queue.Drain(ctx)
		}
	}
	retired := make(chan struct{})
	go func() {
		r.retired.group.Wait()
		close(retired)
	}()
	select {
	case <-retired:
	case <-ctx.Done():
	}
}

// Close gives up all queues, after Run. It returns how many messages in them were lost.
func (r *Router) Close() (lost int, err error) {
	for _, t := range r.targets {
		close(t.over)
		if t.queue != nil {
			close(t.closed)
			n, closeErr := t.queue.Close()
			lost += n
			err = errors.Join(err, closeErr)
		}
	}
	r.targets = nil
	r.retired.end()
	r.retired.group.Wait()
	return lost + r.retired.lost, err
}

// Status is what a Router does.
type Status struct {
	Keyless int // clients that wait for their key
	Queues  []QueueStatus
}

// QueueStatus is that of one queue.
type QueueStatus struct {
	Name    string
	Sent    int // connections
	Waiting int // connections
	Absent  bool
}

// Status returns what the Router does, while it runs.
func (r *Router) Status() (s Status) {
	r.ask(func() {
		s.Keyless = r.arrivals.Len()
		for _, t := range r.targets {
			s.Queues = append(s.Queues, QueueStatus{t.name, t.sent, len(t.waiting), t.queue == nil})
		}
	})
	slices.SortFunc(s.Queues, func(a, b QueueStatus) int { return strings.Compare(a.Name, b.Name) })
	return s
}
