//go:build linux

package fdrecv_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/rpc"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/fdrecv"
	"fdkit/internal/fdtest"
)

// clientTo returns an HTTP client whose requests all go to the address.
func clientTo(t *testing.T, address string, config *tls.Config) *http.Client {
	t.Helper()
	var dialer net.Dialer
	transport := &http.Transport{
		TLSClientConfig:   config,
		ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: fdtest.Limit}
}

func get(t *testing.T, client *http.Client, url string) (string, *http.Response) {
	t.Helper()
	response, err := client.Get(url)
	if err != nil {
		t.Fatalf("GET %s: %v", url, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("GET %s: %v", url, err)
	}
	return string(body), response
}

type connKey struct{}

// keepConn lets handlers find the connection.
func keepConn(ctx context.Context, c net.Conn) context.Context {
	if hidden, ok := c.(*tls.Conn); ok {
		c = hidden.NetConn()
	}
	return context.WithValue(ctx, connKey{}, c.(*fdrecv.Conn))
}

// whoIs answers with what the server knows of the connection.
func whoIs(w http.ResponseWriter, r *http.Request) {
	conn := r.Context().Value(connKey{}).(*fdrecv.Conn)
	key, _ := conn.Var("FDKIT_KEY")
	fmt.Fprintf(w, "%s %s %s %v", r.Proto, r.RemoteAddr, key, r.Context().Value(http.LocalAddrContextKey))
}

var told = []string{
	"PROTO=TCP", "TCPREMOTEIP=192.0.2.1", "TCPREMOTEPORT=5000",
	"TCPLOCALIP=198.51.100.2", "TCPLOCALPORT=80", "FDKIT_KEY=blue",
}

const wantTold = " 192.0.2.1:5000 blue 198.51.100.2:80"

// Requests of one connection, and large files in both directions; Serve returns at the end
// of the queue, and Shutdown waits for clients.
func TestServeHTTP(t *testing.T) {
	fdtest.NoLeaks(t)
	send, q := newQueue(t)
	address := front(t, send, told...)
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	began, goOn := make(chan bool), make(chan bool)
	mux := http.NewServeMux()
	mux.HandleFunc("/who", whoIs)
	mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, file) })
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		began <- true
		<-goOn
		whoIs(w, r)
	})
	server := &http.Server{Handler: mux, ConnContext: keepConn}
	served := make(chan error, 1)
	go func() { served <- server.Serve(fdrecv.Listener(q)) }()

	client := clientTo(t, address, nil)
	for range 3 {
		if body, _ := get(t, client, "http://x/who"); body != "HTTP/1.1"+wantTold {
			t.Errorf("the server says %q, want %q", body, "HTTP/1.1"+wantTold)
		}
	}
	if body, _ := get(t, client, "http://x/file"); body != string(content) {
		t.Errorf("got %d bytes, want the file's %d", len(body), len(content))
	}

	slow := make(chan string, 1)
	go func() {
		body, _ := get(t, client, "http://x/slow")
		slow <- body
	}()
	fdtest.Soon(t, "the request", began)
	send.Close()
	if err := fdtest.Soon(t, "the end of Serve", served); err != io.EOF {
		t.Errorf("Serve() = %v at the end of the queue, want io.EOF", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Shutdown(t.Context()) }()
	goOn <- true
	if body := fdtest.Soon(t, "the answer", slow); body != "HTTP/1.1"+wantTold {
		t.Errorf("the server says %q while it is shut down, want %q", body, "HTTP/1.1"+wantTold)
	}
	if err := fdtest.Soon(t, "the end of Shutdown", ended); err != nil {
		t.Errorf("Shutdown() = %v", err)
	}
}

