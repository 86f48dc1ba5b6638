//go:build linux

package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"fdkit/internal/scm"
)

// closedAtStart starts both commands with each set of standard descriptors closed. They
// say much, and none of it may come to a client.
func closedAtStart(e *env, r *row) {
	record := e.record(64 * 4)
	l := newLoad("", record, 2)
	without := func(set int, args ...string) *exec.Cmd {
		redirect := ""
		for fd, word := range []string{" <&-", " >&-", " 2>&-"} {
			if set&(1<<fd) != 0 {
				redirect += word
			}
		}
		return exec.Command("sh", append([]string{"-c", `exec "$0" "$@"` + redirect, e.fdkit}, args...)...)
	}
	for set := range 64 {
		queue := e.at(fmt.Sprint("q", set))
		pool := e.start(without(set%8, "pool", "-v", "--from", queue, e.server, record.path, "one", "0s"))
		listen, address := e.listenAs(without(set/8, e.listenArgs("-v", "--to", queue)...))
		r.faults++
		l.address = address
		l.run(4, e.stop)
		listen.end()
		pool.end()
	}
	l.count(r)
	r.expectAllServed()
}

// foreignNonblocking sends a pool connections that have O_NONBLOCK set, as programs do that
// know nothing of fdkit. The programs look at that.
func foreignNonblocking(e *env, r *row) {
	record := e.record(e.n(1_000, 20_000))
	pool := e.startFdkit("pool", "--from", "unix-listen:"+e.at("s"), "-n", "8", e.server, record.path, "one", "0s")
	e.await("pool listens", func() bool { _, err := os.Stat(e.at("s")); return err == nil })
	queue, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	e.must(os.NewSyscallError("socket", err))
	e.must(os.NewSyscallError("connect", unix.Connect(queue, &unix.SockaddrUnix{Name: e.at("s")})))
	defer unix.Close(queue)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	e.must(err)
	accepting := make(chan error, 1)
	go func() {
		sender := scm.NewSender(queue, nil)
		for {
			conn, err := listener.Accept()
			if err != nil {
				accepting <- nil
				return
			}
			raw, err := conn.(*net.TCPConn).SyscallConn()
			if err == nil {
				control := raw.Control(func(fd uintptr) { err = sender.Send([]byte{0}, int(fd)) })
				if err == nil {
					err = control
				}
			}
			conn.Close()
			if err != nil {
				accepting <- err
				return
			}
		}
	}()
	l := newLoad(listener.Addr().String(), record, 16)
	l.run(int64(len(l.fates)), e.stop)
	listener.Close()
	e.must(<-accepting)
	l.count(r)
	r.faults = r.connections
	r.expectAllServed()
	r.expect(!strings.Contains(pool.read(), "chaos-serve:"), "all blocking", "%s", pool.read())
}

// injected has Unix clients that send descriptors, also their own connection, along with
// what they say. Nobody may get them, and no copy may be left.
func injected(e *env, r *row) {
	record := e.record(e.n(2_000, 20_000))
	pool := e.startFdkit("pool", "--from", e.at("q"), "-n", "8", e.server, record.path, "one", "0s")
	listen := e.startFdkit("listen", "--to", e.at("q"), "unix:"+e.at("s"))
	e.await("listen listens", func() bool { _, err := os.Stat(e.at("s")); return err == nil })
	l := newLoad("unix:"+e.at("s"), record, 16)
	l.run(10, e.stop)
	before := e.descriptorsAtRest(listen.pid()) + e.descriptorsAtRest(pool.pid())
	read, write, err := os.Pipe()
	e.must(err)
	defer read.Close()
	l.send = func(conn net.Conn, text []byte) error {
		own, err := conn.(*net.UnixConn).File()
		if err != nil {
			return err
		}
		defer own.Close()
		if err := unix.SetNonblock(int(own.Fd()), true); err != nil { // which Fd has taken away
			return err
		}
		rights := unix.UnixRights(int(write.Fd()), int(own.Fd()), int(write.Fd()))
		_, _, err = conn.(*net.UnixConn).WriteMsgUnix(text, rights, nil)
		return err
	}
	l.run(int64(len(l.fates))-10, e.stop)
	write.Close()
	l.count(r)
	r.faults = r.connections - 10
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = read.Read(make([]byte, 1)) // the end comes when no copy is left
	}()
	r.expectAllServed()
	r.expect(e.within(patience/2, func() bool {
		select {
		case <-ended:
			return true
		default:
			return false
		}
	}), "no copy left", "the pipe is open somewhere")
	after := 0
	r.expect(e.within(patience/2, func() bool {
		after = descriptors(listen.pid()) + descriptors(pool.pid())
		return after == before
	}), "descriptors exact", "%d, before %d", after, before)
}
