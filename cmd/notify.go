//go:build linux

package cmd

import (
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"fdkit/exec"
)

// notifier tells the service manager how this process is, sd_notify(3). A nil one
// does nothing: that is where NOTIFY_SOCKET is not set. Its methods are for one
// goroutine, the event loop of the command.
type notifier struct {
	ticker   *time.Ticker
	period   time.Duration // of ticker
	watchdog time.Duration // how often the watchdog is fed; 0: there is none
	fed      time.Time
	text     func() string // the status; nil: there is none
	said     string        // the last one

	// socket is connected to the manager's, which may have no path from here later.
	socket net.Conn
	// messages are sent in the background: who listens at the socket may have
	// stopped reading, and would block a send for ever.
	messages chan string
	sent     chan struct{} // closed when all are sent
}

const (
	statusPeriod   = time.Second // between changes of the status
	notifyMessages = 16          // that may wait to be sent
	notifyEnd      = time.Second // for the last ones
)

// newNotifier returns the notifier of this process, nil if nobody wants to be told.
func newNotifier(log logger) *notifier {
	address := os.Getenv("NOTIFY_SOCKET")
	if address == "" {
		return nil
	}
	socket, err := net.Dial("unixgram", address) // @ stands for the NUL of an abstract name
	if err != nil {
		log.error(fmt.Errorf("cannot notify %s: %w", address, cause(err)))
		return nil
	}
	n := &notifier{
		socket:   socket,
		period:   statusPeriod,
		messages: make(chan string, notifyMessages),
		sent:     make(chan struct{}),
	}
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.error(fmt.Errorf("cannot feed the watchdog: %w", err))
	} else if interval > 0 {
		// Half of it, as sd_watchdog_enabled(3) recommends.
		n.watchdog = interval / 2
		n.period = max(min(n.period, n.watchdog), time.Millisecond)
	}
	n.ticker = time.NewTicker(n.period)
	log.journal = nil // send is in the background itself
	go n.send(log)
	return n
}

// send sends what is in messages, and says once if it cannot.
func (n *notifier) send(log logger) {
	defer close(n.sent)
	told := false
	for message := range n.messages {
		_, err := n.socket.Write([]byte(message))
		if err != nil { // the manager may have a new one, at the same path
			_, err = daemon.SdNotify(false, message)
		}
		if err != nil && !told {
			told = true
			log.error(fmt.Errorf("cannot notify %s: %w", os.Getenv("NOTIFY_SOCKET"), cause(err)))
		}
	}
	n.socket.Close()
}

// tell sends lines, unless too many wait already.
func (n *notifier) tell(lines ...string) {
	select {
	case n.messages <- strings.Join(lines, "\n"):
	default:
	}
}

// ready tells that the service has begun, or that it has reloaded.
func (n *notifier) ready() {
	if n == nil {
		return
	}
	n.fed = time.Now() // systemd starts to count now
	n.tell(append([]string{daemon.SdNotifyReady}, n.changed()...)...)
}

// status says from where the status text comes, which is sent whenever it has
// changed, at most once a second. It is called by the event loop.
func (n *notifier) status(text func() string) {
	if n != nil {
		n.text = text
	}
}

// reloading tells that the configuration is being read anew. When that is done,
// ready tells so.
func (n *notifier) reloading() {
	if n != nil {
		n.tell(daemon.SdNotifyReloading, strings.TrimSpace(daemon.SdNotifyMonotonicUsec()))
	}
}

// stopping tells that the service is going to end.
func (n *notifier) stopping() {
	if n != nil {
		n.tell(append([]string{daemon.SdNotifyStopping}, n.changed()...)...)
	}
}

// ticks is where the event loop learns that it is time to call tick. It is nil, and
// so never ready, where nobody wants to be told.
func (n *notifier) ticks() <-chan time.Time {
	if n == nil {
		return nil
	}
	return n.ticker.C
}

// tick sends what is due. That the event loop calls it is what the watchdog watches.
func (n *notifier) tick() {
	var lines []string
	now := time.Now()
	// The next tick could be too late.
	if n.watchdog > 0 && now.Sub(n.fed)+n.period/2 >= n.watchdog {
		n.fed = now
		lines = append(lines, daemon.SdNotifyWatchdog)
	}
	if lines = append(lines, n.changed()...); lines != nil {
		n.tell(lines...)
	}
}

// changed returns the status as a line, if it has changed.
func (n *notifier) changed() []string {
	if n.text == nil {
		return nil
	}
	text := oneLine(n.text())
	if text == n.said {
		return nil
	}
	n.said = text
	return []string{"STATUS=" + text}
}

// end sends what waits, as far as somebody takes it.
func (n *notifier) end() {
	if n == nil {
		return
	}
	n.ticker.Stop()
	close(n.messages)
	select {
	case <-n.sent:
	case <-time.After(notifyEnd):
	}
}

// follow makes the pool's state the status, and returns a channel that tells when
// the pool is ready.
func (n *notifier) follow(pool *exec.Pool) (ready <-chan struct{}) {
	if n == nil {
		return nil
	}
	var served atomic.Int64
	ended := pool.Ended
	pool.Ended = func(run *exec.Run) {
		served.Add(1)
		ended(run)
	}
	n.status(func() string {
		return fmt.Sprintf("running %d of %d, served %d", pool.Running(), pool.Slots, served.Load())
	})
	begun := make(chan struct{}, 1)
	pool.Ready = func() { begun <- struct{}{} }
	return begun
}
