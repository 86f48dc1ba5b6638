//go:build linux

package cmd

import (
	"os"
	"os/signal"
	"slices"
	"syscall"
	"testing"

	"fdkit/internal/fdtest"
)

// Of signals that come again while they wait the last counts.
func TestEnqueue(t *testing.T) {
	var waiting []os.Signal
	for _, sig := range []os.Signal{syscall.SIGUSR1, syscall.SIGHUP, syscall.SIGUSR2, syscall.SIGUSR1, syscall.SIGUSR2} {
		waiting = enqueue(waiting, sig)
	}
	if want := []os.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2}; !slices.Equal(waiting, want) {
		t.Errorf("waiting are %v, want %v", waiting, want)
	}
}

// Signals that nobody receives for a while are not lost.
func TestCommands(t *testing.T) {
	c := commands(syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Reset(syscall.SIGUSR1, syscall.SIGUSR2)
	for _, sig := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGUSR2} {
		if err := syscall.Kill(os.Getpid(), sig); err != nil {
			t.Fatal(err)
		}
	}
	got := []os.Signal{fdtest.Soon(t, "a signal", c), fdtest.Soon(t, "another", c)}
	if !slices.Contains(got, os.Signal(syscall.SIGUSR1)) || !slices.Contains(got, os.Signal(syscall.SIGUSR2)) {
		t.Errorf("received %v, want both signals", got)
	}
}
