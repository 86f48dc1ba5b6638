//go:build linux

package fdrecv_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"

	"fdkit/fdrecv"
	"fdkit/fdsend"
)

// A sender and a receiver meet at a named queue, in any order of start. Here they
// are in one process, and what is passed is the reading end of a pipe.
func Example() {
	name := fmt.Sprintf("@fdkit-example-%d", os.Getpid())
	to, err := fdsend.Open(name, fdsend.Options{})
	if err != nil {
		log.Fatal(err)
	}
	from, err := fdrecv.Open(name, fdrecv.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer from.Close()

	read, write, err := os.Pipe()
	if err != nil {
		log.Fatal(err)
	}
	payload := fdsend.AppendVar([]byte(fdsend.Begin), "FDKIT_NOTE", "a pipe")
	if err := to.Sender().Send(payload, int(read.Fd())); err != nil {
		log.Fatal(err)
	}
	read.Close() // the queue has a copy
	if _, err := to.Close(); err != nil {
		log.Fatal(err)
	}

	var m fdrecv.Message
	if err := from.Receiver().Receive(&m); err != nil {
		log.Fatal(err)
	}
	for name, value := range m.Vars() {
		fmt.Printf("%s=%s\n", name, value)
	}
	received := os.NewFile(uintptr(m.FDs[0]), "received")
	defer received.Close()
	fmt.Fprintln(write, "through the pipe that was passed")
	write.Close()
	text, err := io.ReadAll(received)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(string(text))
	// Output:
	// FDKIT_NOTE=a pipe
	// through the pipe that was passed
}

// A web server whose connections come from fdkit is a worker with
// "fdkit listen :8080 | fdkit pool --resident PROGRAM".
func ExampleListener() {
	q, err := fdrecv.OpenEnviron(fdrecv.Options{})
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{Handler: http.FileServer(http.Dir("www"))}
	if err := server.Serve(fdrecv.Listener(q)); err != io.EOF {
		log.Fatal(err)
	}
	_ = server.Shutdown(context.Background()) // the queue has ended: finish the clients
}

// What has come with a connection is told to the handlers of its requests. A server of TLS
// has a *tls.Conn there, whose NetConn is the *fdrecv.Conn. Here the sender is in the same
// process.
func ExampleListener_connContext() {
	name := fmt.Sprintf("@fdkit-example-http-%d", os.Getpid())
	to, err := fdsend.Open(name, fdsend.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer to.Close()
	q, err := fdrecv.Open(name, fdrecv.Options{})
	if err != nil {
		log.Fatal(err)
	}

	type connKey struct{}
	server := &http.Server{
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c.(*fdrecv.Conn))
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			key, _ := r.Context().Value(connKey{}).(*fdrecv.Conn).Var("FDKIT_KEY")
			fmt.Fprintf(w, "hello %s, your key is %s\n", r.RemoteAddr, key)
		}),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(fdrecv.Listener(q)) }()

	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer front.Close()
	go func() {
		conn, err := front.Accept()
		if err != nil {
			log.Fatal(err)
		}
		file, err := conn.(*net.TCPConn).File()
		if err != nil {
			log.Fatal(err)
		}
		payload := fdsend.AppendVar([]byte(fdsend.Begin), "PROTO", "TCP")
		payload = fdsend.AppendVar(payload, "TCPREMOTEIP", "192.0.2.1")
		payload = fdsend.AppendVar(payload, "TCPREMOTEPORT", "5000")
		payload = fdsend.AppendVar(payload, "FDKIT_KEY", "blue")
		if err := to.Sender().Send(payload, int(file.Fd())); err != nil {
			log.Fatal(err)
		}
		conn.Close()
		file.Close()
	}()
	response, err := http.Get("http://" + front.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(string(text))

	http.DefaultClient.CloseIdleConnections()
	if err := server.Shutdown(context.Background()); err != nil {
		log.Fatal(err)
	}
	fmt.Println(errors.Is(<-served, http.ErrServerClosed))
	// Output:
	// hello 192.0.2.1:5000, your key is blue
	// true
}
