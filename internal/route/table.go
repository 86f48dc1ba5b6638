package route

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"fdkit/internal/hint"
)

// maxLine is how long a line of a table may be, in bytes: a pattern and a path.
const maxLine = 8 << 10

// Table tells the queue for a key. It may be used by several goroutines at once, unless
// it is being added to.
type Table struct {
	patterns   patterns
	otherwise  string
	hasDefault bool
	queues     []string
	known      map[string]bool // the queues
}

// patterns are those of one way to route.
type patterns interface {
	// add adds a pattern that is not the default's. It returns the queue that the same
	// pattern has already, and leaves it.
	add(pattern, queue string) (earlier string, err error)
	// queue returns the queue of the pattern that fits best.
	queue(key string) (queue string, ok bool)
}

// NewTable returns an empty table for keys that By finds.
func NewTable(by *By) *Table {
	return &Table{patterns: by.patterns(by), known: map[string]bool{}}
}

// ParseTable reads a table of lines PATTERN QUEUE. The queue is the rest of the line, so
// it may have blanks in it. Empty lines and those that begin with # are passed over.
// Errors begin with the name and, if it is one line's, its number.
func ParseTable(r io.Reader, name string, by *By) (*Table, error) {
	t := NewTable(by)
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	n := 0
	for lines.Scan() {
		n++
		if n == 1 && strings.HasPrefix(lines.Text(), "\ufeff") {
			return nil, hint.Wrap(fmt.Errorf("%s:1: the file begins with a byte order mark", name), "save it as UTF-8 without one; a pattern can begin with %EF%BB%BF")
		}
		if err := t.addLine(strings.Trim(lines.Text(), " \t")); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, n, err)
		}
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return nil, fmt.Errorf("%s:%d: the line has more than %d bytes", name, n+1, maxLine)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", name, err)
	case len(t.queues) == 0:
		return nil, hint.Wrap(fmt.Errorf("%s: there is no route in it", name), "a line * QUEUE sends every connection to QUEUE")
	}
	return t, nil
}

func (t *Table) addLine(line string) error {
	if line == "" || line[0] == '#' {
		return nil
	}
	end := strings.IndexAny(line, " \t")
	if end < 0 {
		return hint.Wrap(fmt.Errorf("%q has no queue", line), "a line is PATTERN QUEUE; a blank in a pattern is written %20")
	}
	queue := strings.TrimLeft(line[end:], " \t")
	if queue[0] == '#' || strings.Contains(queue, " #") || strings.Contains(queue, "\t#") {
		return hint.Wrap(fmt.Errorf("there is a comment behind %q", line[:end]), "comments have a line of their own")
	}
	return t.Add(line[:end], queue)
}

// Add adds the route of a pattern.
func (t *Table) Add(pattern, queue string) error {
	switch {
	case pattern == "":
		return hint.Wrap(errors.New("the pattern is empty"), "% stands for the empty key, * for every other")
	case queue == "":
		return fmt.Errorf("%q has no queue", pattern)
	case strings.Contains(queue, "\x00"):
		return fmt.Errorf("the queue %q has a zero byte in it", queue)
	}
	var earlier string
	var err error
	switch {
	case pattern != "*":
		earlier, err = t.patterns.add(pattern, queue)
	case t.hasDefault:
		earlier = t.otherwise
	default:
		t.otherwise, t.hasDefault = queue, true
	}
	switch {
	case err != nil:
		return err
	case earlier != "":
		return fmt.Errorf("%q is there already, for %s", pattern, earlier)
	case !t.known[queue]:
		t.known[queue] = true
		t.queues = append(t.queues, queue)
	}
	return nil
}

// Queue returns the queue for a key, which is that of the default route if no other
// pattern fits.
func (t *Table) Queue(key string) (queue string, ok bool) {
	if queue, ok := t.patterns.queue(key); ok {
		return queue, true
	}
	return t.Default()
}

// Default returns the queue of the default route, for a connection that has no key.
func (t *Table) Default() (queue string, ok bool) { return t.otherwise, t.hasDefault }

// Queues returns the queues, each once, in the order of the table.
func (t *Table) Queues() []string { return slices.Clone(t.queues) }

// keep adds a pattern to a map, or returns the queue that it has there.
func keep[P comparable](m map[P]string, pattern P, queue string) (earlier string) {
	if earlier, ok := m[pattern]; ok {
		return earlier
	}
	m[pattern] = queue
	return ""
}
