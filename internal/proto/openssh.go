//go:build linux

package proto

import (
	"fmt"

	"fdkit/internal/scm"
)

// openssh is what ssh with ProxyUseFdpass reads from its ProxyCommand: one NUL byte
// with one descriptor. mm_receive_fd() in monitor_fdpass.c of OpenSSH takes one byte
// of any value.
var openssh = &Dialect{
	Name: "openssh", About: "ssh with ProxyUseFdpass, ssh_config(5)", Resumes: true,
	Send: func(c *Conn) (func(Parcel) error, error) {
		send := c.plain([]byte{0})
		return func(p Parcel) error {
			if len(p.FDs) != 1 {
				return fmt.Errorf("ssh takes one descriptor, not %d", len(p.FDs))
			}
			return send(p)
		}, nil
	},
	Receive: func(c *Conn, _ Want) (func(*scm.Message) error, error) {
		return func(m *scm.Message) error {
			if err := c.Receive(m); err != nil {
				return err
			}
			if len(m.FDs) != 1 || len(m.Payload) != 1 {
				m.Close()
				return fmt.Errorf("%w: %d bytes with %d descriptors; ssh takes one with one", ErrAnswer, len(m.Payload), len(m.FDs))
			}
			return nil
		}, nil
	},
}
