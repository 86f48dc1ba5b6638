//go:build linux

package listen

import (
	"math"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdinfo"
	"fdkit/internal/hint"
)

func TestParseRate(t *testing.T) {
	for _, test := range []struct {
		text  string
		want  float64
		burst int
	}{
		{"1/s", 1, 1},
		{"100/s", 100, 100},
		{"0.5/s", 0.5, 1},
		{".5/s", 0.5, 1},
		{"2.7/s", 2.7, 2},
		{"30/m", 0.5, 1},
		{"1000/m", 1000.0 / 60, 16},
		{"1/h", 1.0 / 3600, 1},
		{"1000000/s", 1e6, 1e6},
	} {
		got, err := ParseRate(test.text)
		if err != nil || math.Abs(got.PerSecond-test.want) > 1e-9 || got.burst() != test.burst {
			t.Errorf("ParseRate(%q) = %+v (burst %d), %v; want %v (burst %d), nil", test.text, got, got.burst(), err, test.want, test.burst)
		}
	}
	for _, test := range []struct{ text, want, hint string }{
		{"", `"" is no rate such as 100/s, 30/m or 0.5/s`, ""},
		{"/s", "is no rate", ""},
		{"x/s", "is no rate", ""},
		{"0/s", "is no rate", ""},
		{"-1/s", "is no rate", ""},
		{"1e3/s", "is no rate", ""},
		{"0x10/s", "is no rate", ""},
		{"inf/s", "is no rate", ""},
		{"NaN/s", "is no rate", ""},
		{"1_0/s", "is no rate", ""},
		{"1.2.3/s", "is no rate", ""},
		{"100", `"100" is a rate without a unit`, "100/s is 100 a second, 100/m a minute, 100/h an hour"},
		{"100/d", `"100/d" has no unit of time`, "the units are s, m and h"},
		{"100/", "has no unit of time", "s, m and h"},
		{"100/s/s", "has no unit of time", "s, m and h"},
		{"1000001/s", `"1000001/s" is more than 1000000/s`, ""},
	} {
		got, err := ParseRate(test.text)
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(hint.Of(err), test.hint) || (hint.Of(err) == "") != (test.hint == "") {
			t.Errorf("ParseRate(%q) = %+v, %v (hint %q); want an error that says %q (hint %q)", test.text, got, err, hint.Of(err), test.want, test.hint)
		}
	}
}

func TestNoRates(t *testing.T) {
	if s, l := newSourceRates(Rates{}), (Rate{}).limiter(); s != nil || l != nil {
		t.Errorf("without a limit there are %v and %v, want nil", s, l)
	}
}

func from(address string) fdinfo.Conn {
	return fdinfo.Conn{Remote: fdinfo.Address{IP: netip.MustParseAddrPort(address)}}
}

func fromUser(uid uint32) fdinfo.Conn {
	return fdinfo.Conn{Local: fdinfo.Address{Unix: true}, Remote: fdinfo.Address{Unix: true}, Peer: &unix.Ucred{Uid: uid}}
}