// Shutdown ends Serve, which waits for the queue.
func TestServeShutdown(t *testing.T) {
	fdtest.NoLeaks(t)
	_, q := newQueue(t)
	server := &http.Server{Handler: http.NotFoundHandler()}
	served := make(chan error, 1)
	go func() { served <- server.Serve(fdrecv.Listener(q)) }()
	fdtest.Eventually(t, "Accept waits", func() bool { return fdtest.Blocked(unix.SYS_RECVMSG, q.FD()) })
	if err := server.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown() = %v", err)
	}
	if err := fdtest.Soon(t, "the end of Serve", served); err != http.ErrServerClosed {
		t.Errorf("Serve() = %v, want ErrServerClosed", err)
	}
}

// HTTP/1.1 and HTTP/2 over TLS, and HTTP/2 without, with leases.
func TestServeTLS(t *testing.T) {
	for _, test := range []struct {
		proto    string
		tls, two bool
	}{{"HTTP/1.1", true, false}, {"HTTP/2.0", true, true}, {"HTTP/2.0", false, true}} {
		t.Run(fmt.Sprintf("%s, TLS %t", test.proto, test.tls), func(t *testing.T) {
			fdtest.NoLeaks(t)
			send, q := newQueue(t)
			address := front(t, send, append(told, "FDKIT_LEASE=1")...)
			server := &httptest.Server{
				Listener:    fdrecv.Listener(q, fdrecv.Leases(10)),
				EnableHTTP2: test.two,
				Config:      &http.Server{Handler: http.HandlerFunc(whoIs), ConnContext: keepConn},
			}
			scheme := "https://example.com"
			if test.tls {
				server.StartTLS()
			} else {
				server.Config.Protocols = new(http.Protocols)
				server.Config.Protocols.SetUnencryptedHTTP2(true)
				server.Start()
				scheme = "http://x"
			}
			defer server.Close()
			transport := server.Client().Transport.(*http.Transport)
			client := clientTo(t, address, transport.TLSClientConfig)
			client.Transport.(*http.Transport).Protocols = server.Config.Protocols
			for range 2 {
				if body, response := get(t, client, scheme); body != test.proto+wantTold || (response.TLS != nil) != test.tls {
					t.Errorf("the server says %q, want %q", body, test.proto+wantTold)
				}
			}
			if got := heard(t, send); got != "READY=10" {
				t.Errorf("the worker says %q, want READY=10", got)
			}
			client.CloseIdleConnections()
			if got := heard(t, send); got != "DONE=1 READY" {
				t.Errorf("the worker says %q, want DONE=1 READY", got)
			}
		})
	}
}

type Echo struct{}

func (Echo) Say(text string, answer *string) error {
	*answer = text
	return nil
}

// A server that ends at any error of Accept goes on after a message that is no connection.
func TestServeRPC(t *testing.T) {
	fdtest.NoLeaks(t)
	send, q := newQueue(t)
	address := front(t, send)
	server := rpc.NewServer()
	if err := server.Register(Echo{}); err != nil {
		t.Fatal(err)
	}
	l := fdrecv.Listener(q, fdrecv.Trouble(func(error) {}))
	defer l.Close()
	go server.Accept(l)
	for range 3 {
		read, _ := fdtest.Pipe(t)
		give(t, send, nil, read)
		client, err := rpc.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		var answer string
		if err := client.Call("Echo.Say", "hello", &answer); err != nil || answer != "hello" {
			t.Errorf("Echo.Say answers %q, %v; want hello", answer, err)
		}
		client.Close()
	}
}

// Deadlines end reads, and a connection that came blocking is no thread's.
func TestConnDeadline(t *testing.T) {
	fdtest.NoLeaks(t)
	for _, nonblocking := range []bool{false, true} {
		send, q := newQueue(t)
		_, server := fdtest.TCPPair(t)
		if err := unix.SetNonblock(server.FD, nonblocking); err != nil {
			t.Fatal(err)
		}
		give(t, send, nil, server)
		conn := accept(t, fdrecv.Listener(q))
		if err := conn.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read() = %v, want ErrDeadlineExceeded", err)
		}
	}
}

