//go:build linux

package cmd

import (
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"
)

// sameSignal is how long further signals count as the first one: timeout(1), for
// one, sends two.
const sameSignal = 500 * time.Millisecond

// endings returns the signals, but some, that ask this process to end, from now on: those by
// which it is told to, and those of a terminal that closes or of its keys. SIGHUP
// stays ignored if it was at the start: that is what nohup(1) is for. A shell's &
// does the same to SIGINT, and there nobody means anything by it.
func endings(but ...os.Signal) <-chan os.Signal {
	c := make(chan os.Signal, 2)
	signal.Notify(c, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
	if !slices.Contains(but, os.Signal(syscall.SIGHUP)) && !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(c, syscall.SIGHUP)
	}
	return c
}

// unless calls do, with a channel that is closed when a signal comes, and returns
// that signal, or nil if none came before do returned.
func unless(signals <-chan os.Signal, do func(stop <-chan struct{})) os.Signal {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		do(stop)
		close(done)
	}()
	select {
	case <-done:
		return nil
	case sig := <-signals:
		close(stop)
		<-done
		return sig
	}
}
