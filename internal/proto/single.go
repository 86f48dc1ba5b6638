//go:build linux

package proto

import (
	"errors"
	"fmt"

	"fdkit/internal/scm"
)

// openssh is what ssh with ProxyUseFdpass reads from its ProxyCommand: one NUL byte
// with one descriptor. mm_receive_fd() in monitor_fdpass.c of OpenSSH takes one byte
// of any value.
var openssh = single("openssh", "ssh with ProxyUseFdpass, ssh_config(5)", 0, "a connection")

// utilLinux is what fdsend of util-linux sends after it has connected to the stream
// socket at which its fdrecv waits: one space with one descriptor. In
// misc-utils/fdsend-common.c, fdsend_connect_and_send_fd(); fdrecv_accept_and_recv_fd()
// takes one byte of any value.
var utilLinux = single("util-linux", "fdsend and fdrecv of util-linux", ' ', "a descriptor")

// single returns a dialect in which the byte b, or another one, with one descriptor is all
// that is sent on a connection. What says, in a line, what that is.
func single(name, about string, b byte, what string) *Dialect {
	return &Dialect{
		Name: name, About: about, Resumes: true,
		Send: func(c *Conn) (func(Parcel) error, error) {
			sent := false
			return func(p Parcel) error {
				if len(p.FDs) != 1 {
					return fmt.Errorf("it has one descriptor in a message, not %d", len(p.FDs))
				}
				if sent {
					return errors.New("it has one message on a connection, and that is sent")
				}
				sent = true
				return c.Send([]byte{b}, p.FDs...)
			}, nil
		},
		Receive: func(c *Conn, _ Want) (func(*scm.Message) error, error) {
			return func(m *scm.Message) error {
				if err := c.Receive(m); err != nil {
					return err
				}
				if !isSingle(m.Payload, len(m.FDs)) {
					defer m.Close()
					return fmt.Errorf("%w: %s", ErrAnswer, notSingle(m.Payload, len(m.FDs)))
				}
				return nil
			}, nil
		},
		Decoder: func() Decoder { return singleDecoder(what) },
	}
}

func isSingle(data []byte, fds int) bool { return len(data) == 1 && fds == 1 }

func notSingle(data []byte, fds int) string {
	return fmt.Sprintf("%s with %s, not one with one: %s", count(len(data), "byte"), count(fds, "descriptor"), excerpt(data))
}

type singleDecoder string

func (d singleDecoder) Decode(_ Direction, data []byte, fds int) []string {
	if !isSingle(data, fds) {
		return []string{notSingle(data, fds)}
	}
	return []string{string(d)}
}
