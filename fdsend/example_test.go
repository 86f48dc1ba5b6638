//go:build linux

package fdsend_test

import (
	"errors"
	"fmt"
	"log"
	"syscall"

	"fdkit/fdrecv"
	"fdkit/fdsend"
)

// Over a socket pair that both sides have already, here in one process, the
// sender learns when no receiver is left.
func ExampleQueue_Gone() {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		log.Fatal(err)
	}
	to, err := fdsend.Open(fmt.Sprintf("fd:%d", pair[0]), fdsend.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer to.Close()
	from, err := fdrecv.Open(fmt.Sprintf("fd:%d", pair[1]), fdrecv.Options{})
	if err != nil {
		log.Fatal(err)
	}

	sender := to.Sender()
	fmt.Println("send stderr:", sender.Send([]byte(fdsend.Begin), 2))
	var m fdrecv.Message
	fmt.Println("receive:", from.Receiver().Receive(&m), len(m.FDs), "descriptor")
	m.Close()

	from.Close()
	<-to.Gone()
	fmt.Println("send again:", errors.Is(sender.Send([]byte(fdsend.Begin), 2), fdsend.ErrGone))
	// Output:
	// send stderr: <nil>
	// receive: <nil> 1 descriptor
	// send again: true
}
