//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// patience is after how long a connection counts as lost from which nothing comes.
const patience = time.Minute

// mostTraces is of how many failures it is kept when and how they came.
const mostTraces = 10

// fate is what became of a connection, as its client sees it.
type fate int

const (
	served fate = iota
	refused
	reset
	closed // without an answer, or with half of one
)

// load is many clients, which know what they have sent.
type load struct {
	address   string // host:port or unix:path
	record    *record
	addresses []string // if there are several; connections take turns
	parallel  int
	preface   func(id int64) []byte        // what is sent before the number; nil: nothing
	send      func(net.Conn, []byte) error // how it is sent; nil: Write
	next      atomic.Int64                 // the number of the next connection
	open      atomic.Int64                 // connections under way
	finished  atomic.Int64                 // those that have ended
	mu        sync.Mutex
	fates     []fate
	traces    []string // of the first that have failed before anybody had begun to serve them
}

func newLoad(address string, r *record, parallel int) *load {
	return &load{address: address, record: r, parallel: parallel, fates: make([]fate, len(r.counts))}
}

// run makes n further connections, some at once, and waits for their ends. It makes no more
// when stop says so.
func (l *load) run(n int64, stop func() bool) {
	var group sync.WaitGroup
	last := l.next.Load() + n
	for range l.parallel {
		group.Go(func() {
			for !stop() {
				id := l.next.Load()
				if id >= last {
					return
				}
				if l.next.CompareAndSwap(id, id+1) {
					l.once(id)
				}
			}
		})
	}
	group.Wait()
}

// once is one connection.
func (l *load) once(id int64) {
	l.open.Add(1)
	begin := time.Now()
	what, err := l.exchange(id)
	l.open.Add(-1)
	l.finished.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fates[id] = what
	if what != served && len(l.traces) < mostTraces && l.record.counts[id].begun.Load() == 0 {
		l.traces = append(l.traces, fmt.Sprintf("connection %d, begun at %s, after %v: %v",
			id, begin.UTC().Format("15:04:05.000"), time.Since(begin).Round(time.Millisecond), err))
	}
}

// exchange sends the number of the connection and wants it back. The error is why that
// has failed.
func (l *load) exchange(id int64) (fate, error) {
	address := l.address
	if n := int64(len(l.addresses)); n > 0 {
		address = l.addresses[id%n]
	}
	conn, err := dial(address, id)
	if err != nil {
		return refused, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	text := strconv.FormatInt(id, 10) + "\n"
	var whole []byte
	if l.preface != nil {
		whole = l.preface(id)
	}
	whole = append(whole, text...)
	if l.send != nil {
		err = l.send(conn, whole)
	} else {
		_, err = conn.Write(whole)
	}
	if err != nil {
		return reset, err
	}
	var answer [64]byte
	n, err := io.ReadFull(conn, answer[:])
	switch {
	case string(answer[:n]) == text && errors.Is(err, io.ErrUnexpectedEOF):
		return served, nil
	case errors.Is(err, syscall.ECONNRESET):
		return reset, err
	}
	return closed, fmt.Errorf("%s: the answer is %q: %v", conn.LocalAddr(), answer[:n], err)
}

// dial connects. Each of many connections has its own address to come from, as an address
// has 28000 ports only, and each is in TIME_WAIT for a minute.
func dial(address string, id int64) (net.Conn, error) {
	dialer := net.Dialer{Timeout: patience}
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return dialer.Dial("unix", path)
	}
	dialer.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 1, byte(id/250%250), byte(1+id%250))}
	dialer.Control = func(_, _ string, raw syscall.RawConn) (err error) {
		control := raw.Control(func(fd uintptr) { // the port is chosen by connect(2), ip(7)
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		})
		return errors.Join(control, err)
	}
	return dialer.Dial("tcp", address)
}

// count adds what became of all connections to the figures of a row.
func (l *load) count(r *row) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := &r.figures
	r.traces = append(r.traces, l.traces[:min(len(l.traces), mostTraces-len(r.traces))]...)
	for id, what := range l.fates[:l.next.Load()] {
		e := &l.record.counts[id]
		f.connections++
		switch {
		case what == served:
			f.served++
		case what == refused:
			f.refused++
		case e.begun.Load() > 0:
			f.cut++
		case what == reset:
			f.reset++
		default:
			f.lost++
		}
		if e.taken.Load() > 1 {
			f.duplicated++
		}
	}
}