func TestSources(t *testing.T) {
	nobody := fdinfo.Conn{Local: fdinfo.Address{Unix: true}, Remote: fdinfo.Address{Unix: true}}
	for _, test := range []struct {
		prefix4, prefix6 int
		a, b             fdinfo.Conn
		same             bool
	}{
		{0, 0, from("192.0.2.1:1"), from("192.0.2.1:2"), true},
		{0, 0, from("192.0.2.1:1"), from("192.0.2.2:1"), false},
		{0, 0, from("192.0.2.1:1"), from("[::ffff:192.0.2.1]:1"), true},
		{24, 0, from("192.0.2.1:1"), from("192.0.2.255:1"), true},
		{24, 0, from("192.0.2.1:1"), from("192.0.3.1:1"), false},
		{0, 0, from("[2001:db8::1]:1"), from("[2001:db8::ffff:0:0:1]:1"), true},
		{0, 0, from("[2001:db8::1]:1"), from("[2001:db8:0:1::1]:1"), false},
		{0, 48, from("[2001:db8::1]:1"), from("[2001:db8:0:1::1]:1"), true},
		{0, 128, from("[2001:db8::1]:1"), from("[2001:db8::2]:1"), false},
		{0, 0, from("[fe80::1%1]:1"), from("[fe80::1%2]:1"), true},
		{0, 0, from("0.0.0.0:1"), from("[::]:1"), false},
		{0, 0, fromUser(0), fromUser(0), true},
		{0, 0, fromUser(0), fromUser(1), false},
		{0, 0, fromUser(0), nobody, false},
		{0, 0, nobody, fdinfo.Conn{}, true},
		{0, 0, fdinfo.Conn{}, from("0.0.0.0:1"), false},
	} {
		s := newSourceRates(Rates{Source: Rate{PerSecond: 1}, Prefix4: test.prefix4, Prefix6: test.prefix6})
		if a, b := s.source(test.a), s.source(test.b); (a == b) != test.same {
			t.Errorf("with prefixes %d and %d the sources of %v and %v are %+v and %+v, the same: %v; want %v",
				test.prefix4, test.prefix6, test.a, test.b, a, b, a == b, test.same)
		}
	}
}

func TestReserve(t *testing.T) {
	begin := time.Now()
	at := func(seconds float64) time.Time { return begin.Add(time.Duration(seconds * float64(time.Second))) }
	type step struct {
		at    float64 // seconds
		src   string
		ahead float64 // seconds
		want  float64 // seconds to be held; -1: refused
	}
	const a, b, c = "192.0.2.1:1", "192.0.2.2:1", "[2001:db8::1]:1"
	for _, test := range []struct {
		about string
		rate  Rate
		steps []step
	}{
		{"a burst and then the rate", Rate{PerSecond: 2, Burst: 3}, []step{
			{0, a, 60, 0}, {0, a, 60, 0}, {0, a, 60, 0}, {0, a, 60, 0.5}, {0, a, 60, 1}, {0.25, a, 60, 1.25},
		}},
		{"sources are apart", Rate{PerSecond: 1, Burst: 1}, []step{
			{0, a, 60, 0}, {0, b, 60, 0}, {0, c, 60, 0}, {0, a, 60, 1}, {0, b, 60, 1},
		}},
		{"what is refused does not count", Rate{PerSecond: 1, Burst: 1}, []step{
			{0, a, 0, 0}, {0, a, 0, -1}, {0.5, a, 0, -1}, {0.9, a, 0, -1}, {1, a, 0, 0}, {1, a, 0, -1}, {1.5, a, 0.4, -1}, {1.5, a, 0.5, 0.5}, {2, a, 0, -1}, {3, a, 0, 0},
		}},
		{"nobody is held for longer than ten seconds", Rate{PerSecond: 0.2, Burst: 1}, []step{
			{0, a, 60, 0}, {0, a, 60, 5}, {0, a, 60, 10}, {0, a, 60, -1}, {0, a, 60, -1}, {4, a, 60, -1}, {5, a, 60, 10},
		}},
		{"it heals", Rate{PerSecond: 1, Burst: 2}, []step{
			{0, a, 0, 0}, {0, a, 0, 0}, {0, a, 0, -1}, {3600, a, 0, 0}, {3600, a, 0, 0}, {3600, a, 0, -1},
		}},
		{"generations pass while a source goes on", Rate{PerSecond: 1, Burst: 1}, []step{
			{0, a, 0, 0}, {10.9, a, 60, 0}, {11, a, 60, 0.9}, {11, a, 60, 1.9}, {11.5, b, 60, 0}, {22.1, b, 60, 0}, {22.1, a, 60, 0}, {22.2, a, 0, -1},
		}},
		{"the clock stands still", Rate{PerSecond: 1, Burst: 1}, []step{{5, a, 0, 0}, {5, a, 0, -1}, {4, a, 0, -1}, {6, a, 0, 0}}},
	} {
		t.Run(test.about, func(t *testing.T) {
			s := newSourceRates(Rates{Source: test.rate})
			for i, step := range test.steps {
				delay, ok := s.reserve(s.source(from(step.src)), at(step.at), time.Duration(step.ahead*float64(time.Second)))
				got := delay.Seconds()
				if !ok {
					got = -1
				}
				if math.Abs(got-step.want) > 1e-6 {
					t.Errorf("step %d, %+v: reserve = %v, %v; want %v s", i, step, delay, ok, step.want)
				}
			}
		})
	}
}

