//go:build linux

package exec

import (
	"errors"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// watch is what the pool knows of a connection while its program runs. It is there
// only if a limit or a failing program asks for it, and is used under the lock.
type watch struct {
	source source
	// fd is the connection as it was received, which is closed when the program
	// has ended; -1 if it is not held.
	fd         int
	tcp, mptcp bool
	// before is how many bytes were received and read before the program's start;
	// if the connection is not TCP, how many could be read then.
	before int64
	// urgent tells that urgent data has come before the start, behind which the
	// kernel does not count what can be read: tcp_inq() in include/net/tcp.h.
	urgent bool
	timer  *time.Timer // nil without TimeLimits

	spoken          bool // the client has sent something
	received, acked uint64
	active          time.Time // when one of them has changed last
}

// watchFor returns the watch for a connection fd from that source, whose program is to
// be started, nil if there is none.
func (p *Pool) watchFor(fd int, from source) *watch {
	p.mu.Lock()
	defer p.mu.Unlock()
	traffic, suspicious := p.Times.traffic(), p.failing.suspicious() && p.held < p.spare
	if p.Times.Run <= 0 && !traffic && !suspicious && !from.known() {
		return nil
	}
	w := &watch{source: from, fd: -1}
	if !traffic && !suspicious {
		return w
	}
	protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	// Of MPTCP the kernel would show one path only.
	w.tcp, w.mptcp = err == nil && protocol == unix.IPPROTO_TCP, err == nil && protocol == unix.IPPROTO_MPTCP
	if traffic && !w.tcp && !p.toldKind {
		p.toldKind = true
		p.trouble(errors.New("a connection is not TCP: limits of idle time and for the first byte do not apply to such connections, as the kernel does not count what goes over them"))
	}
	if w.tcp || suspicious {
		w.fd = fd
		p.held++
		p.want()
		w.begin()
	}
	return w
}

// begin enters what has come already.
func (w *watch) begin() {
	var info unix.TCPInfo
	if w.tcp {
		w.tcp = tcpInfo(w.fd, &info)
	}
	// After tcpInfo: what comes in between makes before too small, and only lets
	// the client seem to have spoken.
	unread, _ := unix.IoctlGetInt(w.fd, unix.TIOCINQ)
	if !w.tcp {
		w.before = int64(unread)
		return
	}
	w.before = bytesReceived(&info) - int64(unread)
	w.urgent = urgent(w.fd)
	w.received, w.acked = info.Bytes_received, info.Bytes_acked
}

// tcpInfo asks a TCP socket for its counters. It returns false if there are none,
// before Linux 4.19.
func tcpInfo(fd int, info *unix.TCPInfo) bool {
	size := uint32(unsafe.Sizeof(*info))
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_INFO,
		uintptr(unsafe.Pointer(info)), uintptr(unsafe.Pointer(&size)), 0)
	return errno == 0 && uintptr(size) >= unsafe.Offsetof(info.Bytes_sent)+unsafe.Sizeof(info.Bytes_sent)
}

// urgent tells whether urgent data is to be read from a socket, tcp(7).
func urgent(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}
	for {
		n, err := unix.Poll(fds, 0)
		if err != unix.EINTR {
			return n > 0 && fds[0].Revents&unix.POLLPRI != 0
		}
	}
}

// States of a TCP connection, net/tcp_states.h.
const (
	tcpEstablished = 1
	tcpTimeWait    = 6
	tcpClose       = 7 // a reset has come, or both sides have ended
	tcpCloseWait   = 8
	tcpLastAck     = 9
	tcpClosing     = 11
)

// clientEnded tells whether the client has ended its side.
func clientEnded(info *unix.TCPInfo) bool {
	switch info.State {
	case tcpTimeWait, tcpClose, tcpCloseWait, tcpLastAck, tcpClosing:
		return true
	}
	return false
}

