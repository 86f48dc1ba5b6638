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

func TestTransmitNowFull(t *testing.T) {
	fdtest.NoLeaks(t)
	a, b := fdtest.Pair(t, unix.SOCK_SEQPACKET)
	s := scm.NewSender(a.FD, nil)
	sent := 0
	for ; ; sent++ {
		n, err := s.TransmitNow([]byte("ab"), []int{a.FD}, nil)
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if n != 2 || err != nil || sent > 100000 {
			t.Fatalf("TransmitNow() = %d, %v after %d; want 2, or EAGAIN when it is full", n, err, sent)
		}
	}
	if sent == 0 {
		t.Error("an empty queue takes nothing")
	}
	if _, err := s.TransmitNow([]byte("a"), make([]int, scm.MaxFDs+1), nil); err == nil || errors.Is(err, unix.EAGAIN) {
		t.Errorf("TransmitNow() of %d descriptors = %v; want it refused", scm.MaxFDs+1, err)
	}
	b.Close()
	if _, err := s.TransmitNow([]byte("a"), nil, nil); err == nil {
		t.Error("TransmitNow() to nobody succeeds")
	}
}
