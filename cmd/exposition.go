//go:build linux

package cmd

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// exposition is a text in the exposition format of Prometheus, version 0.0.4:
// https://prometheus.io/docs/instrumenting/exposition_formats/. Its library,
// client_golang, would make each start of fdkit more than a third slower, also that of
// commands that have no metrics; tests hold the text to its parser.
type exposition struct{ text []byte }

// family begins a metric; its samples follow.
func (e *exposition) family(name, kind, help string) {
	e.text = append(e.text, "# HELP "+name+" "+help+"\n# TYPE "+name+" "+kind+"\n"...)
}

// sample adds a sample, with one label unless label is empty.
func (e *exposition) sample(name, label, labelValue string, value float64) {
	e.text = append(e.text, name...)
	if label != "" {
		e.text = append(e.text, "{"+label+`="`+labelEscape.Replace(labelValue)+`"}`...)
	}
	e.text = strconv.AppendFloat(append(e.text, ' '), value, 'g', -1, 64)
	e.text = append(e.text, '\n')
}

var labelEscape = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// samples adds counters by the value of a label.
func (e *exposition) samples(name, label string, counts map[string]int64) {
	for _, value := range slices.Sorted(maps.Keys(counts)) {
		e.sample(name, label, value, float64(counts[value]))
	}
}

// one adds a metric that has one sample.
func (e *exposition) one(name, kind, help string, value int64) {
	e.family(name, kind, help)
	e.sample(name, "", "", float64(value))
}

func (e *exposition) histogram(name, help string, h *histogram) {
	e.family(name, "histogram", help)
	h.mu.Lock()
	counts, seconds := h.counts, h.sum
	h.mu.Unlock()
	var n int64
	for i, count := range counts[:len(h.bounds)+1] {
		bound := math.Inf(1)
		if i < len(h.bounds) {
			bound = h.bounds[i].Seconds()
		}
		n += count
		e.sample(name+"_bucket", "le", strconv.FormatFloat(bound, 'g', -1, 64), float64(n))
	}
	e.sample(name+"_sum", "", "", seconds)
	e.sample(name+"_count", "", "", float64(n))
}

// expose returns what the metrics are now.
func (m *metrics) expose() []byte {
	var e exposition
	m.mu.Lock()
	refusals, limits, waiting, running, slots := maps.Clone(m.refusals), maps.Clone(m.limits), m.waiting, m.running, m.slots
	m.mu.Unlock()
	if m.accepts {
		e.one("fdkit_accepted_total", "counter", "Connections accepted and let in.", m.accepted.Load())
	}
	if !m.accepts {
		e.one("fdkit_received_total", "counter", "Connections received from the queue.", m.received.Load())
	}
	e.family("fdkit_refused_total", "counter", "Connections turned away by a rule or limit.")
	e.samples("fdkit_refused_total", "reason", refusals)
	if !m.runs {
		e.one("fdkit_sent_total", "counter", "Connections sent to the queue.", m.sent.Load())
	}
	e.one("fdkit_lost_total", "counter", "Connections closed because they could not be passed on or served.", m.lost.Load())
	if waiting != nil {
		if n, ok := waiting(); ok {
			e.one("fdkit_queued", "gauge", "Descriptors in the queue now, one for each connection.", int64(n))
		}
	}
	if m.runs {
		m.exposePrograms(&e, running, slots)
		e.family("fdkit_limited_total", "counter", "Programs that were ended because a limit of time was reached.")
		e.samples("fdkit_limited_total", "limit", limits)
	}
	return e.text
}

func (m *metrics) exposePrograms(e *exposition, running func() int, slots int) {
	if running != nil {
		e.one("fdkit_running", "gauge", "Programs running now.", int64(running()))
		e.one("fdkit_slots", "gauge", "Programs that may run at once.", int64(slots))
	}
	e.histogram("fdkit_wait_seconds", "Time from accepting a connection to starting its program.", &m.waits)
	e.histogram("fdkit_run_seconds", "Time that programs have run.", &m.runtimes)
	e.family("fdkit_exits_total", "counter", "Programs that have ended, by exit status or signal.")
	for status := range m.statuses {
		if n := m.statuses[status].Load(); n > 0 {
			e.sample("fdkit_exits_total", "status", "exit "+strconv.Itoa(status), float64(n))
		}
	}
	for sig := range m.signals {
		if n := m.signals[sig].Load(); n > 0 {
			e.sample("fdkit_exits_total", "status", signalName(syscall.Signal(sig)), float64(n))
		}
	}
}
