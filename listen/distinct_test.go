//go:build linux

package listen

import (
	"net/netip"
	"slices"
	"testing"
)

func TestDistinct(t *testing.T) {
	var ips []netip.Addr
	for _, text := range []string{"::1", "127.0.0.1", "127.0.0.1", "::ffff:127.0.0.1", "::1", "127.0.1.1"} {
		ips = append(ips, netip.MustParseAddr(text))
	}
	want := []netip.Addr{netip.MustParseAddr("::1"), netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.1.1")}
	if got := distinct(ips); !slices.Equal(got, want) {
		t.Errorf("distinct(%v) = %v, want %v", ips, got, want)
	}
}
