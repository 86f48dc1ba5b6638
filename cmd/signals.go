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

// commands returns the signals, from now on, in the order in which they come. None is
// lost: one that comes again while it waits to be received is one, the last.
func commands(signals ...os.Signal) <-chan os.Signal {
	in, out := make(chan os.Signal, 64), make(chan os.Signal)
	signal.Notify(in, signals...)
	go func() {
		var waiting []os.Signal
		for {
			var first os.Signal
			var to chan os.Signal
			if len(waiting) > 0 {
				first, to = waiting[0], out
			}
			select {
			case sig := <-in:
				waiting = enqueue(waiting, sig)
			case to <- first:
				waiting = waiting[1:]
			}
		}
	}()
	return out
}

// enqueue adds a signal to those that wait, and takes out one of its kind that does.
func enqueue(waiting []os.Signal, sig os.Signal) []os.Signal {
	return append(slices.DeleteFunc(waiting, func(other os.Signal) bool { return other == sig }), sig)
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

// defaultSignals lets signals end this process again, as before endings.
func defaultSignals() {
	signal.Reset(syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP)
}
