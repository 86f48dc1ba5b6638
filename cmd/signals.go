//go:build linux

package cmd

import (
	"os"
	"os/signal"
	"syscall"
)

// endings returns the signals that ask this process to end, from now on.
func endings() <-chan os.Signal {
	c := make(chan os.Signal, 2)
	signal.Notify(c, syscall.SIGTERM, syscall.SIGINT)
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
