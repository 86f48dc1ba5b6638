//go:build linux

package exec_test

import (
	"fmt"
	"io"
	"log"
	"os"
	"syscall"

	"fdkit/exec"
)

// A pool runs a program for each connection, here one that its caller has made
// itself. Mostly they come from a queue, by package fdrecv.
func ExamplePool() {
	program, err := exec.Find("sh", "-c", `read name; echo "hello, $name, from $TCPREMOTEIP"`)
	if err != nil {
		log.Fatal(err)
	}
	environ, err := exec.NewEnviron(os.Environ())
	if err != nil {
		log.Fatal(err)
	}
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		log.Fatal(err)
	}
	client := os.NewFile(uintptr(pair[0]), "client")
	defer client.Close()
	fmt.Fprintln(client, "world")

	connections := make(chan exec.Connection, 1)
	connections <- exec.Connection{FDs: []int{pair[1]}, Payload: []byte("FDKIT=1\x00TCPREMOTEIP=192.0.2.1\x00")}
	close(connections)
	pool := exec.Pool{
		Program: program,
		Environ: environ,
		Slots:   40,
		Receivers: func() func(*exec.Connection) error {
			return func(c *exec.Connection) error {
				var open bool
				if *c, open = <-connections; !open {
					return io.EOF
				}
				return nil
			}
		},
		Ended: func(run *exec.Run) { fmt.Println("exit", run.Status.ExitStatus()) },
	}
	if err := pool.Run(); err != nil {
		log.Fatal(err)
	}
	answer, err := io.ReadAll(client)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(string(answer))
	// Output:
	// exit 0
	// hello, world, from 192.0.2.1
}

func ExampleEnviron_For() {
	environ, err := exec.NewEnviron([]string{"LANG=C", "TCPREMOTEIP=192.0.2.99"}, "X_*")
	if err != nil {
		log.Fatal(err)
	}
	payload := []byte("FDKIT=1\x00PROTO=TCP\x00X_NOTE=hello\x00PATH=/tmp\x00")
	for _, variable := range environ.For(0, payload) {
		fmt.Println(variable)
	}
	// Output:
	// LANG=C
	// PROTO=TCP
	// X_NOTE=hello
}
