//go:build linux

package cmd

import (
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"fdkit/fdrecv"
	"fdkit/internal/fdinfo"
	"fdkit/internal/scm"
)

// arrival is a message that has come, and what is known of it.
type arrival struct {
	number      int
	at          time.Time
	payload     []byte // valid until the next one comes
	cut         bool   // the message had more bytes
	lost        *fdrecv.LostError
	sender      *identity // nil: the kernel does not know
	peer        queuePeer
	names       []string // as the sender calls the descriptors
	descriptors []fdinfo.Description
	said        []string // by the dialect's decoder
}

// identity is a process as the kernel names it.
type identity struct {
	PID     int    `json:"pid,omitempty"` // not known if it is in a PID namespace that is not seen from here
	UID     int    `json:"uid"`
	GID     int    `json:"gid"`
	Command string `json:"command,omitempty"` // while it is there
}

// identityOf adds the name of the command. Who has sent a message may have ended since,
// and its number been given to another process.
func identityOf(c fdrecv.Credentials) *identity {
	i := &identity{PID: c.PID, UID: c.UID, GID: c.GID}
	if text, err := os.ReadFile("/proc/" + strconv.Itoa(c.PID) + "/comm"); err == nil && c.PID > 0 {
		i.Command = strings.TrimSuffix(string(text), "\n")
	}
	return i
}

func (i *identity) String() string {
	text := "a process of another PID namespace"
	if i.PID != 0 {
		text = fmt.Sprintf("pid %d", i.PID)
	}
	if i.Command != "" {
		text += " (" + fdinfo.Printable(i.Command) + ")"
	}
	return fmt.Sprintf("%s uid %d gid %d", text, i.UID, i.GID)
}

// queuePeer is the process with which a queue is connected, nil if that is not known.
type queuePeer struct{ *identity }

func peerOf(q *fdrecv.Queue) queuePeer {
	who, ok := q.Peer()
	if !ok {
		return queuePeer{}
	}
	return queuePeer{identityOf(who)}
}

// String is to follow what names the queue.
func (p queuePeer) String() string {
	switch {
	case p.identity == nil:
		return ""
	case p.PID == os.Getpid():
		return ", made by this command"
	}
	return ", connected with " + p.identity.String()
}

// arrivalOf looks at what has come. The descriptors stay open.
func arrivalOf(number int, m *fdrecv.Message, lost *fdrecv.LostError, p queuePeer) *arrival {
	a := &arrival{number: number, at: time.Now(), payload: m.Payload, cut: m.Cut, lost: lost, peer: p, names: namesOf(m)}
	// Nobody has this user: it is what the kernel says of a message that was sent before
	// it was asked for credentials, scm_set_cred() in include/net/scm.h.
	if s := m.Sender; s != nil && (s.PID != 0 || s.UID != overflowID || s.GID != overflowID) {
		a.sender = identityOf(*s)
	}
	for position, fd := range m.FDs {
		d, err := fdinfo.Describe(fd)
		if err != nil {
			d = fdinfo.Description{Kind: fdinfo.Other, Partial: err.Error()}
		}
		d.FD, d.CloseOnExec = position, false // of the copy that this command has they would say nothing
		a.descriptors = append(a.descriptors, d)
	}
	return a
}

// overflowID stands for users and groups that have no number here, /proc/sys/kernel/overflowuid.
const overflowID = 65534

// namesOf returns what the sender calls the descriptors, which may be more or less
// names than there are descriptors.
func namesOf(m *fdrecv.Message) []string {
	if m.Names != nil {
		return m.Names
	}
	if names, ok := scm.Var(m.Payload, "FDNAMES"); ok {
		return strings.Split(names, ":")
	}
	return nil
}

// name returns what the sender calls the descriptor, or "".
func (a *arrival) name(position int) string {
	if position < len(a.names) && a.names[position] != unknownName {
		return a.names[position]
	}
	return ""
}

// header is the first line.
func (a *arrival) header() string {
	descriptors := count(len(a.descriptors), "descriptor", "descriptors")
	if a.lost != nil {
		descriptors = fmt.Sprintf("descriptors lost: %s, %d that came closed", a.lost.Reason(), a.lost.Came)
	}
	from := ", sender not known" + a.peer.String()
	if a.sender != nil {
		from = ", from " + a.sender.String()
	}
	return fmt.Sprintf("message %d: %s, %s%s", a.number, count(len(a.payload), "byte", "bytes"), descriptors, from)
}

// How much of a payload is printed for people, unless they ask for all: the variables of
// the longest message of fdkit's, and a screen of hexadecimal digits.
const (
	shownText = scm.MaxPayload
	shownHex  = 256
)

// payloadLines are the lines that tell what the payload has. All is also what is long.
func (a *arrival) payloadLines(all bool) (lines []string) {
	p := a.payload
	switch {
	case len(p) == 0:
	case hasVars(p):
		rest := len(p) - len(scm.Begin)
		lines = append(lines, strings.TrimRight(scm.Begin, "\x00"))
		for entry := range scm.Entries(p) {
			if rest -= len(entry); all || len(p)-rest <= shownText {
				lines = append(lines, fdinfo.Printable(strings.TrimRight(string(entry), "\x00")))
			}
		}
		if rest > 0 {
			lines = append(lines, "and "+count(rest, "byte", "bytes")+" that are no variable")
		}
	case isText(p):
		shown := p
		if len(p) > shownText && !all {
			shown = p[:shownText]
			for !utf8.Valid(shown) {
				shown = shown[:len(shown)-1]
			}
		}
		lines = append(lines, strconv.Quote(string(shown)))
		lines = more(lines, len(p)-len(shown))
	default:
		shown := p
		if len(p) > shownHex && !all {
			shown = p[:shownHex]
		}
		if len(p) <= 16 {
			lines = append(lines, fmt.Sprintf("hex % x", p))
		} else {
			lines = append(lines, strings.Split(strings.TrimSuffix(hex.Dump(shown), "\n"), "\n")...)
		}
		lines = more(lines, len(p)-len(shown))
	}
	if a.cut {
		lines = append(lines, "the message had more bytes, for which there was no room")
	}
	return lines
}

// more says that n bytes are not shown.
func more(lines []string, n int) []string {
	if n == 0 {
		return lines
	}
	return append(lines, "and "+count(n, "byte", "bytes")+" more; -v shows them")
}

// hasVars tells whether a payload is fdkit's.
func hasVars(payload []byte) bool { return strings.HasPrefix(string(payload), scm.Begin) }

// isText tells whether bytes can be read by people.
func isText(b []byte) bool {
	if !utf8.Valid(b) {
		return false
	}
	for _, r := range string(b) {
		if !unicode.IsPrint(r) && r != '\n' && r != '\t' && r != '\r' {
			return false
		}
	}
	return len(b) > 0
}
