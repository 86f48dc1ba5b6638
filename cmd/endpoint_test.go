//go:build linux

package cmd

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fdkit/internal/fdtest"
	"fdkit/listen"
)

func anEndpoint(t *testing.T, address string) (e *endpoint, local string) {
	t.Helper()
	a, err := listen.ParseAddress(address)
	if err != nil {
		t.Fatal(err)
	}
	listeners, err := listen.Listen(a, listen.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e = newEndpoint(listeners, func() []byte { return []byte("a 1\n") })
	return e, listeners[0].String()
}

func TestEndpoint(t *testing.T) {
	dir := t.TempDir()
	for _, address := range []string{"127.0.0.1:0", "unix:" + filepath.Join(dir, "m")} {
		t.Run(address, func(t *testing.T) { testEndpoint(t, address) })
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
		t.Errorf("Close has left %v (%v)", files, err)
	}
}

func testEndpoint(t *testing.T, address string) {
	fdtest.NoLeaks(t)
	e, local := anEndpoint(t, address)
	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		if path, ok := strings.CutPrefix(local, "unix:"); ok {
			return net.Dial("unix", path)
		}
		return net.Dial("tcp", local)
	}}
	client := &http.Client{Transport: transport, Timeout: fdtest.Limit}
	for _, test := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/metrics", "", 200, "a 1\n"},
		{"GET", "/metrics?x=y", "", 200, "a 1\n"},
		{"GET", "/", "", 404, "404 Not Found\n"},
		{"GET", "/metrics/", "", 404, "404 Not Found\n"},
		{"GET", "/debug/pprof/", "", 404, "404 Not Found\n"},
		{"POST", "/metrics", strings.Repeat("x", 100000), 405, "405 Method Not Allowed\n"},
		{"DELETE", "/metrics", "", 405, "405 Method Not Allowed\n"},
		{"GET", "/" + strings.Repeat("x", endpointHead), "", 400, "400 Bad Request\n"},
	} {
		request, err := http.NewRequest(test.method, "http://example"+test.path, strings.NewReader(test.body))
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Errorf("%s %.20s at %s: %v", test.method, test.path, address, err)
			continue
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != test.status || string(body) != test.want || err != nil {
			t.Errorf("%s %.20s at %s = %d, %q, %v; want %d, %q", test.method, test.path, address, response.StatusCode, body, err, test.status, test.want)
		}
		if at, err := http.ParseTime(response.Header.Get("Date")); err != nil || time.Since(at).Abs() > time.Minute {
			t.Errorf("Date: %s, %v; want the time", response.Header.Get("Date"), err)
		}
	}
	e.Close()
	if conn, err := transport.DialContext(t.Context(), "", ""); err == nil {
		conn.Close()
		t.Errorf("%s can be connected to after Close", address)
	}
}

// Clients that send nothing hold up others for a while, and Close not at all.
func TestEndpointSilentClients(t *testing.T) {
	fdtest.NoLeaks(t)
	e, local := anEndpoint(t, "127.0.0.1:0")
	var silent []net.Conn
	for range endpointClients + 1 {
		conn, err := net.Dial("tcp", local)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, _ = conn.Write([]byte("GET /metrics HT"))
		silent = append(silent, conn)
	}
	response, err := http.Get("http://" + local + "/metrics")
	if err != nil || response.StatusCode != 200 {
		t.Fatalf("Get = %v, %v; want an answer once the silent clients' time is over", response, err)
	}
	response.Body.Close()
	if _, err := bufio.NewReader(silent[0]).ReadByte(); err != io.EOF {
		t.Errorf("reading what a silent client gets = %v; want EOF", err)
	}
	http.DefaultClient.CloseIdleConnections()
	last, err := net.Dial("tcp", local)
	if err != nil {
		t.Fatal(err)
	}
	defer last.Close()
	begin := time.Now()
	e.Close()
	if took := time.Since(begin); took > endpointTime/2 {
		t.Errorf("Close took %v while a client was silent", took)
	}
}

func TestStatusFor(t *testing.T) {
	for _, test := range []struct{ head, want string }{
		{"GET /metrics HTTP/1.1\r\nHost: a", statusOK},
		{"GET /metrics HTTP/1.0", statusOK},
		{"GET http://localhost:9100/metrics HTTP/1.1", statusOK},
		{"GET http://localhost:9100 HTTP/1.1", statusNotFound},
		{"GET http://metrics HTTP/1.1", statusNotFound},
		{"GET /metrics/../metrics HTTP/1.1", statusNotFound},
		{"GET /Metrics HTTP/1.1", statusNotFound},
		{"HEAD /metrics HTTP/1.1", statusNotAllowed},
		{"get /metrics HTTP/1.1", statusNotAllowed},
		{"OPTIONS * HTTP/1.1", statusNotFound},
		{"PRI * HTTP/2.0", statusBad},
		{"GET /metrics", statusBad},
		{"GET  /metrics HTTP/1.1", statusBad},
		{" /metrics HTTP/1.1", statusBad},
		{"GET /metrics HTTP/1.1 ", statusBad},
		{"GET /metrics HTTP/1.1\nHost: a", statusBad},
		{"\r\nGET /metrics HTTP/1.1", statusBad},
		{"", statusBad},
	} {
		if got := statusFor([]byte(test.head)); got != test.want {
			t.Errorf("statusFor(%q) = %s; want %s", test.head, got, test.want)
		}
	}
}

// FuzzStatusFor holds that only GET of /metrics is answered, as package http reads
// requests.
func FuzzStatusFor(f *testing.F) {
	f.Add("GET /metrics HTTP/1.1\r\nHost: a")
	f.Add("GET http://a/metrics?b HTTP/1.0")
	f.Fuzz(func(t *testing.T, head string) {
		if statusFor([]byte(head)) != statusOK || strings.Contains(head, "\r\n\r\n") {
			return
		}
		line, _, _ := strings.Cut(head, "\r\n")
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(line + "\r\nHost: a\r\n\r\n")))
		if err == nil && (r.Method != "GET" || r.URL.Path != "/metrics") {
			t.Errorf("statusFor(%q) = %s; package http reads %s %s", head, statusOK, r.Method, r.URL.Path)
		}
	})
}
