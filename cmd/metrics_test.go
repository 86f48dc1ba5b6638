//go:build linux

package cmd

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"fdkit/exec"
	"fdkit/fdsend"
	"fdkit/listen"
)

// parsed returns the samples of an exposition, as client_golang's own parser reads
// it. Its linter must be content too.
func parsed(t *testing.T, m *metrics) map[string]float64 {
	t.Helper()
	text := m.expose()
	problems, err := promlint.New(bytes.NewReader(text)).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v, %v\n%s", err, problems, text)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	samples := map[string]float64{}
	for name, family := range families {
		for _, metric := range family.Metric {
			key := name
			for _, label := range metric.Label {
				key += fmt.Sprintf("{%s=%q}", label.GetName(), label.GetValue())
			}
			switch {
			case metric.Counter != nil:
				samples[key] = metric.Counter.GetValue()
			case metric.Gauge != nil:
				samples[key] = metric.Gauge.GetValue()
			case metric.Histogram != nil:
				samples[key+" sum"] = metric.Histogram.GetSampleSum()
				samples[key+" count"] = float64(metric.Histogram.GetSampleCount())
				for _, b := range metric.Histogram.Bucket {
					samples[fmt.Sprintf("%s le %v", key, b.GetUpperBound())] = float64(b.GetCumulativeCount())
				}
			}
		}
	}
	return samples
}

func expectSamples(t *testing.T, m *metrics, want map[string]float64) {
	t.Helper()
	got := parsed(t, m)
	for name, value := range want {
		if v, ok := got[name]; !ok || math.Abs(v-value) > 1e-9 {
			t.Errorf("%s = %v (there: %t); want %v; all: %v", name, v, ok, value, slices.Sorted(maps.Keys(got)))
		}
	}
}

type fakeSink struct{ err error }

func (s *fakeSink) FD() int                   { return 7 }
func (s *fakeSink) Send([]byte, ...int) error { return s.err }

func TestMetricsOfListen(t *testing.T) {
	m := newMetrics(true, false)
	told := 0
	on := listen.Events{Accepted: func(*listen.Conn) { told++ }}
	m.watchAccepting(&on)
	to := &fakeSink{}
	sink := m.sink(to)
	if sink.FD() != 7 {
		t.Errorf("FD() = %d; want that of the sink, 7", sink.FD())
	}
	for range 3 {
		on.Accepted(&listen.Conn{})
		_ = sink.Send(nil)
	}
	to.err = fdsend.ErrGone
	on.Accepted(&listen.Conn{})
	if err := sink.Send(nil); err != to.err {
		t.Errorf("Send() = %v; want %v", err, to.err)
	}
	m.refused("rule")
	m.refused("rule")
	m.refused("a \"b\"\\\nc")
	queued, known := 3, true
	m.watchQueue(func() (int, bool) { return queued, known })
	expectSamples(t, m, map[string]float64{
		"fdkit_accepted_total": 4, "fdkit_sent_total": 3, "fdkit_lost_total": 1, "fdkit_queued": 3,
		`fdkit_refused_total{reason="rule"}`: 2, `fdkit_refused_total{reason="a \"b\"\\\nc"}`: 1,
	})
	if told != 4 {
		t.Errorf("Accepted was told %d times; want 4", told)
	}
	known = false
	samples := parsed(t, m)
	for _, name := range []string{"fdkit_queued", "fdkit_received_total", "fdkit_running", "fdkit_wait_seconds count"} {
		if v, ok := samples[name]; ok {
			t.Errorf("%s = %v; want none", name, v)
		}
	}
}

func TestMetricsOfPool(t *testing.T) {
	m := newMetrics(false, true)
	var failure error
	told := map[string]int{}
	pool := &exec.Pool{
		Slots:     40,
		Receivers: func() func(*exec.Connection) error { return func(*exec.Connection) error { return failure } },
		Started:   func(*exec.Run) { told["started"]++ },
		Ended:     func(*exec.Run) { told["ended"]++ },
		Trouble:   func(error) { told["trouble"]++ },
	}
	m.watchPool(pool)
	receive := pool.Receivers()
	begin := time.UnixMicro(1790000000_500000)
	for _, run := range []exec.Run{
		{Env: []string{"A=B", "FDKIT_ACCEPTED=1790000000.496000"}, Took: 2 * time.Second, Status: 0},
		{Env: []string{"FDKIT_ACCEPTED=1790000001.000000"}, Took: time.Millisecond, Status: 7 << 8}, // the clock was set back
		{Env: []string{"FDKIT_ACCEPTED=x"}, Took: 2 * time.Hour, Status: syscall.WaitStatus(syscall.SIGKILL)},
		{Took: 0, Status: 7 << 8},
	} {
		if err := receive(nil); err != nil {
			t.Fatal(err)
		}
		run.Begin = begin
		pool.Started(&run)
		pool.Ended(&run)
	}
	failure = errors.New("ended")
	if err := receive(nil); err != failure {
		t.Errorf("receive() = %v; want %v", err, failure)
	}
	pool.Trouble(&exec.LostError{Err: errors.New("cannot run ./x")})
	pool.Trouble(errors.New("cannot start ./x yet"))
	expectSamples(t, m, map[string]float64{
		"fdkit_received_total": 4, "fdkit_lost_total": 1, "fdkit_running": 0, "fdkit_slots": 40,
		"fdkit_wait_seconds count": 2, "fdkit_wait_seconds sum": 0.004, "fdkit_wait_seconds le 0.001": 1, "fdkit_wait_seconds le 0.005": 2, "fdkit_wait_seconds le +Inf": 2,
		"fdkit_run_seconds count": 4, "fdkit_run_seconds sum": 7202.001, "fdkit_run_seconds le 0.001": 2, "fdkit_run_seconds le 3600": 3,
		`fdkit_exits_total{status="exit 0"}`: 1, `fdkit_exits_total{status="exit 7"}`: 2, `fdkit_exits_total{status="SIGKILL"}`: 1,
	})
	if told["started"] != 4 || told["ended"] != 4 || told["trouble"] != 2 {
		t.Errorf("the pool's own functions were told %v; want 4, 4 and 2", told)
	}
}

