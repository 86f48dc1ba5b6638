//go:build linux

package fdinfo

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Line returns the essentials in one line, without a line end: the number (after the
// process's, if it is another one), access, kind, what there is to say of the kind,
// and flags in brackets.
//
//	3    rw   tcp             127.0.0.1:8080->127.0.0.1:40212 established, 5 bytes unread [cloexec]
func (d Description) Line() string {
	number := fmt.Sprintf("%-4d", d.FD)
	if d.PID != 0 {
		number = fmt.Sprintf("%-10s", fmt.Sprintf("%d:%d", d.PID, d.FD))
	}
	access := d.Access
	if access == "" {
		access = "-"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %-4s %-15s %s", number, access, d.Word(), strings.Join(d.facts(), ", "))
	flags := d.Flags
	if d.CloseOnExec {
		flags = append([]string{"cloexec"}, flags...)
	}
	if len(flags) > 0 {
		b.WriteString(" [" + strings.Join(flags, " ") + "]")
	}
	return b.String()
}

// What returns the kind and what there is to say of it, in one line: the part of Line
// that is not of the one descriptor.
func (d Description) What() string {
	return strings.TrimSpace(d.Word() + " " + strings.Join(d.facts(), ", "))
}

// Word is the kind; of a socket it is the protocol, or family and type.
func (d Description) Word() string {
	s := d.Socket
	switch {
	case s == nil:
		return string(d.Kind)
	case s.Family == "unix" && s.Type != "":
		return "unix-" + s.Type
	case s.Family == "inet" && s.Type == "raw", s.Family == "inet6" && s.Type == "raw":
		return "raw-" + s.Protocol
	case s.Family == "inet":
		return s.Protocol
	case s.Family == "inet6":
		return strings.TrimSuffix(s.Protocol, "v6") + "6" // tcp6, as netstat has it
	case s.Family == "netlink":
		return "netlink"
	case s.Family != "" && s.Type != "":
		return s.Family + "-" + s.Type
	case s.Family != "":
		return s.Family
	case s.Protocol != "":
		return s.Protocol
	}
	return "socket"
}

func (d Description) facts() (facts []string) {
	add := func(format string, args ...any) { facts = append(facts, fmt.Sprintf(format, args...)) }
	switch {
	case d.Socket != nil:
		facts = d.Socket.facts()
	case d.Memfd != nil:
		add("%s", Printable(d.Memfd.Name))
	case d.Epoll != nil:
		facts = d.Epoll.facts()
	case d.Eventfd != nil:
		add("count %d", d.Eventfd.Count)
	case d.Timerfd != nil:
		facts = d.Timerfd.facts()
	case d.Signalfd != nil:
		add("%s", strings.Join(d.Signalfd.Signals, " "))
	case d.Inotify != nil:
		add("%s", plural(int64(len(d.Inotify.Watches)), "watch", "watches"))
	case d.Fanotify != nil:
		add("%s", plural(int64(len(d.Fanotify.Watches)), "mark", "marks"))
	case d.Pidfd != nil:
		facts = d.Pidfd.facts()
	case d.BPF != nil:
		add("%s %d", d.BPF.Object, d.BPF.ID)
	default:
		add("%s", Printable(d.Name))
	}
	if d.Kind == PTYMaster && d.PTY != nil {
		add("of /dev/pts/%d", *d.PTY)
	}
	if d.Pipe != nil {
		facts = append(facts, d.Pipe.facts()...)
	}
	if d.Memfd != nil && len(d.Memfd.Seals) > 0 {
		add("sealed: %s", strings.Join(d.Memfd.Seals, " "))
	}
	if d.Deleted && d.Kind != Memfd && d.Kind != Secretmem { // which never have a path
		add("deleted")
	}
	if d.Size != nil {
		add("%s", plural(*d.Size, "byte", "bytes"))
	}
	if d.Offset != nil && d.Size != nil {
		add("at %d", *d.Offset)
	}
	if d.Node != "" && d.PTY == nil {
		add("%s", d.Node)
	}
	if len(d.Locks) > 0 {
		add("%s", plural(int64(len(d.Locks)), "lock", "locks"))
	}
	if d.Partial != "" {
		add("no more may be seen (%s)", d.Partial)
	}
	return facts
}

func (p *PipeInfo) facts() (facts []string) {
	if p.End != "" {
		facts = append(facts, map[string]string{"read": "read end", "write": "write end", "both": "both ends"}[p.End])
	}
	if p.Unread != nil && p.Capacity != nil {
		facts = append(facts, fmt.Sprintf("%d of %d bytes unread", *p.Unread, *p.Capacity))
	}
	if p.Alone {
		facts = append(facts, map[string]string{"read": "no writer is left", "write": "no reader is left"}[p.End])
	}
	return facts
}

func (s *SocketInfo) facts() (facts []string) {
	add := func(format string, args ...any) { facts = append(facts, fmt.Sprintf(format, args...)) }
	local, peer := Printable(s.Local), Printable(s.Peer)
	if s.Family == "netlink" {
		local = strings.TrimSpace(s.Protocol + " " + local)
	}
	switch {
	case s.Listening && local == "":
		add("listening")
	case s.Listening:
		add("listening at %s", local)
	case peer != "":
		add("%s->%s", local, peer)
	case local != "":
		add("%s", local)
	case s.Connected:
		add("unnamed")
	case s.Type != "":
		add("not bound")
	}
	if s.State != "" && !s.Listening && len(facts) > 0 {
		facts[len(facts)-1] += " " + s.State
	}
	if p := s.PeerProcess; p != nil {
		facts = append(facts, p.text())
	}
	if s.Backlog != nil && s.BacklogLimit != nil {
		add("backlog %d of %d", *s.Backlog, *s.BacklogLimit)
	}
	if s.Unread != nil && *s.Unread > 0 {
		add("%s unread", plural(*s.Unread, "byte", "bytes"))
	}
	switch {
	case s.SendQueue == nil || *s.SendQueue == 0:
	case s.Unsent != nil:
		add("%s not acknowledged", plural(*s.SendQueue, "byte", "bytes"))
	case s.Family == "unix":
		add("peer has not read all")
	}
	if s.Descriptors != nil && *s.Descriptors > 0 {
		add("%s in the queue", plural(*s.Descriptors, "descriptor", "descriptors"))
	}
	if s.Ended != "" {
		add("%s", map[string]string{"receiving": "receiving has ended", "both": "has ended"}[s.Ended])
	}
	if s.Failed {
		add("has failed")
	}
	return facts
}

func (p *PeerProcess) text() string {
	text := "peer is"
	if p.PID != 0 {
		text += fmt.Sprintf(" pid %d", p.PID)
		switch {
		case p.Command != "":
			text += " (" + Printable(p.Command) + ")"
		case p.Running != nil && !*p.Running:
			text += " (ended)"
		}
	}
	return text + fmt.Sprintf(" uid %d", p.UID)
}

func (e *EpollInfo) facts() []string {
	const most = 8
	if len(e.Watches) > most {
		return []string{fmt.Sprintf("watches %d descriptors", len(e.Watches))}
	}
	text := "watches"
	for _, w := range e.Watches {
		text += " " + strconv.Itoa(w.FD)
	}
	if len(e.Watches) == 0 {
		text += " nothing"
	}
	return []string{text}
}

func (t *TimerfdInfo) facts() []string {
	span := func(seconds float64) string { return time.Duration(seconds * float64(time.Second)).String() }
	facts := []string{t.Clock}
	switch {
	case t.Left == nil && t.Ticks == 0:
		facts = append(facts, "not armed")
	case t.Left != nil:
		facts = append(facts, "expires in "+span(*t.Left))
	}
	if t.Interval != nil {
		facts = append(facts, "every "+span(*t.Interval))
	}
	if t.Ticks > 0 {
		facts = append(facts, "expired "+plural(int64(t.Ticks), "time", "times"))
	}
	return facts
}

func (p *PidfdInfo) facts() []string {
	switch {
	case p.PID > 0:
		return []string{fmt.Sprintf("process %d", p.PID)}
	case p.PID < 0:
		return []string{"a process that has ended"}
	}
	return []string{"a process of another PID namespace"}
}

func plural(n int64, one, many string) string {
	if n == 1 {
		many = one
	}
	return fmt.Sprintf("%d %s", n, many)
}
