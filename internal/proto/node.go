//go:build linux

package proto

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"fdkit/internal/hint"
	"fdkit/internal/scm"
)

// node is the channel of Node.js between a process and its child_process, which finds
// its end of it in NODE_CHANNEL_FD: a value in JSON in each line. A message with a
// descriptor is NODE_HANDLE, and the receiver answers NODE_HANDLE_ACK, or
// NODE_HANDLE_NACK if it got none; until then the sender sends no other. A value whose
// cmd begins with NODE_ is Node's own. lib/internal/child_process.js.
//
// Mode advanced of option serialization, with values as V8 has them, is not spoken.
var node = &Dialect{
	Name: "node", About: "the channel of Node.js's child_process",
	Send: func(c *Conn) (func(Parcel) error, error) {
		return func(p Parcel) error {
			if len(p.FDs) != 1 {
				return fmt.Errorf("a message to Node has one descriptor, not %d", len(p.FDs))
			}
			message := nodeMessage{Command: "NODE_HANDLE"}
			var err error
			if message.Type, message.DatagramType, err = nodeType(p.FDs[0]); err != nil {
				return err
			}
			if message.Text, err = nodeText(p.Payload); err != nil {
				return err
			}
			// Node 18 does not do that itself, and its event loop would hang in accept(2).
			if err := unix.SetNonblock(p.FDs[0], true); err != nil {
				return os.NewSyscallError("fcntl", err)
			}
			if err := c.sendNode(message, p.FDs...); err != nil {
				return err
			}
			return c.acknowledged()
		}, nil
	},
	Receive: func(c *Conn, _ Want) (func(*scm.Message) error, error) { return c.receiveNode, nil },
	Payload: true, Single: true,
	Decoder: func() Decoder { return &jsonDecoder{} },
}

// nodeMessage is a message of Node's own.
type nodeMessage struct {
	Command      string          `json:"cmd"`
	Type         string          `json:"type,omitempty"`
	Text         json.RawMessage `json:"msg,omitempty"` // what the program gets
	DatagramType string          `json:"dgramType,omitempty"`
}

func (m nodeMessage) own() bool {
	return strings.HasPrefix(m.Command, "NODE_") && m.Command != "NODE_"
}

// nodeType returns what Node is to make of the descriptor. Of others than these it makes
// nothing, or ends: LibuvStreamWrap::OnUvRead() in src/stream_wrap.cc, and
// uv_guess_handle() of libuv.
func nodeType(fd int) (typ, datagram string, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", "", os.NewSyscallError("fstat", err)
	}
	option := func(name int) int {
		n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, name)
		if err != nil {
			return -1
		}
		return n
	}
	domain, socket := option(unix.SO_DOMAIN), option(unix.SO_TYPE)
	internet := domain == unix.AF_INET || domain == unix.AF_INET6
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFIFO:
		return "net.Socket", "", nil
	case socket == unix.SOCK_STREAM && (internet || domain == unix.AF_UNIX) && option(unix.SO_ACCEPTCONN) == 1:
		return "net.Server", "", nil
	case socket == unix.SOCK_STREAM && (internet || domain == unix.AF_UNIX):
		return "net.Socket", "", nil
	case socket == unix.SOCK_DGRAM && internet:
		return "dgram.Socket", map[int]string{unix.AF_INET: "udp4", unix.AF_INET6: "udp6"}[domain], nil
	}
	return "", "", errors.New("the descriptor is neither a stream socket nor a UDP socket nor a pipe, and Node takes no others")
}

// nodeText returns the payload as the message: JSON as it is, and other text as a string.
func nodeText(payload []byte) (json.RawMessage, error) {
	switch {
	case payload == nil:
		return json.RawMessage("null"), nil
	case json.Valid(payload):
		return payload, nil
	case utf8.Valid(payload):
		return json.Marshal(string(payload))
	}
	return nil, errors.New("the payload is no text (UTF-8)")
}

func (c *Conn) sendNode(m nodeMessage, fds ...int) error {
	line, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return c.Send(append(line, '\n'), fds...)
}

// readNode reads a message, a line of what read reads. One that has no cmd is the
// program's.
func (c *Conn) readNode(read func() ([]byte, error)) (line []byte, m nodeMessage, err error) {
	if line, err = read(); err == nil {
		_ = json.Unmarshal(line, &m)
	}
	return line, m, err
}

// acknowledged waits for the answer. What the program itself says meanwhile is passed
// over.
func (c *Conn) acknowledged() error {
	for {
		switch _, m, err := c.readNode(c.answer); {
		case err != nil:
			return err
		case m.Command == "NODE_HANDLE_ACK":
			return nil
		case m.Command == "NODE_HANDLE_NACK":
			return hint.Wrap(errors.New("the descriptor has not come to Node (NODE_HANDLE_NACK)"),
				"it may be out of descriptors; /proc/PID/limits has its Max open files")
		}
	}
}

// receiveNode receives a message of the program at the other end, with a descriptor or
// without.
func (c *Conn) receiveNode(m *scm.Message) error {
	for {
		line, message, err := c.readNode(c.readJSON)
		if err != nil {
			return err
		}
		switch {
		case message.Command == "NODE_HANDLE":
			fds := c.TakeFDs()
			if len(fds) != 1 {
				(&scm.Message{FDs: fds}).Close()
				_ = c.sendNode(nodeMessage{Command: "NODE_HANDLE_NACK"})
				return fmt.Errorf("%w: NODE_HANDLE with %s, not one", ErrAnswer, count(len(fds), "descriptor"))
			}
			// As Node has it, a sender that is gone does not make this one fail: the
			// descriptor is here.
			_ = c.sendNode(nodeMessage{Command: "NODE_HANDLE_ACK"})
			*m = scm.Message{Payload: message.Text, FDs: fds}
			return nil
		case message.own():
			if len(c.read) == 0 { // what follows may have come with them
				c.Close()
			}
		default:
			*m = scm.Message{Payload: line}
			if len(c.read) == 0 {
				m.FDs = c.TakeFDs()
			}
			return nil
		}
	}
}
