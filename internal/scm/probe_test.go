//go:build linux

package scm_test

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
	"fdkit/internal/scm"
)

func TestProbe(t *testing.T) {
	fdtest.NoLeaks(t)
	for _, typ := range []int{unix.SOCK_STREAM, unix.SOCK_SEQPACKET, unix.SOCK_DGRAM} {
		if came, err := scm.Probe(typ, scm.MaxFDs); err != nil || came != scm.MaxFDs {
			t.Errorf("Probe(%d, %d) = %d, %v; want all", typ, scm.MaxFDs, came, err)
		}
		if came, err := scm.Probe(typ, scm.MaxFDs+1); !errors.Is(err, unix.EINVAL) {
			t.Errorf("Probe(%d, %d) = %d, %v; want EINVAL", typ, scm.MaxFDs+1, came, err)
		}
	}
	restore := fdtest.FewFiles(t, 3+5) // a pair, what is sent, and what comes
	came, err := scm.Probe(unix.SOCK_STREAM, 100)
	restore()
	if err != nil || came != 5 {
		t.Errorf("Probe() with room for 5 = %d, %v; want 5", came, err)
	}
}
