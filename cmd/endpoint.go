//go:build linux

package cmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"fdkit/internal/hint"
	"fdkit/listen"
)

func metricsFlag() cli.Flag {
	return &cli.StringFlag{Name: "metrics", Usage: "tell Prometheus what happens, at http://`ADDRESS`/metrics"}
}

// endpoint answers HTTP requests for a text, and no others. It is not made with
// package http, which would make each start of fdkit slower by a sixth.
type endpoint struct {
	text      func() []byte
	listeners []*listen.Listener
	clients   sync.WaitGroup
	ctx       context.Context // ends with Close
	cancel    context.CancelFunc
}

const (
	// endpointClients is how many are served at once, at each address. Others wait
	// in the backlog.
	endpointClients = 2
	endpointBacklog = 16
	// endpointTime is what a client has to send its request and to read the answer.
	endpointTime = 5 * time.Second
	// endpointHead is how long the head of a request may be, in bytes.
	endpointHead = 8192
	// endpointFiles is the limit of open files below which those that the endpoint
	// uses could be missed where connections are received.
	endpointFiles = 64
)

// metricsOf binds what option --metrics names and answers there from now on, until
// Close. It returns nil without the option.
func metricsOf(c *cli.Context, log logger, accepts, runs bool) (*metrics, error) {
	text := c.String("metrics")
	if text == "" && !c.IsSet("metrics") {
		return nil, nil
	}
	a, err := listen.ParseAddress(text)
	if err != nil {
		return nil, usagef("option --metrics: address %q: %w", text, err)
	}
	if a.Kind == listen.Inherited && !inherited(a.FD) {
		return nil, usageHint("a parent process or a supervisor opens it", "option --metrics: address %q: descriptor %d is not open", text, a.FD)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil && limit.Cur < endpointFiles {
		return nil, hint.Wrap(fmt.Errorf("option --metrics: the limit of %d open files leaves too few descriptors", limit.Cur),
			"ulimit -n shows and raises it (RLIMIT_NOFILE)")
	}
	m := newMetrics(accepts, runs)
	m.address = a
	err = m.bind(log)
	if takesOver(c) && errors.Is(err, unix.EADDRINUSE) {
		m.lacking, err = true, nil // whose place is taken may have it
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

// bind begins to answer at the address.
func (m *metrics) bind(log logger) error {
	listeners, err := listen.Listen(m.address, listen.Options{Backlog: endpointBacklog})
	if err != nil {
		return fmt.Errorf("option --metrics: %w", err)
	}
	for _, l := range listeners {
		log.event(isInfo, "metrics", "metrics at {local}", slog.String("local", l.String()))
	}
	m.endpoint = newEndpoint(listeners, m.expose)
	return nil
}

// late binds an address that was in use when this process began, now that those are gone
// whose place it has taken, unless stop is closed before. It says so if that cannot be.
func (m *metrics) late(log logger, stop <-chan struct{}) {
	if m == nil || !m.lacking {
		return
	}
	err := m.bind(log)
	for deadline := time.Now().Add(takeoverTime); errors.Is(err, unix.EADDRINUSE) && time.Now().Before(deadline); {
		select {
		case <-time.After(20 * time.Millisecond):
			err = m.bind(log)
		case <-stop:
			return
		}
	}
	if err != nil {
		log.error(err)
	}
}

// newEndpoint begins to answer at the listeners, which it owns.
func newEndpoint(listeners []*listen.Listener, text func() []byte) *endpoint {
	e := &endpoint{text: text, listeners: listeners}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	for _, l := range listeners {
		for range endpointClients {
			e.clients.Go(func() { e.serve(l) })
		}
	}
	return e
}

// Close gives up the addresses, and cuts off who is being answered. Further calls do
// nothing, and that of a nil endpoint.
func (e *endpoint) Close() {
	if e == nil {
		return
	}
	closeListeners(e.listeners)
	e.cancel()
	e.clients.Wait()
}

// serve answers one client after the other.
func (e *endpoint) serve(l *listen.Listener) {
	var c listen.Conn
	for {
		switch err := l.Accept(&c); {
		case errors.Is(err, listen.ErrStopped):
			return
		case err != nil: // short of descriptors or memory
			time.Sleep(50 * time.Millisecond)
			continue
		}
		file := os.NewFile(uintptr(c.FD), "client")
		conn, err := net.FileConn(file) // a copy, on which there are deadlines
		_ = file.Close()
		if err == nil {
			e.answer(conn)
			_ = conn.Close()
		}
	}
}

func (e *endpoint) answer(conn net.Conn) {
	_ = conn.SetDeadline(time.Now().Add(endpointTime))
	defer context.AfterFunc(e.ctx, func() { _ = conn.SetDeadline(time.Now()) })()
	head, err := readHead(conn)
	if err != nil {
		return
	}
	status, body := statusFor(head), []byte(nil)
	if status == statusOK {
		body = e.text()
	} else {
		body = []byte(status + "\n")
	}
	// RFC 9112. Each connection has one request, as an idle client would take the
	// place of others.
	answer := fmt.Appendf(nil, "HTTP/1.1 %s\r\nDate: %s\r\nAllow: GET\r\nConnection: close\r\n"+
		"Content-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: %d\r\n\r\n",
		status, time.Now().UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT"), len(body))
	if _, err := conn.Write(append(answer, body...)); err != nil {
		return
	}
	// What is unread when a socket is closed resets it, and may take the answer with
	// it: RFC 9112, 9.6.
	if half, ok := conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_, _ = io.CopyN(io.Discard, conn, 1<<20)
	}
}

// readHead reads the head of a request, to its empty line.
func readHead(conn io.Reader) ([]byte, error) {
	head := make([]byte, 0, endpointHead)
	for {
		n, err := conn.Read(head[len(head):cap(head)])
		head = head[:len(head)+n]
		switch end := bytes.Index(head, []byte("\r\n\r\n")); {
		case end >= 0:
			return head[:end], nil
		case len(head) == cap(head):
			return nil, nil // a bad request
		case err != nil:
			return nil, err
		}
	}
}

const (
	statusOK         = "200 OK"
	statusBad        = "400 Bad Request"
	statusNotFound   = "404 Not Found"
	statusNotAllowed = "405 Method Not Allowed"
)

// statusFor returns the status of the answer to a request with that head.
func statusFor(head []byte) string {
	line, _, _ := strings.Cut(string(head), "\r\n")
	words := strings.Split(line, " ")
	if len(words) != 3 || words[0] == "" || words[2] != "HTTP/1.1" && words[2] != "HTTP/1.0" {
		return statusBad
	}
	path, _, _ := strings.Cut(words[1], "?")
	if rest, absolute := strings.CutPrefix(path, "http://"); absolute { // as to a proxy: RFC 9112, 3.2.2
		_, rest, _ = strings.Cut(rest, "/")
		path = "/" + rest
	}
	switch {
	case path != "/metrics":
		return statusNotFound
	case words[0] != "GET":
		return statusNotAllowed
	}
	return statusOK
}
