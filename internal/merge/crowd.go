//go:build linux

package merge

import "time"

// crowd is how unfinished frames share memory. While they take more than MaxHeld bytes, a
// client that has more than a little waits, but one: that with the most. It may go on, as
// the end of its frame is what makes room. If it does not come to that in time, it is
// closed, and the next one has the most. So memory is bounded by MaxHeld and the longest
// frame, and a little for each client; short frames pass all the while; and clients that
// hold memory and send nothing keep no others out.
type crowd struct {
	held     int // bytes
	stalled  []*Client
	first    *Client   // that may go on; nil: none is chosen
	deadline time.Time // for it
}

const aLittle = 4 << 10 // bytes

// grace is how long the client with the most may keep others waiting; not a constant for
// tests.
var grace = 5 * time.Second

// room returns how much a client may send in its turn. If that is nothing, the client
// has its next turn when there is room.
func (m *Merger) room(c *Client) int {
	switch {
	case m.held < m.MaxHeld:
		return len(m.in)
	case len(c.stream.rest) <= aLittle:
		return aLittle
	case m.first == nil:
		for _, other := range m.clients {
			if other != nil && (m.first == nil || len(other.stream.rest) > len(m.first.stream.rest)) {
				m.first = other
			}
		}
		m.deadline = time.Now().Add(grace)
		m.resume() // also the one that was chosen
	}
	if c == m.first {
		return len(m.in)
	}
	c.stalled = true
	m.stalled = append(m.stalled, c)
	return 0
}

// account enters that a client holds so many bytes more, and that its frame is over.
func (m *Merger) account(c *Client, more int, over bool) {
	m.held += more
	if c == m.first && over || m.held < m.MaxHeld {
		m.first = nil
		m.resume()
	}
}

// resume lets those who wait see again whether there is room.
func (m *Merger) resume() {
	for i, c := range m.stalled {
		m.stalled[i] = nil
		c.stalled = false
		m.enqueue(c)
	}
	m.stalled = m.stalled[:0]
}

// patience returns how long those who wait do so at most, -1 if nobody does.
func (m *Merger) patience() time.Duration {
	if m.first == nil || len(m.stalled) == 0 {
		return -1
	}
	return max(0, time.Until(m.deadline))
}

// relieve closes the client that has kept others waiting for too long.
func (m *Merger) relieve() {
	if m.patience() == 0 {
		m.drop(m.first, errCrowded)
	}
}
