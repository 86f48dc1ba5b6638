//go:build linux

package exec

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
)

func TestSourceOf(t *testing.T) {
	uid := strconv.Itoa(os.Geteuid())
	unixEnd, _ := fdtest.Pair(t, unix.SOCK_STREAM)
	_, tcp := fdtest.TCPPair(t)
	pipe, _ := fdtest.Pipe(t)
	for _, test := range []struct {
		v4, v6  int
		fd      int
		payload string // with | for NUL
		want    string
	}{
		{0, 0, pipe.FD, "FDKIT=1|TCPREMOTEIP=192.0.2.7|", "192.0.2.7"},
		{32, 64, pipe.FD, "FDKIT=1|TCPREMOTEIP=192.0.2.7|", "192.0.2.7"},
		{24, 64, pipe.FD, "FDKIT=1|TCPREMOTEIP=192.0.2.7|", "192.0.2.0"},
		{24, 64, pipe.FD, "FDKIT=1|TCPREMOTEIP=::ffff:192.0.2.7|", "192.0.2.0"},
		{1, 64, pipe.FD, "FDKIT=1|TCPREMOTEIP=192.0.2.7|", "128.0.0.0"},
		{0, 0, pipe.FD, "FDKIT=1|TCPREMOTEIP=2001:db8:1:2:3:4:5:6|", "2001:db8:1:2::"},
		{32, 56, pipe.FD, "FDKIT=1|TCPREMOTEIP=2001:db8:1:2ff:3:4:5:6|", "2001:db8:1:200::"},
		{32, 128, pipe.FD, "FDKIT=1|TCPREMOTEIP=2001:db8::6|", "2001:db8::6"},
		{32, 64, pipe.FD, "FDKIT=1|TCPREMOTEIP=fe80::1%2|", "fe80::1%2"},
		{32, 64, pipe.FD, "FDKIT=1|TCPREMOTEIP=2001:db8::6%eth0|", "2001:db8::"},
		{32, 64, pipe.FD, "FDKIT=1|UNIXREMOTEEUID=1000|", "uid 1000"},
		{32, 64, pipe.FD, "FDKIT=1|UNIXREMOTEEUID=0|", "uid 0"},
		{32, 64, pipe.FD, "FDKIT=1|UNIXREMOTEEUID=-1|", "unknown"},
		{32, 64, pipe.FD, "FDKIT=1|TCPREMOTEIP=nobody|UNIXREMOTEEUID=5|", "uid 5"},
		{32, 64, pipe.FD, "FDKIT=1|TCPREMOTEIP=192.0.2.7|TCPREMOTEIP=192.0.2.8|", "192.0.2.7"},
		// Variables that came with it tell all: the socket may be a proxy's.
		{32, 64, tcp.FD, "FDKIT=1|TCPREMOTEIP=192.0.2.7|", "192.0.2.7"},
		{32, 64, tcp.FD, "FDKIT=1|PROTO=TCP|", "unknown"},
		{32, 64, tcp.FD, "", "127.0.0.1"},
		{8, 64, tcp.FD, "x", "127.0.0.0"},
		{32, 64, unixEnd.FD, "x", "uid " + uid},
		{32, 64, pipe.FD, "x", "unknown"},
	} {
		limit := SourceLimit{N: 1, IPv4Bits: test.v4, IPv6Bits: test.v6}
		s := limit.sourceOf(test.fd, []byte(strings.ReplaceAll(test.payload, "|", "\x00")))
		got := s.network.String()
		if s.user {
			got = "uid " + strconv.Itoa(int(s.uid))
		} else if !s.known() {
			got = "unknown"
		}
		if got != test.want {
			t.Errorf("SourceLimit{1, %d, %d}.sourceOf(%q) = %s, want %s", test.v4, test.v6, test.payload, got, test.want)
		}
	}
}

func TestEnter(t *testing.T) {
	p := &Pool{PerSource: SourceLimit{N: 2}, sources: map[source]int{}}
	a, b := source{user: true, uid: 1}, source{user: true, uid: 2}
	for i, test := range []struct {
		enter bool
		s     source
		want  bool
	}{
		{true, a, true},
		{true, a, true},
		{true, a, false},
		{true, b, true},
		{true, source{}, true},
		{true, source{}, true},
		{true, source{}, true},
		{false, source{}, true},
		{false, a, true},
		{true, a, true},
		{true, a, false},
		{false, a, true},
		{false, a, true},
		{false, b, true},
	} {
		if !test.enter {
			p.leave(test.s)
		} else if got := p.enter(test.s); got != test.want {
			t.Errorf("step %d: enter(%v) = %t, want %t", i, test.s, got, test.want)
		}
	}
	if len(p.sources) != 0 {
		t.Errorf("all have left, and the pool still knows %v", p.sources)
	}
}

// Without options for it no connection costs more than without limits.
func TestAdmitAllocatesNothing(t *testing.T) {
	r, _ := fdtest.Pipe(t)
	p := &Pool{sources: map[source]int{}}
	c := &Connection{FDs: []int{r.FD}, Payload: []byte("FDKIT=1\x00TCPREMOTEIP=192.0.2.7\x00")}
	if n := testing.AllocsPerRun(100, func() {
		s, ok := p.admit(c)
		if !ok || p.watchFor(r.FD, s) != nil {
			t.Error("a pool without limits limits")
		}
	}); n != 0 {
		t.Errorf("%v allocations for a connection, want none", n)
	}
}
