//go:build linux

package proto

import (
	"fmt"
	"os"
	"strconv"

	"fdkit/internal/scm"
)

// runc is how runc hands the terminal of a container to whoever listens at its console
// socket: one message with the descriptor of the master and a name, which is /dev/ptmx.
// SendFd() and RecvFd() in libcontainer/utils/cmsg.go of runc.
var runc = &Dialect{
	Name: "runc", About: "runc's console socket",
	Send: runcSend, Receive: runcReceive,
	Names: true, CheckName: runcCheckName,
}

// runcName is how long a name is at most: RecvFd() refuses one that fills MaxNameLen.
const runcName = 4096 - 1

func runcCheckName(name string) error {
	if len(name) > runcName {
		return fmt.Errorf("it has at most %d bytes", runcName)
	}
	return nil
}

func runcSend(c *Conn) (func(Parcel) error, error) {
	return func(p Parcel) error {
		if len(p.FDs) != 1 {
			return fmt.Errorf("a message has one descriptor, and here are %d", len(p.FDs))
		}
		if p.Names != nil {
			return c.Send([]byte(p.Names[0]), p.FDs...)
		}
		// runc sends the name of the file that it has opened.
		name, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(p.FDs[0]))
		if err == nil {
			err = runcCheckName(name)
		}
		if err != nil {
			return fmt.Errorf("cannot name the descriptor: %w", err)
		}
		return c.Send([]byte(name), p.FDs...)
	}, nil
}

func runcReceive(c *Conn, _ Want) (func(*scm.Message) error, error) {
	return func(m *scm.Message) error {
		if err := c.Receive(m); err != nil {
			return err
		}
		if len(m.FDs) != 1 || len(m.Payload) == 0 || len(m.Payload) > runcName {
			defer m.Close()
			return fmt.Errorf("%w: descriptors: %d, and not one with a name: %s", ErrAnswer, len(m.FDs), excerpt(m.Payload))
		}
		m.Names, m.Payload = []string{string(m.Payload)}, nil
		return nil
	}, nil
}
