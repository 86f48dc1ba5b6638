//go:build linux

package listen

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"fdkit/internal/fdinfo"
	"fdkit/internal/hint"
)

// Default widths, in bits, of the prefixes whose addresses count as one source: an
// IPv4 address is a source of its own, and so is an IPv6 network of the size that one
// customer has (RFC 6177), who can use all addresses of it.
const (
	DefaultPrefix4 = 32
	DefaultPrefix6 = 64
)

// Rates limit how many connections are let through. The zero value does not.
type Rates struct {
	Overall Rate // of all sources together
	Source  Rate // of each source
	// Prefix4 and Prefix6 say how many leading bits make addresses one source; 0
	// stands for the defaults. Unix clients of one user are one source.
	Prefix4, Prefix6 int
	// Refuse closes what comes too early, instead of letting it wait.
	Refuse bool
}

// Rate is a token bucket: Burst connections at once, and then PerSecond each second.
// The zero value is no limit.
type Rate struct {
	PerSecond float64
	Burst     int // connections; 0: as many as come in a second, at least 1
}

// maxRate is the highest rate, in connections a second; no machine accepts as many.
const maxRate = 1e6

// ParseRate parses a rate such as 100/s, 30/m or 0.5/h, without a burst.
func ParseRate(text string) (Rate, error) {
	digits, unit, hasUnit := strings.Cut(text, "/")
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil || strings.Trim(digits, "0123456789.") != "" || n <= 0 {
		return Rate{}, fmt.Errorf("%q is no rate such as 100/s, 30/m or 0.5/s", text)
	}
	seconds, ok := map[string]float64{"s": 1, "m": 60, "h": 3600}[unit]
	switch {
	case !hasUnit:
		return Rate{}, hint.Wrap(fmt.Errorf("%q is a rate without a unit", text),
			fmt.Sprintf("%[1]s/s is %[1]s a second, %[1]s/m a minute, %[1]s/h an hour", text))
	case !ok:
		return Rate{}, hint.Wrap(fmt.Errorf("%q has no unit of time", text), "the units are s, m and h")
	case n/seconds > maxRate:
		return Rate{}, fmt.Errorf("%q is more than %d/s", text, int(maxRate))
	}
	return Rate{PerSecond: n / seconds}, nil
}

// burst returns how many connections may come at once.
func (r Rate) burst() int {
	if r.Burst > 0 {
		return r.Burst
	}
	return max(1, int(r.PerSecond))
}

// limiter returns the token bucket, which is full, or nil if there is no limit.
func (r Rate) limiter() *rate.Limiter {
	if r.PerSecond <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(r.PerSecond), r.burst())
}

// maxHold is how long a connection is held at most because its source's rate is
// exceeded.
const maxHold = 10 * time.Second

// maxSources is how many sources are remembered.
const maxSources = 1 << 16

// source is what has a rate of its own: a network or a user.
type source struct {
	network netip.Prefix
	uid     uint32
	unix    bool
}

// sourceRates limits the rate of each source. Its methods may be called concurrently.
//
// A bucket that is not used is full after some time, and forgetting it then makes no
// difference. So there are two generations: what is used moves to the younger one,
// and when that has become so old, the older one is dropped as a whole. It is dropped
// early when there are maxSources: a source that has been silent while maxSources/2
// others came then has its burst anew. So with a flood from that many sources the
// limit is a little weaker, and nobody is kept out because of others.
type sourceRates struct {
	rate             Rate
	prefix4, prefix6 int
	lifetime         time.Duration // after which an unused bucket is full

	mu         sync.Mutex
	young, old map[source]*rate.Limiter
	begin      time.Time // of the young generation
}

// newSourceRates returns nil if there is no limit.
func newSourceRates(r Rates) *sourceRates {
	if r.Source.PerSecond <= 0 {
		return nil
	}
	s := &sourceRates{rate: r.Source, prefix4: r.Prefix4, prefix6: r.Prefix6, young: map[source]*rate.Limiter{}}
	if s.prefix4 == 0 {
		s.prefix4 = DefaultPrefix4
	}
	if s.prefix6 == 0 {
		s.prefix6 = DefaultPrefix6
	}
	// A bucket may have been emptied for maxHold in advance. The bound is for rates so
	// low that the time would overflow.
	seconds := min(float64(r.Source.burst())/r.Source.PerSecond, math.MaxInt32)
	s.lifetime = time.Duration(seconds*float64(time.Second)) + maxHold
	return s
}

// source returns the source of a connection. All whose source is not known are one.
func (s *sourceRates) source(c fdinfo.Conn) source {
	ip := c.Remote.IP.Addr().Unmap()
	switch {
	case c.Local.Unix && c.Peer != nil:
		return source{uid: c.Peer.Uid, unix: true}
	case ip.Is4():
		network, _ := ip.Prefix(s.prefix4)
		return source{network: network}
	case ip.Is6():
		network, _ := ip.Prefix(s.prefix6)
		return source{network: network}
	}
	return source{}
}

// reserve asks whether a connection of src may come at the time now, and counts it if
// so. With a positive delay it is to be held for that time, which is never longer than
// ahead, and counts already. It returns false if the connection is to be refused: it
// does not count then, so that a source that does not stop has its rate all the same.
func (s *sourceRates) reserve(src source, now time.Time, ahead time.Duration) (delay time.Duration, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	bucket := s.bucket(src, now)
	r := bucket.ReserveN(now, 1)
	if delay = r.DelayFrom(now); delay > min(ahead, maxHold) {
		r.CancelAt(now)
		return 0, false
	}
	return delay, true
}

func (s *sourceRates) bucket(src source, now time.Time) *rate.Limiter {
	if now.Sub(s.begin) >= s.lifetime || len(s.young) >= maxSources/2 {
		s.old, s.young, s.begin = s.young, map[source]*rate.Limiter{}, now
	}
	bucket, ok := s.young[src]
	if ok {
		return bucket
	}
	if bucket, ok = s.old[src]; ok {
		delete(s.old, src)
	} else {
		bucket = s.rate.limiter()
	}
	s.young[src] = bucket
	return bucket
}
