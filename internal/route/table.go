package route

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Table tells the queue for a key. It must not be changed while others look into it.
type Table struct {
	by     *By
	exact  map[string]string
	queues []string
}

// NewTable returns an empty table for keys of that kind.
func NewTable(by *By) *Table { return &Table{by: by, exact: map[string]string{}} }

// ParseTable reads a table of lines PATTERN QUEUE. Its errors begin with name and line.
func ParseTable(r io.Reader, name string, by *By) (*Table, error) {
	t := NewTable(by)
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		pattern, queue, _ := strings.Cut(line, " ")
		if err := t.Add(pattern, strings.TrimSpace(queue)); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, n, err)
		}
	}
	return t, lines.Err()
}

// Add adds a route.
func (t *Table) Add(pattern, queue string) error {
	t.exact[pattern] = queue
	if !slices.Contains(t.queues, queue) {
		t.queues = append(t.queues, queue)
	}
	return nil
}

// Queue returns the queue for a key, or for one of the default route.
func (t *Table) Queue(key string) (queue string, ok bool) {
	if queue, ok = t.exact[key]; !ok {
		queue, ok = t.exact["*"]
	}
	return queue, ok
}

// Default returns the queue of the default route, for a connection that has no key.
func (t *Table) Default() (queue string, ok bool) {
	queue, ok = t.exact["*"]
	return queue, ok
}

// Queues returns the queues, each once, in the order of the table.
func (t *Table) Queues() []string { return slices.Clone(t.queues) }
