//go:build linux

package proto

import (
	"fmt"

	"fdkit/internal/scm"
)

// python is what sendfds() and recvfds() of Python's multiprocessing.reduction say, and
// by them send_handle() and recv_handle(), which take the connections of
// multiprocessing.connection: one byte, how many descriptors there are modulo 256, and
// these. Only on Darwin does the receiver answer. CPython's Lib/multiprocessing/reduction.py.
var python = &Dialect{
	Name: "python-multiprocessing", About: "Python's multiprocessing.reduction",
	Send: func(c *Conn) (func(Parcel) error, error) {
		return func(p Parcel) error { return c.Send([]byte{byte(len(p.FDs))}, p.FDs...) }, nil
	},
	Receive: func(c *Conn, _ Want) (func(*scm.Message) error, error) {
		return func(m *scm.Message) error {
			if err := c.Receive(m); err != nil {
				return err
			}
			if !isPython(m.Payload, len(m.FDs)) {
				defer m.Close()
				return fmt.Errorf("%w: %s", ErrAnswer, notPython(m.Payload, len(m.FDs)))
			}
			m.Payload = nil // it says nothing else
			return nil
		}, nil
	},
	Decoder: func() Decoder { return pythonDecoder{} },
}

func isPython(data []byte, fds int) bool { return len(data) == 1 && data[0] == byte(fds) }

func notPython(data []byte, fds int) string {
	return fmt.Sprintf("%s with %s, not one byte that counts them: %s", count(len(data), "byte"), count(fds, "descriptor"), excerpt(data))
}

type pythonDecoder struct{}

func (pythonDecoder) Decode(_ Direction, data []byte, fds int) []string {
	if !isPython(data, fds) {
		return []string{notPython(data, fds)}
	}
	return []string{count(fds, "descriptor")}
}