// bytesReceived returns how many bytes the client has sent. The kernel counts the
// end of its side, FIN, as one: tcp_rcv_nxt_update in net/ipv4/tcp_input.c.
func bytesReceived(info *unix.TCPInfo) int64 {
	n := int64(info.Bytes_received)
	if clientEnded(info) && info.State != tcpClose {
		n--
	}
	return n
}

// observe starts the clock for a program that has started. The lock is held.
func (p *Pool) observe(run *Run) {
	if p.failing.doubtful() {
		time.AfterFunc(atOnce, func() { p.survived(run) })
	}
	w := run.watch
	if w == nil {
		return
	}
	w.active = run.Begin
	if limit, next := p.due(run, run.Begin); limit != "" || next > 0 {
		w.timer = time.AfterFunc(next, func() { p.check(run) })
	}
}

// check ends a program if a limit is reached, and sets the clock anew.
func (p *Pool) check(run *Run) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.collect() // the reaper may linger
	w := run.watch
	switch {
	case p.running[run.PID] != run:
		return // it has just ended
	case run.Limit != "":
		_ = unix.Kill(-run.PID, syscall.SIGKILL)
		return
	}
	limit, next := p.due(run, time.Now())
	if limit == "" {
		if next > 0 {
			w.timer.Reset(next)
		}
		return
	}
	run.Limit, run.Running = limit, len(p.running)
	if p.Limited != nil {
		p.Limited(run)
	}
	if limit != LimitTimeout {
		_ = unix.Shutdown(w.fd, unix.SHUT_RDWR)
	}
	_ = unix.Kill(-run.PID, syscall.SIGTERM)
	w.timer.Reset(p.Times.Kill)
}

// due returns the limit that a program has reached, or how long it takes to the next
// one, 0 if there is none.
func (p *Pool) due(run *Run, now time.Time) (limit string, next time.Duration) {
	t, w := &p.Times, run.watch
	reached := func(name string, left time.Duration) bool {
		if left <= 0 {
			limit = name
		} else if next == 0 || left < next {
			next = left
		}
		return left <= 0
	}
	ran := now.Sub(run.Begin)
	if t.Run > 0 && reached(LimitTimeout, t.Run-ran) || w.fd < 0 || !w.tcp {
		return limit, next
	}
	var info unix.TCPInfo
	if !tcpInfo(w.fd, &info) {
		return limit, next
	}
	if t.FirstByte > 0 && !w.spoken {
		w.spoken = bytesReceived(&info) > w.before || clientEnded(&info)
		if !w.spoken && reached(LimitFirstByte, t.FirstByte-ran) {
			return limit, next
		}
	}
	if t.Idle > 0 {
		w.note(&info, now)
		reached(LimitIdle, t.Idle-now.Sub(w.active))
	}
	return limit, next
}

// note enters when there was traffic last. That a segment has come counts only if it
// has moved a counter: a client that is only asked whether it is still there
// (keepalive, a window of 0) answers, too.
func (w *watch) note(info *unix.TCPInfo, now time.Time) {
	ago := func(milliseconds uint32) {
		if t := now.Add(-time.Duration(milliseconds) * time.Millisecond); t.After(w.active) {
			w.active = t
		}
	}
	if info.Bytes_received != w.received {
		ago(info.Last_data_recv)
	}
	if info.Bytes_acked != w.acked {
		ago(info.Last_ack_recv)
	}
	w.received, w.acked = info.Bytes_received, info.Bytes_acked
}

// release ends the watch of a run that has ended. The lock is held.
func (p *Pool) release(w *watch) {
	if w == nil {
		return
	}
	if w.timer != nil {
		w.timer.Stop()
	}
	if w.fd >= 0 {
		_ = unix.Close(w.fd)
	}
	p.forget(w)
}

// abandon ends the watch of a run that has not begun, whose connection is still the
// caller's.
func (p *Pool) abandon(w *watch) {
	if w != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.forget(w)
	}
}

func (p *Pool) forget(w *watch) {
	if w.fd >= 0 {
		w.fd = -1
		p.held--
	}
	p.leave(w.source)
}
