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

// A descriptor goes to another program in that program's dialect, here the one of
// Python's multiprocessing, of which this process is the other end too.
func ExampleQueue_Speak() {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
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
	defer from.Close()

	send, err := to.Speak("python-multiprocessing")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("send stdout and stderr:", send(fdsend.Parcel{FDs: []int{1, 2}}))

	receiver, err := from.Speak("python-multiprocessing", fdrecv.Want{})
	if err != nil {
		log.Fatal(err)
	}
	defer receiver.Close()
	var m fdrecv.Message
	fmt.Println("receive:", receiver.Receive(&m), len(m.FDs), "descriptors")
	m.Close()
	// Output:
	// send stdout and stderr: <nil>
	// receive: <nil> 2 descriptors
}