// numbered returns the source of number i.
func numbered(s *sourceRates, i int) source {
	ip := netip.AddrFrom4([4]byte{byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)})
	return s.source(fdinfo.Conn{Remote: fdinfo.Address{IP: netip.AddrPortFrom(ip, 1)}})
}

// TestSourcesAreBounded floods with a million sources. Meanwhile one that goes on has
// no more than its rate, and one that keeps it is let through.
func TestSourcesAreBounded(t *testing.T) {
	const million = 1_000_000
	s := newSourceRates(Rates{Source: Rate{PerSecond: 1, Burst: 1}})
	greedy, modest := s.source(fromUser(1)), s.source(fromUser(2))
	begin := time.Now()
	var most, let, refused int
	for i := range million { // 10 µs apart: 10 s
		now := begin.Add(time.Duration(i) * 10 * time.Microsecond)
		if _, ok := s.reserve(numbered(s, i), now, 0); !ok {
			t.Fatalf("source %d is refused", i)
		}
		if i%100 == 0 {
			if _, ok := s.reserve(greedy, now, 0); ok {
				let++
			}
		}
		if i%110_000 == 0 {
			if _, ok := s.reserve(modest, now, 0); !ok {
				refused++
			}
		}
		most = max(most, len(s.young)+len(s.old))
	}
	if most > maxSources+2 {
		t.Errorf("%d sources are remembered, want at most %d", most, maxSources)
	}
	if let > 11 || refused > 0 {
		t.Errorf("in 10 s, at 1/s, %d connections of a source that goes on are let through, and %d refused of one with one in 1.1 s; want 10 and 0", let, refused)
	}
	// When the flood is over it is forgotten.
	later := begin.Add(time.Hour)
	s.reserve(greedy, later, 0)
	s.reserve(greedy, later.Add(time.Hour), 0)
	if n := len(s.young) + len(s.old); n > 2 {
		t.Errorf("%d sources are remembered an hour after the flood, want 2 at most", n)
	}
}

func TestMemoryOfSources(t *testing.T) {
	s := newSourceRates(Rates{Source: Rate{PerSecond: 1, Burst: 1}})
	heap := func() int {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	before, now := heap(), time.Now()
	for i := range 300_000 {
		s.reserve(numbered(s, i), now, 0)
	}
	if used := heap() - before; used > 32<<20 {
		t.Errorf("the sources take %d bytes, want at most 32 MiB", used)
	}
	runtime.KeepAlive(s)
}

func TestAllocationsOfReserve(t *testing.T) {
	s := newSourceRates(Rates{Source: Rate{PerSecond: 1, Burst: 1}})
	conn, now := from("[2001:db8::1]:1"), time.Now()
	s.reserve(s.source(conn), now, 0)
	if n := testing.AllocsPerRun(1000, func() { s.reserve(s.source(conn), now, 0) }); n != 0 {
		t.Errorf("reserve for a known source allocates %v times, want 0", n)
	}
}

func TestReserveAtOnce(t *testing.T) {
	s := newSourceRates(Rates{Source: Rate{PerSecond: 1, Burst: 100}})
	var group sync.WaitGroup
	var mu sync.Mutex
	let := 0
	now := time.Now()
	for range 8 {
		group.Go(func() {
			for i := range 1000 {
				s.reserve(numbered(s, i), now, 0)
				if _, ok := s.reserve(source{}, now, 0); ok {
					mu.Lock()
					let++
					mu.Unlock()
				}
			}
		})
	}
	group.Wait()
	if let != 100 {
		t.Errorf("%d connections are let through at once, want 100", let)
	}
}
