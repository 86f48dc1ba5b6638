//go:build linux

package cmd

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdinfo"
	"fdkit/internal/interrupt"
	"fdkit/internal/scm"
)

// arrivalPrinter prints arrivals.
type arrivalPrinter struct {
	json, all, explain bool
	stream             bool // they come from a stream, which has no boundaries
	spoken             bool // in a dialect, which leaves of the payload what is not its own
	out                stoppableOutput
}

func (p *arrivalPrinter) print(a *arrival) error {
	text := p.block(a)
	if p.json {
		text = append(fdinfo.JSON(p.object(a)), '\n')
	}
	_, err := p.out.Write(text)
	switch {
	case errors.Is(err, unix.EPIPE):
		return endedBy(unix.SIGPIPE)
	case err == nil, errors.Is(err, interrupt.ErrStopped):
		return err
	}
	return fmt.Errorf("cannot write to stdout: %w", err)
}

// block is a message for people.
func (p *arrivalPrinter) block(a *arrival) []byte {
	var b bytes.Buffer
	fmt.Fprintln(&b, a.header())
	for _, line := range a.payloadLines(p.all) {
		fmt.Fprintf(&b, "    %s\n", line)
	}
	for _, line := range p.explanation(a) {
		fmt.Fprintf(&b, "    - %s\n", line)
	}
	if len(a.descriptors) == 0 && !hasVars(a.payload) { // only the names were asked for
		for _, name := range a.names {
			fmt.Fprintf(&b, "    name %q\n", name)
		}
	}
	for i, d := range a.descriptors {
		fmt.Fprintf(&b, "  %s", d.Line())
		if name := a.name(i); name != "" {
			fmt.Fprintf(&b, " called %q", name)
		}
		fmt.Fprintln(&b)
		if p.all {
			writeFacts(&b, d)
		}
		if p.explain {
			for _, line := range explain(aboutDescriptors, d) {
				fmt.Fprintf(&b, "       - %s\n", line)
			}
		}
	}
	return b.Bytes()
}

// writeFacts writes all that is known of a descriptor, but for what this command's copy
// of it has.
func writeFacts(b *bytes.Buffer, d fdinfo.Description) {
	const indent = "       "
	for line := range strings.Lines(d.Verbose(indent)) {
		if name, _, _ := strings.Cut(line[len(indent):], ":"); name != "fd" && name != "close_on_exec" {
			b.WriteString(line)
		}
	}
}

// explanation is what there is to say of the message as a whole.
func (p *arrivalPrinter) explanation(a *arrival) (lines []string) {
	if !p.explain {
		return nil
	}
	lines = append(a.said, explain(aboutMessages, parcel{a, p.stream})...)
	if !p.spoken {
		lines = append(lines, explain(aboutPayloads, parcel{a, p.stream})...)
	}
	return lines
}

// arrivedDescriptor is a descriptor as it came: in JSON without what is this command's own.
type arrivedDescriptor struct {
	fdinfo.Description
	FD          *int     `json:"fd,omitempty"`            // stands for Description's, and is never there
	CloseOnExec *bool    `json:"close_on_exec,omitempty"` // the same
	Explanation []string `json:"explanation,omitempty"`
}

// messageObject is a message in JSON.
type messageObject struct {
	Message     int                 `json:"message"`
	Time        string              `json:"time"`
	Bytes       int                 `json:"bytes"`
	Payload     *string             `json:"payload,omitempty"` // if it is text
	Hex         string              `json:"payload_hex"`
	Cut         bool                `json:"cut,omitempty"`
	Vars        map[string]string   `json:"vars,omitempty"`
	Sender      *identity           `json:"sender,omitempty"`
	Peer        *identity           `json:"peer,omitempty"`
	Names       []string            `json:"names,omitempty"`
	Lost        *loss               `json:"lost,omitempty"`
	Explanation []string            `json:"explanation,omitempty"`
	Descriptors []arrivedDescriptor `json:"descriptors"`
}

type loss struct {
	Came   int    `json:"came"`
	Reason string `json:"reason"`
}

func (p *arrivalPrinter) object(a *arrival) messageObject {
	o := messageObject{
		Message: a.number, Time: a.at.UTC().Format(logTime), Bytes: len(a.payload), Hex: hex.EncodeToString(a.payload), Cut: a.cut,
		Sender: a.sender, Peer: a.peer.identity, Names: a.names, Explanation: p.explanation(a), Descriptors: []arrivedDescriptor{},
	}
	if isText(a.payload) {
		o.Payload = new(string(a.payload))
	}
	if hasVars(a.payload) {
		o.Vars = map[string]string{}
		for name, value := range scm.Vars(a.payload) {
			if _, twice := o.Vars[name]; !twice {
				o.Vars[name] = value
			}
		}
	}
	if a.lost != nil {
		o.Lost = &loss{a.lost.Came, a.lost.Reason()}
	}
	for _, d := range a.descriptors {
		r := arrivedDescriptor{Description: d}
		if p.explain {
			r.Explanation = explain(aboutDescriptors, d)
		}
		o.Descriptors = append(o.Descriptors, r)
	}
	return o
}

// stoppableOutput is standard output, whose writing ends when its calls are stopped.
type stoppableOutput struct {
	calls   interrupt.Calls
	writing bool
}

func (s *stoppableOutput) Write(b []byte) (n int, err error) {
	if err := s.calls.Enter(); err != nil {
		return 0, err
	}
	defer s.calls.Exit()
	s.writing = true
	for n < len(b) {
		// Not os.Stdout, whose Write ends the process by SIGPIPE, and leaves socket files.
		wrote, err := unix.Write(1, b[n:])
		switch {
		case err == unix.EINTR && s.calls.Stopped():
			return n, interrupt.ErrStopped
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			if err := s.calls.Poll(1, unix.POLLOUT); err != nil {
				return n, err
			}
		case err != nil:
			return n, os.NewSyscallError("write", err)
		}
		n += max(wrote, 0)
	}
	s.writing = false
	return n, nil
}