// The abilities of *net.TCPConn and *net.UnixConn are there: files are sent whole, one side
// is shut down, connections are copied to one another.
func TestConnAbilities(t *testing.T) {
	fdtest.NoLeaks(t)
	pairs := map[string]func() (client, server *fdtest.End){
		"TCP":  func() (client, server *fdtest.End) { return fdtest.TCPPair(t) },
		"Unix": func() (client, server *fdtest.End) { return fdtest.Pair(t, unix.SOCK_STREAM) },
	}
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<14)
	name := t.TempDir() + "/file"
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for from, fromPair := range pairs {
		for to, toPair := range pairs {
			send, q := newQueue(t)
			l := fdrecv.Listener(q)
			client, server := fromPair()
			give(t, send, nil, server)
			a := accept(t, l)
			receiver, server := toPair()
			give(t, send, nil, server)
			b := accept(t, l)

			// A file to a, whose client gives it back; and from a to b.
			file, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			var group sync.WaitGroup
			group.Go(func() {
				if n, err := a.ReadFrom(file); n != int64(len(content)) || err != nil {
					t.Errorf("%s: ReadFrom(file) = %d, %v; want %d", from, n, err, len(content))
				}
				file.Close()
				if err := a.CloseWrite(); err != nil {
					t.Errorf("%s: CloseWrite() = %v", from, err)
				}
			})
			group.Go(func() {
				buf := make([]byte, 1<<16)
				for {
					n, err := unix.Read(client.FD, buf)
					if n <= 0 {
						if err != nil {
							t.Errorf("read: %v", err)
						}
						client.Close()
						return
					}
					for out := buf[:n]; len(out) > 0; {
						n, err := unix.Write(client.FD, out)
						if err != nil {
							t.Errorf("write: %v", err)
							return
						}
						out = out[n:]
					}
				}
			})
			group.Go(func() {
				if n, err := io.Copy(b, a); n != int64(len(content)) || err != nil {
					t.Errorf("%s to %s: io.Copy = %d, %v; want %d", from, to, n, err, len(content))
				}
				b.Close()
			})
			got, err := io.ReadAll(os.NewFile(uintptr(receiver.Take()), "receiver"))
			if !bytes.Equal(got, content) || err != nil {
				t.Errorf("%s to %s: %d bytes come, %v; want the file's %d", from, to, len(got), err, len(content))
			}
			group.Wait()
			raw, err := a.SyscallConn()
			if err != nil || raw.Control(func(uintptr) {}) != nil {
				t.Errorf("%s: SyscallConn() = %v, want one that works", from, err)
			}
			if err := a.CloseRead(); err != nil && !errors.Is(err, unix.ENOTCONN) {
				t.Errorf("%s: CloseRead() = %v", from, err)
			}
			_, isTCP := a.NetConn().(*net.TCPConn)
			if _, isUnix := a.NetConn().(*net.UnixConn); isTCP != (from == "TCP") || isUnix != (from == "Unix") {
				t.Errorf("%s: NetConn() is a %T", from, a.NetConn())
			}
			a.Close()
		}
	}
}

// A thousand connections at once, each of which is answered.
func TestServeThousand(t *testing.T) {
	fdtest.NoLeaks(t)
	send, q := newQueue(t)
	l := fdrecv.Listener(q)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	defer l.Close()
	const n = 1000
	var clients []*fdtest.End
	for i := range n {
		client, server := fdtest.Pair(t, unix.SOCK_STREAM)
		give(t, send, nil, server)
		if _, err := fmt.Fprintf(writer(client.FD), "%d", i); err != nil {
			t.Fatal(err)
		}
		clients = append(clients, client)
	}
	for i, client := range clients {
		buf := make([]byte, 10)
		got, err := unix.Read(client.FD, buf)
		if want := fmt.Sprint(i); err != nil || string(buf[:got]) != want {
			t.Fatalf("client %d reads %q, %v; want %s", i, buf[:max(got, 0)], err, want)
		}
		client.Close()
	}
}

type writer int

func (w writer) Write(b []byte) (int, error) { return unix.Write(int(w), b) }
