//go:build linux

package proto

import (
	"encoding/json"
	"errors"
	"fmt"

	"fdkit/internal/fdinfo"
	"fdkit/internal/hint"
)

// qmp gives descriptors to QEMU, under names, for devices and back ends to use:
// command getfd of qapi/misc.json. The protocol is docs/interop/qmp-spec, a value in
// JSON in each line: a greeting, the negotiation of capabilities, then an answer to each
// command, and events at any time. monitor_get_fd() takes the descriptors of the
// command itself, and one of them.
var qmp = &Dialect{
	Name: "qmp", About: "QEMU's monitor (QMP), command getfd",
	Send: func(c *Conn) (func(Parcel) error, error) {
		if m, err := c.qmpAnswer(); err != nil {
			return nil, err
		} else if m.Greeting == nil {
			return nil, hint.Wrap(fmt.Errorf("%w: no greeting of QMP", ErrAnswer), "qemu -qmp unix:PATH,server=on,wait=off listens for QMP")
		}
		if err := c.qmpExecute("qmp_capabilities", nil); err != nil {
			return nil, err
		}
		return func(p Parcel) error {
			if len(p.Names) != len(p.FDs) {
				return hint.Wrap(errors.New("QEMU wants a name for each descriptor"), "--name NAME, once for each, in order")
			}
			for i, fd := range p.FDs {
				if err := c.qmpExecute("getfd", map[string]string{"fdname": p.Names[i]}, fd); err != nil {
					return fmt.Errorf("name %s: %w", fdinfo.Printable(p.Names[i]), err)
				}
			}
			return nil
		}, nil
	},
	Names:   true,
	Decoder: func() Decoder { return &jsonDecoder{} },
}

// qmpMessage is what QEMU says. It has one of these.
type qmpMessage struct {
	Greeting json.RawMessage `json:"QMP"`
	Return   json.RawMessage `json:"return"`
	Event    string          `json:"event"`
	Error    *struct {
		Description string `json:"desc"`
	} `json:"error"`
}

// qmpExecute executes a command, and waits until it is done.
func (c *Conn) qmpExecute(command string, arguments any, fds ...int) error {
	line, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{command, arguments})
	if err != nil {
		return err
	}
	if err := c.Send(append(line, '\n'), fds...); err != nil {
		return err
	}
	m, err := c.qmpAnswer()
	switch {
	case err != nil:
		return err
	case m.Error != nil:
		return fmt.Errorf("QEMU refuses %s: %s", command, fdinfo.Printable(m.Error.Description))
	case m.Return == nil:
		return fmt.Errorf("%w to %s", ErrAnswer, command)
	}
	return nil
}

// qmpAnswer reads the next message that is no event.
func (c *Conn) qmpAnswer() (m qmpMessage, err error) {
	for {
		line, err := c.answer()
		if err != nil {
			return m, err
		}
		m = qmpMessage{}
		if err := json.Unmarshal(line, &m); err != nil {
			return m, fmt.Errorf("%w: %s", ErrAnswer, excerpt(line))
		}
		if m.Event == "" {
			return m, nil
		}
	}
}
