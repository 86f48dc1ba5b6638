//go:build linux

package cmd

import (
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"fdkit/internal/fdtest"
)

// manager is a service manager: it has the socket that NOTIFY_SOCKET names.
type manager struct{ *net.UnixConn }

func newManager(t *testing.T) manager {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return manager{conn}
}

// want receives the next message and compares it with a pattern.
func (m manager) want(t *testing.T, pattern string) {
	t.Helper()
	if err := m.SetReadDeadline(time.Now().Add(fdtest.Limit)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4096)
	n, err := m.Read(b)
	if err != nil || !regexp.MustCompile("^"+pattern+"$").Match(b[:n]) {
		t.Fatalf("the message is %q, %v; want %q", b[:n], err, pattern)
	}
}

func TestNotifier(t *testing.T) {
	fdtest.NoLeaks(t)
	m := newManager(t)
	n := newNotifier(logger{})
	var count atomic.Int64
	n.status(func() string { return fmt.Sprintf("count %d\nand no other line", count.Load()) })
	n.ready()
	m.want(t, "READY=1\nSTATUS=count 0[?]and no other line")
	n.tick() // nothing has changed
	count.Add(1)
	n.tick()
	m.want(t, "STATUS=count 1[?]and no other line")
	n.reloading()
	m.want(t, "RELOADING=1\nMONOTONIC_USEC=[0-9]+")
	n.ready()
	m.want(t, "READY=1")
	count.Add(1)
	fdtest.Soon(t, "the ticker ticks", n.ticks())
	n.tick()
	m.want(t, "STATUS=count 2.*")
	n.stopping()
	m.want(t, "STOPPING=1")
	n.end()
}

func TestNotifierOfNobody(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "1000")
	n := newNotifier(logger{})
	if n != nil {
		t.Fatalf("newNotifier without NOTIFY_SOCKET = %v, want nil", n)
	}
	n.status(func() string { t.Error("the status is asked for"); return "" })
	n.ready()
	n.reloading()
	n.stopping()
	if n.ticks() != nil {
		t.Error("ticks() is a channel, want nil: there is no timer")
	}
	if n.follow(nil) != nil {
		t.Error("follow() is a channel, want nil")
	}
	n.end()
}

func TestNotifierWatchdog(t *testing.T) {
	for _, test := range []struct {
		usec, pid string
		fed       bool
	}{
		{"40000", "", true},
		{"40000", "1", false}, // for another process
		{"", "", false},
		{"x", "", false},
	} {
		t.Run(test.usec+" "+test.pid, func(t *testing.T) {
			m := newManager(t)
			t.Setenv("WATCHDOG_USEC", test.usec)
			t.Setenv("WATCHDOG_PID", test.pid)
			n := newNotifier(logger{})
			n.ready()
			m.want(t, "READY=1")
			for range 3 {
				begin := time.Now()
				fdtest.Soon(t, "the ticker ticks", n.ticks())
				n.tick()
				if !test.fed {
					break
				}
				m.want(t, "WATCHDOG=1")
				if waited := time.Since(begin); waited < time.Millisecond {
					t.Errorf("the watchdog is fed after %v, want after 20 ms", waited)
				}
			}
			n.stopping()
			m.want(t, "STOPPING=1")
			n.end()
		})
	}
}

// A watchdog of some seconds is fed at about half its time, not at each tick of the
// status.
func TestNotifierWatchdogRate(t *testing.T) {
	m := newManager(t)
	t.Setenv("WATCHDOG_USEC", "30000000")
	t.Setenv("WATCHDOG_PID", "")
	n := newNotifier(logger{})
	n.ready()
	m.want(t, "READY=1")
	n.tick()
	n.fed = time.Now().Add(-14 * time.Second)
	n.tick()
	n.fed = time.Now().Add(-14600 * time.Millisecond)
	n.tick()
	m.want(t, "WATCHDOG=1")
	n.stopping()
	m.want(t, "STOPPING=1") // nothing was in between
	n.end()
}

// Who has stopped reading holds nobody up.
func TestNotifierUnread(t *testing.T) {
	newManager(t)
	n := newNotifier(logger{})
	var count atomic.Int64
	n.status(func() string { return fmt.Sprint(count.Add(1), strings.Repeat("x", 1000)) })
	n.ready()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 10000 {
			n.tick()
		}
		n.stopping()
		n.end()
	}()
	fdtest.Soon(t, "ticks and the end", done)
}
