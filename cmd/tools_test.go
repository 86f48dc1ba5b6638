//go:build linux

package cmd_test

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"fdkit/fdrecv"
	"fdkit/fdsend"
)

// await runs a shell command again and again until it succeeds:
//
//	await 'test -s address'
//
// It fails after ten seconds, and shows what the command said last.
func await() {
	command := strings.Join(os.Args[1:], " ")
	deadline := time.Now().Add(10 * time.Second)
	for {
		out, err := exec.Command("sh", "-c", command).CombinedOutput()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			fmt.Fprintf(os.Stderr, "await %q: not so within 10 s: %v\n%s", command, err, out)
			os.Exit(1)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// dial is a client: it connects to ADDRESS (HOST:PORT or unix:PATH), sends its
// stdin, shuts its sending side down, and prints what it gets.
//
//	dial [-wait TIME] [-count N] [-parallel N] ADDRESS
//
// With -count it makes N connections, some at once, each with all of stdin, and
// expects it back: it prints how many were answered so, and what befell the
// others.
func dial() {
	count := flag.Int("count", 0, "connections that expect an echo")
	parallel := flag.Int("parallel", 8, "of these at once")
	hold := flag.String("hold", "", "after sending, keep the sending side open until this file exists")
	flag.Parse()
	input, err := io.ReadAll(os.Stdin)
	fatal(err)
	if *count == 0 {
		out, err := exchange(flag.Arg(0), input, *hold)
		os.Stdout.Write(out)
		fatal(err)
		return
	}
	var answered atomic.Int64
	var troubles sync.Map
	var group sync.WaitGroup
	turns := make(chan struct{}, *parallel)
	for range *count {
		turns <- struct{}{}
		group.Go(func() {
			out, err := exchange(flag.Arg(0), input, "")
			switch {
			case err != nil:
				troubles.Store(err.Error(), nil)
			case !bytes.Equal(out, input):
				troubles.Store(fmt.Sprintf("got %q", out), nil)
			default:
				answered.Add(1)
			}
			<-turns
		})
	}
	group.Wait()
	fmt.Printf("%d answered\n", answered.Load())
	troubles.Range(func(text, _ any) bool {
		fmt.Println(text)
		return true
	})
}

func exchange(address string, input []byte, hold string) ([]byte, error) {
	network := "tcp"
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", path
	}
	conn, err := net.DialTimeout(network, address, 10*time.Second)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	go func() {
		_, _ = conn.Write(input)
		for hold != "" {
			if _, err := os.Stat(hold); err == nil {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		_ = conn.(interface{ CloseWrite() error }).CloseWrite()
	}()
	return io.ReadAll(conn)
}

// filter is a filter between queues, as fdkit's own will be: it passes on what it
// receives, and says the payload's variable that its argument names.
func filter() {
	from, err := fdrecv.Open("", fdrecv.Options{})
	fatal(err)
	to, err := fdsend.Open("", fdsend.Options{})
	fatal(err)
	go func() {
		<-to.Gone()
		os.Exit(0)
	}()
	receiver, sender := from.Receiver(), to.Sender()
	var m fdrecv.Message
	for {
		err := receiver.Receive(&m)
		if err == io.EOF {
			return
		}
		fatal(err)
		for name, value := range m.Vars() {
			if len(os.Args) > 1 && name == os.Args[1] {
				fmt.Fprintf(os.Stderr, "filter: %s\n", value)
			}
		}
		fatal(sender.Send(m.Payload, m.FDs...))
		m.Close()
	}
}

func fatal(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, os.Args[0]+":", err)
		os.Exit(1)
	}
}
