//go:build linux

package cmd

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdinfo"
	"fdkit/internal/peek"
	"fdkit/internal/scm"
)

// inFlight is a socket with what is in its receive queue.
type inFlight struct {
	Socket  fdinfo.Description `json:"socket"`
	Holders []holder           `json:"holders,omitempty"`
	Queue   *queued            `json:"queue"`
	pending bool
}

// holder is a process that has the socket.
type holder struct {
	PID     int    `json:"pid"`
	FD      int    `json:"fd"`
	Command string `json:"command,omitempty"`
}

// queued is what is in a receive queue.
type queued struct {
	Messages []queuedMessage `json:"messages"`
	Notes    []string        `json:"notes,omitempty"` // what of it is not seen, and why
}

type queuedMessage struct {
	Size        int               `json:"size"`
	Offset      int               `json:"offset"`
	Payload     string            `json:"payload"` // with escapes, as fdinfo.Printable has it
	Vars        map[string]string `json:"vars,omitempty"`
	Sender      *sender           `json:"sender,omitempty"`
	Descriptors []queuedFD        `json:"descriptors"`
	Short       bool              `json:"short,omitempty"` // it has more descriptors than are shown
	vars        string
}

// sender has the credentials of who has sent a message.
type sender struct {
	PID int `json:"pid"`
	UID int `json:"uid"`
	GID int `json:"gid"`
}

// queuedFD is a descriptor in a message. Its number is its place there.
type queuedFD struct {
	fdinfo.Description
	Queue *queued `json:"queue,omitempty"` // of a Unix socket
}

// Descriptors returns how many descriptors are in the queue.
func (f *inFlight) Descriptors() int64 {
	if f.Socket.Socket == nil || f.Socket.Socket.Descriptors == nil {
		return 0
	}
	return *f.Socket.Socket.Descriptors
}

// deepest is how deep a socket in the queue of a socket in the queue is looked at.
const deepest = 8

// queued looks at the queue of the socket fd, which d describes.
func (s *survey) queued(fd int, d *fdinfo.Description, depth int) *queued {
	q := &queued{Messages: []queuedMessage{}}
	note := func(format string, args ...any) { q.Notes = append(q.Notes, fmt.Sprintf(format, args...)) }
	s.shown[d.Inode] = true
	switch socket := d.Socket; {
	case socket.Listening:
		if pending(d, fd) {
			note("connections wait to be accepted; what is in flight to them cannot be seen")
		}
		return q
	case !socket.Connected && socket.Type != "dgram":
		return q // nothing can come, and recvmsg fails
	}
	stream := d.Socket.Type == "stream"
	short := false
	unseen, err := peek.Look(fd, func(m *peek.Message) {
		short = short || m.Short
		q.Messages = append(q.Messages, s.message(m, stream, depth))
	})
	switch {
	case errors.Is(err, unix.EMFILE):
		note("not looked at: this process has too many files open; ulimit -n shows and raises the limit")
	case err != nil:
		note("not looked at: %v", err)
	case short:
		note("some descriptors could not be copied: this process has too many files open (ulimit -n), or a security module refuses one")
	case unseen > 0:
		note("%s not seen: in messages of no bytes, which can be looked at only once", count(unseen, "descriptor is", "descriptors are"))
	case unseen < 0:
		note("it has changed meanwhile")
	}
	return q
}

func (s *survey) message(m *peek.Message, stream bool, depth int) queuedMessage {
	out := queuedMessage{
		Size: m.Size, Offset: m.Offset, Payload: fdinfo.Printable(string(m.Payload)),
		Descriptors: []queuedFD{}, Short: m.Short,
	}
	if !stream {
		out.Offset = 0
	}
	if m.Sender != nil {
		out.Sender = (*sender)(m.Sender)
	}
	if bytes.HasPrefix(m.Payload, []byte(scm.Begin)) {
		out.vars = strings.TrimSuffix(scm.Begin, "\x00")
		out.Vars = map[string]string{}
		for name, value := range scm.Vars(m.Payload) {
			out.vars += " " + name + "=" + fdinfo.Printable(value)
			if _, twice := out.Vars[name]; !twice {
				out.Vars[name] = value
			}
		}
	}
	for i, fd := range m.FDs {
		d, err := fdinfo.Describe(fd)
		if err != nil {
			d.Partial = err.Error()
		}
		d.FD, d.CloseOnExec = i, false // as we have it, not as it is in flight
		out.Descriptors = append(out.Descriptors, queuedFD{d, s.inner(fd, &d, depth+1)})
	}
	return out
}

// inner looks into the queue of a Unix socket that is itself in flight. It returns nil if
// nothing is in it.
func (s *survey) inner(fd int, d *fdinfo.Description, depth int) *queued {
	f := &inFlight{Socket: *d}
	switch {
	case d.Socket == nil || d.Socket.Family != "unix" || f.Descriptors() == 0 && !pending(d, fd):
		return nil
	case s.shown[d.Inode]:
		return &queued{Messages: []queuedMessage{}, Notes: []string{"what is in flight in it is shown above"}}
	case depth > deepest:
		return &queued{Messages: []queuedMessage{}, Notes: []string{"not looked at: it is in too many queues"}}
	}
	return s.queued(fd, d, depth)
}

func (f *inFlight) json(out *bytes.Buffer) {
	out.Write(fdinfo.JSON(f))
	out.WriteByte('\n')
}

func (f *inFlight) text(out *bytes.Buffer) {
	fmt.Fprintln(out, f.Socket.Line())
	var who []string
	for _, h := range f.Holders {
		who = append(who, fmt.Sprintf("%d:%d (%s)", h.PID, h.FD, fdinfo.Printable(h.Command)))
	}
	if who != nil {
		fmt.Fprintf(out, "  held by %s\n", strings.Join(who, ", "))
	}
	f.Queue.text(out, "  ")
	if len(f.Queue.Messages)+len(f.Queue.Notes) == 0 {
		fmt.Fprintln(out, "  nothing is in flight")
	}
}

func (q *queued) text(out *bytes.Buffer, indent string) {
	for _, m := range q.Messages {
		fmt.Fprintf(out, "%smessage: %s\n", indent, m.line())
		for _, d := range m.Descriptors {
			fmt.Fprintf(out, "%s  %s\n", indent, d.Line())
			if d.Queue != nil {
				d.Queue.text(out, indent+"    ")
			}
		}
	}
	for _, n := range q.Notes {
		fmt.Fprintf(out, "%s(%s)\n", indent, n)
	}
}

// shownBytes is how much of a payload that is no variables is in a line.
const shownBytes = 256

func (m *queuedMessage) line() string {
	facts := []string{count(m.Size, "byte", "bytes")}
	if m.Offset > 0 {
		facts[0] += " at " + strconv.Itoa(m.Offset)
	}
	switch {
	case m.vars != "":
		facts = append(facts, m.vars)
	case len(m.Payload) > shownBytes:
		facts = append(facts, `"`+m.Payload[:shownBytes]+`"...`)
	case m.Size > 0:
		facts = append(facts, `"`+m.Payload+`"`)
	}
	facts = append(facts, count(len(m.Descriptors), "descriptor", "descriptors"))
	if m.Short {
		facts[len(facts)-1] += " and more"
	}
	if m.Sender != nil {
		facts = append(facts, fmt.Sprintf("from pid %d uid %d gid %d", m.Sender.PID, m.Sender.UID, m.Sender.GID))
	}
	return strings.Join(facts, ", ")
}
