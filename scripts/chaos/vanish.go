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

// vanish has clients that reset their connection while it is queued, be it in the backlog
// or behind. All slots are taken meanwhile, so no program may be started for any of them.
func vanish(e *env, r *row) {
	const slots, vanishing, patient = 4, 100, 20
	rounds := e.n(5, 100)
	record := e.record(rounds * (slots + vanishing + patient))
	e.startFdkit("pool", "--from", e.at("q"), "-n", strconv.Itoa(slots), "--queue-timeout", "10m",
		"--metrics", "unix:"+e.at("metrics"), e.server, record.path, "one", "0s")
	_, address := e.listen("--to", e.at("q"))
	l := newLoad(address, record, patient)
	var begun int64
	for range rounds {
		var holding []net.Conn
		for range slots {
			conn, err := dial(address, int64(len(holding)))
			e.must(err)
			defer conn.Close()
			holding = append(holding, conn)
		}
		e.await("all slots are taken", func() bool { return e.metrics(e.at("metrics"))["fdkit_running"] == slots })
		first := l.next.Add(slots+vanishing) - vanishing
		for id := first; id < first+vanishing; id++ {
			conn, err := dial(address, id)
			e.must(err)
			_, err = fmt.Fprintf(conn, "%d\n", id)
			e.must(err)
			e.must(conn.(*net.TCPConn).SetLinger(0)) // close resets
			conn.Close()
			r.faults++
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			l.run(patient, e.stop)
		}()
		// Those that hold the slots are clients like others.
		for i, conn := range holding {
			e.must(exchangeOn(conn, first-slots+int64(i)))
		}
		<-done
		for id := first; id < first+vanishing; id++ {
			begun += int64(record.counts[id].begun.Load())
		}
	}
	refused := int64(0)
	e.within(patience/2, func() bool {
		refused = e.metrics(e.at("metrics"))["fdkit_refused_total"]
		return refused == r.faults
	})
	l.count(&r.figures)
	r.connections, r.served = r.connections-r.faults, r.served-r.faults // whose fate is not their client's to see
	r.expectAllServed()
	r.expect(begun == 0, "0 programs for vanished", "%d", begun)
	r.expect(refused == r.faults, "each counted", "%d of %d", refused, r.faults)
}

// exchangeOn sends a number and wants it back.
func exchangeOn(conn net.Conn, id int64) error {
	defer conn.Close()
	text := fmt.Sprintf("%d\n", id)
	if _, err := io.WriteString(conn, text); err != nil {
		return err
	}
	answer, err := io.ReadAll(conn)
	if err == nil && string(answer) != text {
		err = fmt.Errorf("the answer to %q is %q", text, answer)
	}
	return err
}

// loris has clients that say their PROXY header slowly, in part, wrong or not at all, beside
// clients that do as they should.
func loris(e *env, r *row) {
	slow := int(e.n(600, 1000))
	record := e.record(e.n(5_000, 50_000) + int64(slow))
	e.startFdkit("pool", "--from", e.at("q"), "--resident", "-n", "4", "--ready-timeout", "30s", e.server, record.path, "resident", "0s")
	_, address := e.listen("--to", e.at("q"), "--proxy-protocol", "--trust", "127.0.0.0/8", "--proxy-timeout", "2s",
		"--metrics", "unix:"+e.at("metrics"))
	header := func(id int64) []byte {
		return fmt.Appendf(nil, "PROXY TCP4 192.0.2.%d 192.0.2.1 %d 80\r\n", 1+id%250, 1024+id%60000)
	}
	l := newLoad(address, record, 16)
	l.preface = header
	ways := []func(conn net.Conn, id int64){
		func(net.Conn, int64) {}, // says nothing
		func(conn net.Conn, id int64) { // a byte at a time
			for _, b := range header(id) {
				if _, err := conn.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(200 * time.Millisecond)
			}
		},
		func(conn net.Conn, id int64) { _, _ = conn.Write(header(id)[:10]) },
		func(conn net.Conn, id int64) { _, _ = conn.Write([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00")) }, // version 2, cut
		func(conn net.Conn, id int64) { _, _ = conn.Write(make([]byte, 5000)) },
		func(conn net.Conn, id int64) { fmt.Fprintf(conn, "%d\n", id) }, // as if there were no header
	}
	var group sync.WaitGroup
	var open sync.Map
	first := l.next.Add(int64(slow)) - int64(slow)
	for i := range slow {
		conn, err := dial(address, first+int64(i))
		e.must(err)
		open.Store(conn, nil)
		way := ways[e.random.IntN(len(ways))]
		r.faults++
		group.Go(func() {
			defer conn.Close()
			way(conn, first+int64(i))
			_ = conn.SetDeadline(time.Now().Add(patience))
			_, _ = io.Copy(io.Discard, conn) // until it is dropped
			open.Delete(conn)
		})
	}
	l.run(int64(len(l.fates)-slow), e.stop)
	group.Wait()
	refused := e.metrics(e.at("metrics"))["fdkit_refused_total"]
	var begun int64
	for id := first; id < first+int64(slow); id++ {
		begun += int64(record.counts[id].begun.Load())
	}
	l.count(&r.figures)
	r.connections, r.served = r.connections-int64(slow), r.served-int64(slow)
	r.expectAllServed()
	r.expect(begun == 0, "0 handed on", "%d", begun)
	r.expect(refused == int64(slow), "each counted", "%d of %d", refused, slow)
}
