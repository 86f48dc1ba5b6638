//go:build linux

package cmd

import (
	"bufio"
	"fmt"
	"os/user"
	"strconv"
	"strings"

	"fdkit/internal/fdinfo"
	"fdkit/internal/holders"
)

// answer is what is told of one thing.
type answer struct {
	operand string
	subject subject
	peer    *holders.Peer
	first   int // of Find's things, the second is the peer; -1: there is no such thing
	holders []holders.Holder
	others  []holders.Holder // of the other end
	found   holders.Found
}

// fill takes from what was found what belongs to the answer.
func (a *answer) fill(found holders.Found) {
	a.found = found
	if a.first < 0 {
		return
	}
	a.holders = found.Holders[a.first]
	if a.peer != nil && a.peer.Inode != 0 {
		a.others = found.Holders[a.first+1]
	}
	if a.subject.unsure && a.holders == nil {
		a.subject.what = fdinfo.Description{}
	}
	if a.subject.Descriptor == nil && a.subject.Link != "" {
		a.describe()
	}
}

// describe asks one of the holders what a thing is of which little more than the inode is
// known.
func (a *answer) describe() {
	for _, h := range a.holders {
		if h.Place != holders.AtDescriptor {
			continue
		}
		p, err := fdinfo.Open(h.PID)
		if err != nil {
			continue
		}
		d, err := p.Describe(h.FD)
		p.Close()
		if err == nil && d.Name == a.subject.Link && d.Partial == "" {
			d.PID, d.FD, d.Access, d.Flags, d.CloseOnExec = 0, -1, "", nil, false
			if d.Pipe != nil {
				d.Pipe.End, d.Pipe.Alone = "", false // of that holder's
			}
			a.subject.what = d
			return
		}
	}
}

func asText(out *bufio.Writer, a answer) {
	what := a.subject.what.What()
	if what != "" {
		what = " " + what
	}
	fmt.Fprintf(out, "%s:%s\n", fdinfo.Printable(a.operand), what)
	for _, h := range a.holders {
		fmt.Fprintln(out, a.line(h, a.subject.Descriptor != nil))
	}
	if len(a.holders) == 0 {
		fmt.Fprintln(out, a.nobody(a.subject.Descriptor != nil))
	}
	switch {
	case a.peer == nil:
	case a.peer.Inode == 0:
		fmt.Fprintln(out, "  the other end waits to be accepted, or is closed")
	default:
		fmt.Fprintf(out, "  the other end is %s:\n", a.peer.Thing().Link)
		for _, h := range a.others {
			fmt.Fprintln(out, a.line(h, false))
		}
		if len(a.others) == 0 {
			fmt.Fprintln(out, a.nobody(false))
		}
	}
}

// nobody stands where no holders are. This process is none, though it may have the thing.
func (a *answer) nobody(compared bool) string {
	text := "    nobody"
	if compared && a.subject.what.PID == 0 {
		text += " else"
	}
	if a.found.Processes+a.found.Queues > 0 {
		text += " that can be seen"
	}
	return text + " holds it"
}

// line is a holder in a line: process, user, command, where, access, which open file
// description, and further words.
func (a *answer) line(h holders.Holder, compared bool) string {
	where, more, description := string(h.Place), "", ""
	switch h.Place {
	case holders.AtDescriptor:
		where = strconv.Itoa(h.FD)
		if h.CloseOnExec {
			more = " [cloexec]"
		}
	case holders.InFlight:
		more = fmt.Sprintf(" in the queue of %d:%d", h.PID, h.FD)
	}
	if h.Place == holders.AtDescriptor || h.Place == holders.InFlight {
		switch {
		case h.Description == 0:
			description = "?"
		case compared && h.Description == 1:
			description = "same"
		default:
			description = "#" + strconv.Itoa(h.Description)
		}
	}
	text := fmt.Sprintf("    %-8d %-8s %-15s %-9s %-4s %s", h.PID, userName(h.UID), fdinfo.Printable(h.Command), where, h.Access, description)
	return strings.TrimRight(text, " ") + more
}

func userName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return strconv.Itoa(uid)
}

// answerObject is an answer in JSON.
type answerObject struct {
	Target  string              `json:"target"`
	What    *fdinfo.Description `json:"what,omitempty"`
	Holders []holderObject      `json:"holders"`
	Other   *otherEnd           `json:"other_end,omitempty"`
	Unseen  unseenObject        `json:"unseen"`
}

type otherEnd struct {
	Inode   uint64         `json:"inode,omitempty"`
	Holders []holderObject `json:"holders"`
}

type unseenObject struct {
	Processes int `json:"processes"`
	Queues    int `json:"queues"`
}

type holderObject struct {
	PID         int           `json:"pid"`
	UID         int           `json:"uid"`
	User        string        `json:"user"`
	Command     string        `json:"command"`
	Place       holders.Place `json:"place"`
	FD          *int          `json:"fd,omitempty"`
	QueueFD     *int          `json:"queue_fd,omitempty"`
	Access      string        `json:"access,omitempty"`
	CloseOnExec *bool         `json:"close_on_exec,omitempty"`
	Description int           `json:"description,omitempty"`
	Same        *bool         `json:"same,omitempty"`
}

func asObject(out *bufio.Writer, a answer) {
	o := answerObject{Target: a.operand, Holders: objects(a.holders, a.subject.Descriptor != nil)}
	o.Unseen = unseenObject{a.found.Processes, a.found.Queues}
	if a.first >= 0 {
		o.What = &a.subject.what
	}
	if a.peer != nil {
		o.Other = &otherEnd{a.peer.Inode, objects(a.others, false)}
	}
	fmt.Fprintf(out, "%s\n", fdinfo.JSON(o))
}

func objects(all []holders.Holder, compared bool) []holderObject {
	list := []holderObject{}
	for _, h := range all {
		o := holderObject{
			PID: h.PID, UID: h.UID, User: userName(h.UID), Command: h.Command,
			Place: h.Place, Access: h.Access, Description: h.Description,
		}
		switch h.Place {
		case holders.AtDescriptor:
			o.FD, o.CloseOnExec = new(h.FD), new(h.CloseOnExec)
		case holders.InFlight:
			o.QueueFD = new(h.FD)
		}
		if compared && h.Description != 0 {
			o.Same = new(h.Description == 1)
		}
		list = append(list, o)
	}
	return list
}
