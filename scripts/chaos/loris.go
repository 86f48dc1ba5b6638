//go:build linux

package main

import (
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"
)

// lorisProxy has clients that say their PROXY header slowly, in part, wrong or not at all,
// beside clients that do as they should.
func lorisProxy(e *env, r *row) {
	header := func(id int64) []byte {
		return fmt.Appendf(nil, "PROXY TCP4 192.0.2.%d 192.0.2.1 %d 80\r\n", 1+id%250, 1024+id%60000)
	}
	says := func(text string) func(net.Conn, int64) {
		return func(conn net.Conn, _ int64) { _, _ = io.WriteString(conn, text) }
	}
	slow := e.n(600, 1000)
	record := e.workersAt("q", slow+e.n(5_000, 50_000))
	_, address := e.listen("--to", e.at("q"), "--proxy-protocol", "--trust", "127.0.0.0/8", "--proxy-timeout", "2s",
		"--metrics", "unix:"+e.at("metrics"))
	l := newLoad(address, record, 16)
	l.preface = header
	e.loris(r, l, slow, []func(net.Conn, int64){
		says(""),
		func(conn net.Conn, id int64) { slowly(conn, header(id)) },
		func(conn net.Conn, id int64) { _, _ = conn.Write(header(id)[:10]) },
		says("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00"), // version 2, cut
		says(string(make([]byte, 5000))),
		func(conn net.Conn, id int64) { fmt.Fprintf(conn, "%d\n", id) }, // as if there were no header
	})
}

// lorisRoute has clients that say their key slowly, in part or not at all, more of them
// than may wait, and some that vanish.
func lorisRoute(e *env, r *row) {
	slow := e.n(600, 5000)
	record := e.workersAt("q2", slow+e.n(5_000, 50_000))
	e.startFdkit("route", "--by", "line", "--from", e.at("q"), "--to", "*="+e.at("q2"), "--timeout", "2s",
		"--max-waiting", strconv.FormatInt(slow/2, 10), "--metrics", "unix:"+e.at("metrics"))
	_, address := e.listen("--to", e.at("q"))
	e.loris(r, newLoad(address, record, 16), slow, []func(net.Conn, int64){
		func(net.Conn, int64) {},
		func(conn net.Conn, id int64) { slowly(conn, fmt.Appendf(nil, "%030d", id)) },
		func(conn net.Conn, id int64) { fmt.Fprint(conn, id) },
		func(conn net.Conn, id int64) { // a reset
			fmt.Fprint(conn, id)
			_ = conn.(*net.TCPConn).SetLinger(0)
			conn.Close()
		},
	})
}

// workersAt starts workers at a queue, for n connections.
func (e *env) workersAt(queue string, n int64) *record {
	record := e.record(n)
	e.startFdkit("pool", "--from", e.at(queue), "--resident", "-n", "4", "--ready-timeout", "30s", e.server, record.path, "resident", "0s")
	return record
}

// slowly writes a byte at a time, for longer than anybody is to wait.
func slowly(conn net.Conn, text []byte) {
	for _, b := range text {
		if _, err := conn.Write([]byte{b}); err != nil {
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// loris makes slow connections, each in one of the ways, and then the load. None of the
// slow ones may come to a worker, and each must be counted by whoever drops it.
func (e *env) loris(r *row, l *load, slow int64, ways []func(net.Conn, int64)) {
	first := l.next.Add(slow) - slow
	var group sync.WaitGroup
	for id := first; id < first+slow; id++ {
		conn, err := dial(l.address, id)
		e.must(err)
		way := ways[e.random.IntN(len(ways))]
		r.faults++
		group.Go(func() {
			defer conn.Close()
			way(conn, id)
			_ = conn.SetDeadline(time.Now().Add(patience))
			_, _ = io.Copy(io.Discard, conn) // until it is dropped
		})
	}
	l.run(int64(len(l.fates))-slow, e.stop)
	group.Wait()
	var begun, refused int64
	e.within(patience/2, func() bool {
		refused = e.metrics(e.at("metrics"))["fdkit_refused_total"]
		return refused == slow
	})
	for id := first; id < first+slow; id++ {
		begun += int64(l.record.counts[id].begun.Load())
	}
	l.count(r)
	r.connections, r.served = r.connections-slow, r.served-slow // whose fate is not their client's to see
	r.expectAllServed()
	r.expect(begun == 0, "0 handed on", "%d", begun)
	r.expect(refused == slow, "each counted", "%d of %d", refused, slow)
}
