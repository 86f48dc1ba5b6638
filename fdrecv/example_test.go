//go:build linux

package fdrecv_test

import (
	"fmt"
	"io"
	"log"
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
