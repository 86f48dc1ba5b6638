//go:build linux

package main

import (
	"fmt"
	"io"
	"net"
	"strconv"
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
	l.count(r)
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
