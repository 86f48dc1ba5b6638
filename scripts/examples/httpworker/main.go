//go:build linux

// Httpworker is a web server whose connections come from fdkit:
//
//	fdkit listen :8080 | fdkit pool --resident -n 4 httpworker
//
// It tells each client who it is, and counts the requests of its connection. With
// -leases N it asks the pool for its connections, at most N at a time.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os/signal"
	"sync/atomic"
	"syscall"

	"fdkit/fdrecv"
)

// conn is what handlers know of the connection that their request has come by.
type conn struct {
	*fdrecv.Conn
	requests atomic.Int64
}

type connKey struct{}

func main() {
	leases := flag.Int("leases", 0, "ask the pool for at most `N` connections at a time")
	flag.Parse()
	log.SetPrefix("httpworker: ")
	log.SetFlags(0)
	if err := serve(*leases); err != nil {
		log.Fatal(err)
	}
}

func serve(leases int) error {
	queue, err := fdrecv.OpenEnviron(fdrecv.Options{})
	if err != nil {
		return err
	}
	options := []fdrecv.ListenerOption{fdrecv.Trouble(func(err error) { log.Print(err) })}
	if leases > 0 {
		options = append(options, fdrecv.Leases(leases))
	}
	server := &http.Server{
		Handler: http.HandlerFunc(hello),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, &conn{Conn: c.(*fdrecv.Conn)})
		},
	}
	// SIGTERM comes from a pool with --share, and from people.
	told, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	shut := make(chan error, 1)
	go func() {
		<-told.Done()
		shut <- server.Shutdown(context.Background())
	}()
	// At the end of the queue, or when it was shut down, clients are served to their end.
	if err := server.Serve(fdrecv.Listener(queue, options...)); err != io.EOF && !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	stop() // which ends the context as well
	return <-shut
}

func hello(w http.ResponseWriter, r *http.Request) {
	c := r.Context().Value(connKey{}).(*conn)
	fmt.Fprintf(w, "hello %s, request %d\n", r.RemoteAddr, c.requests.Add(1))
	if key, ok := c.Var("FDKIT_KEY"); ok {
		fmt.Fprintf(w, "your key is %s\n", key)
	}
}