// A real-time signal has no name of its own, and the highest is 64.
func TestMetricsOfSignals(t *testing.T) {
	m := newMetrics(false, true)
	m.countExit(34)
	m.countExit(64)
	m.countExit(syscall.WaitStatus(syscall.SIGSEGV) | 0x80) // with a core dump
	expectSamples(t, m, map[string]float64{
		`fdkit_exits_total{status="signal 34"}`: 1, `fdkit_exits_total{status="signal 64"}`: 1, `fdkit_exits_total{status="SIGSEGV"}`: 1,
	})
}

// Without the option nothing is counted, and nothing stands between.
func TestMetricsOfNobody(t *testing.T) {
	var m *metrics
	to := &fakeSink{}
	if sink := m.sink(to); sink != to {
		t.Errorf("sink() = %v; want the sink itself", sink)
	}
	var on listen.Events
	if m.watchAccepting(&on); on.Accepted != nil {
		t.Error("watchAccepting has set Accepted")
	}
	var pool exec.Pool
	if m.watchPool(&pool); pool.Receivers != nil || pool.Started != nil || pool.Ended != nil || pool.Trouble != nil {
		t.Error("watchPool has changed the pool")
	}
	m.watchQueue(nil)
	m.refused("rule")
	m.Close()
}

func TestMetricsAllocateNothing(t *testing.T) {
	m := newMetrics(true, true)
	var on listen.Events
	m.watchAccepting(&on)
	pool := &exec.Pool{Receivers: func() func(*exec.Connection) error { return func(*exec.Connection) error { return nil } }}
	m.watchPool(pool)
	receive, sink := pool.Receivers(), m.sink(&fakeSink{})
	run := exec.Run{Env: []string{"FDKIT_ACCEPTED=1790000000.496000"}, Begin: time.Now(), Took: time.Second, Status: 7 << 8}
	fds := []int{7}
	m.refused("rule")
	if n := testing.AllocsPerRun(100, func() {
		on.Accepted(nil)
		_ = sink.Send(nil, fds...)
		m.refused("rule")
		_ = receive(nil)
		pool.Started(&run)
		pool.Ended(&run)
	}); n != 0 {
		t.Errorf("counting one connection allocates %v times; want 0", n)
	}
}

// TestManMetrics holds that fdkit(1) lists all metrics, and no others.
func TestManMetrics(t *testing.T) {
	page, err := os.ReadFile("../man/fdkit.1")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n.Sh METRICS\n")
	section, _, _ = strings.Cut(section, "\n.Sh ")
	exposed := ""
	for _, command := range []struct{ accepts, runs bool }{{true, false}, {false, true}, {true, true}} {
		m := newMetrics(command.accepts, command.runs)
		m.watchQueue(func() (int, bool) { return 0, true })
		m.watchPool(&exec.Pool{})
		exposed += string(m.expose())
	}
	for _, found := range regexp.MustCompile(`(?m)^# TYPE (\S+)`).FindAllStringSubmatch(exposed, -1) {
		if !strings.Contains(section, "\n.It Li "+found[1]+"\n") {
			t.Errorf("man/fdkit.1 does not list %s as .It Li %[1]s", found[1])
		}
	}
	for _, listed := range regexp.MustCompile(`(?m)^\.It Li (\S+)`).FindAllStringSubmatch(section, -1) {
		if !strings.Contains(exposed, "# TYPE "+listed[1]+" ") {
			t.Errorf("man/fdkit.1 lists %s, which does not exist", listed[1])
		}
	}
}

func BenchmarkMetrics(b *testing.B) {
	m := newMetrics(true, true)
	pool := &exec.Pool{}
	m.watchPool(pool)
	env := strings.Split(strings.Repeat("SOMETHING=like this,", 40)+"FDKIT_ACCEPTED=1790000000.496000", ",")
	run := exec.Run{Env: env, Begin: time.Now(), Took: time.Second, Status: 7 << 8}
	for b.Loop() {
		pool.Started(&run)
		pool.Ended(&run)
	}
}
