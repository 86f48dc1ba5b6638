//go:build linux

package listen_test

import (
	"fmt"
	"log"
	"net"
	"os"
	"strings"

	"fdkit/listen"
)

// Each connection comes as a descriptor, with a payload that describes it.
func Example() {
	address, err := listen.ParseAddress("127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	listeners, err := listen.Listen(address, listen.Options{})
	if err != nil {
		log.Fatal(err)
	}
	l := listeners[0]
	defer l.Close()
	client, err := net.Dial("tcp", l.String())
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	var c listen.Conn
	if err := l.Accept(&c); err != nil {
		log.Fatal(err)
	}
	file := os.NewFile(uintptr(c.FD), "connection")
	defer file.Close()
	fmt.Println(c.Remote() == client.LocalAddr().String())
	for variable := range strings.SplitSeq(string(c.AppendPayload(nil)), "\x00") {
		name, _, _ := strings.Cut(variable, "=")
		fmt.Println(name)
	}
	// Output:
	// true
	// FDKIT
	// PROTO
	// TCPLOCALIP
	// TCPLOCALPORT
	// TCPREMOTEIP
	// TCPREMOTEPORT
	// REMOTE_ADDR
	// REMOTE_PORT
	// FDKIT_ACCEPTED
}

func ExampleParseAddress() {
	for _, text := range []string{":8080", "[::1]:http", "tcp4:localhost:25", "unix:/run/a.sock", "8080"} {
		a, err := listen.ParseAddress(text)
		fmt.Println(a, err)
	}
	// Output:
	// :8080 <nil>
	// [::1]:80 <nil>
	// tcp4:localhost:25 <nil>
	// unix:/run/a.sock <nil>
	// :0 the port is missing
}
