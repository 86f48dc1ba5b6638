//go:build linux

package cmd

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"fdkit/fdrecv"
	"fdkit/internal/fdinfo"
	"fdkit/internal/hint"
	"fdkit/internal/proto"
	"fdkit/internal/relay"
	"fdkit/internal/scm"
)

// recorder writes down what passes, in the background: whoever does not read it holds up
// nobody. What finds no room meanwhile is counted, and the count written in its place.
type recorder struct {
	log     logger
	json    bool
	hex     bool
	bytes   int            // of a payload, at most
	dialect *proto.Dialect // nil: none
	journal *journal
	file    int // 2: stderr
	name    string
	failed  sync.Once
	filter  decoding
}

// decoding is what explains a connection, of which messages come in two directions.
type decoding struct {
	mu      sync.Mutex
	decoder proto.Decoder // nil: none
}

func newRecorder(c *cli.Context) (*recorder, error) {
	rec := &recorder{log: loggerOf(c), json: c.Bool("json"), hex: c.Bool("hex"), bytes: numberOf(c, "bytes"), file: 2}
	rec.dialect = c.Generic("decode").(*explained).Dialect
	rec.filter.decoder = rec.newDecoder()
	if rec.name = onceOf(c, "output"); rec.name != "" {
		if err := rec.open(c); err != nil {
			return nil, err
		}
	}
	rec.journal = newJournalTo(rec.write, func(n int) {
		rec.write(rec.text(&record{Event: "missing", Lines: n, at: time.Now()}))
	})
	if rec.file == 2 {
		rec.log.journal = rec.journal // so that all is in order
	} else {
		rec.log.journal = newJournal(rec.log)
	}
	return rec, nil
}

// open opens the file. Of a FIFO it waits for the reader, as the shell's > does.
func (rec *recorder) open(c *cli.Context) error {
	fd, _, err := source{text: rec.name, path: rec.name, flags: opened["a"]}.acquire(nil)
	if err != nil {
		return fmt.Errorf("option --output: %w", err)
	}
	var file, queue unix.Stat_t
	filtering := c.NArg() == 0 && c.String("to") == ""
	if filtering && unix.Fstat(fd, &file) == nil && unix.Fstat(1, &queue) == nil && file.Dev == queue.Dev && file.Ino == queue.Ino {
		_ = unix.Close(fd)
		return usageHint("--to QUEUE names another one", "option --output: %s is the queue", rec.name)
	}
	rec.file = fd
	return nil
}

// end writes what waits, and says if nobody reads it.
func (rec *recorder) end() error {
	unread := rec.journal.end()
	if rec.file == 2 {
		return nil
	}
	rec.log.journal.end()
	if unread > 0 {
		return fmt.Errorf("cannot write to %s: nobody has read %s", rec.name, count(unread, "message", "messages"))
	}
	return os.NewSyscallError("close", unix.Close(rec.file))
}

// write writes with one write(2), if the kernel takes all at once.
func (rec *recorder) write(text string) {
	for b := []byte(text); len(b) > 0; {
		n, err := unix.Write(rec.file, b)
		switch {
		case err == unix.EINTR:
			n = 0
		case err != nil:
			if rec.file != 2 {
				rec.failed.Do(func() {
					rec.log.error(fmt.Errorf("cannot write to %s, what passes is not shown any more: %w", rec.name, os.NewSyscallError("write", err)))
				})
			}
			return
		}
		b = b[n:]
	}
}

func (rec *recorder) newDecoder() proto.Decoder {
	if rec.dialect == nil {
		return nil
	}
	return rec.dialect.Decoder()
}

// record is something that is shown. Its fields are those of JSON.
type record struct {
	Time        string            `json:"time"`
	Event       string            `json:"event"`
	Connection  int64             `json:"connection,omitempty"`
	From        string            `json:"from,omitempty"` // client or target
	Sender      *process          `json:"sender,omitempty"`
	Client      *process          `json:"client,omitempty"`
	Target      *process          `json:"target,omitempty"`
	Source      string            `json:"source,omitempty"`
	Bytes       *int              `json:"bytes,omitempty"`
	Payload     string            `json:"payload,omitempty"`
	Hex         string            `json:"hex,omitempty"`
	Cut         int               `json:"cut,omitempty"` // bytes that are not shown
	Variables   []string          `json:"variables,omitempty"`
	Descriptors []json.RawMessage `json:"descriptors,omitempty"`
	Decoded     []string          `json:"decoded,omitempty"`
	Error       string            `json:"error,omitempty"`
	Lines       int               `json:"lines,omitempty"`

	at    time.Time
	fds   []fdinfo.Description
	shown []byte // of the payload
}

// process is who is at an end, or has sent something.
type process struct {
	PID     int    `json:"pid,omitempty"`
	UID     int    `json:"uid"`
	GID     int    `json:"gid"`
	Command string `json:"command,omitempty"`
}

func (p *process) String() string {
	if p == nil {
		return "unknown"
	}
	text := fmt.Sprintf("uid %d", p.UID)
	if p.Command != "" {
		text = fmt.Sprintf("(%s) ", fdinfo.Printable(p.Command)) + text
	}
	if p.PID > 0 {
		text = fmt.Sprintf("pid %d ", p.PID) + text
	}
	return text
}

func processOf(p *fdinfo.PeerProcess) *process {
	if p == nil {
		return nil
	}
	return &process{PID: p.PID, UID: int(p.UID), GID: int(p.GID), Command: p.Command}
}

// events are what a relay is to tell.
func (rec *recorder) events() relay.Events {
	return relay.Events{
		Opened: func(c *relay.Conn) {
			c.Note = &decoding{decoder: rec.newDecoder()}
			rec.add(&record{
				Event: "connected", Connection: c.ID,
				Client: processOf(c.Client), Target: processOf(c.Target), Source: sourceText(c.Source),
			})
		},
		Message: func(c *relay.Conn, from proto.Direction, m *scm.Message) {
			r := &record{Event: "message", Connection: c.ID, From: side(from), at: time.Now()}
			if m.Sender != nil && m.Sender.PID != 0 {
				r.Sender = &process{PID: m.Sender.PID, UID: m.Sender.UID, GID: m.Sender.GID, Command: fdinfo.Command(m.Sender.PID)}
			}
			rec.message(r, c.Note.(*decoding), from, m.Payload, m.FDs)
		},
		Ended: func(c *relay.Conn, from proto.Direction) {
			rec.add(&record{Event: "end", Connection: c.ID, From: side(from)})
		},
		Closed: func(c *relay.Conn) { rec.add(&record{Event: "closed", Connection: c.ID}) },
		Failed: func(c *relay.Conn, err error) {
			r := &record{Event: "failed", Connection: c.ID, Client: processOf(c.Client), Error: err.Error()}
			if undelivered, ok := err.(*relay.UndeliveredError); ok {
				r.From, r.Client = side(undelivered.From), nil
				if cure := hint.Of(explainSend(undelivered.Err)); cure != "" {
					r.Error += ": " + cure
				}
			}
			rec.add(r)
		},
		Notice: func(err error) { rec.log.error(err) },
	}
}

func side(from proto.Direction) string {
	if from == proto.FromServer {
		return "target"
	}
	return "client"
}

// sourceText writes an address as it stands in sun_path the way that operands have it.
func sourceText(sunPath string) string {
	if name, abstract := strings.CutPrefix(sunPath, "\x00"); abstract {
		return "@" + name
	}
	return strings.TrimRight(sunPath, "\x00")
}

// passed records a message of the filter.
func (rec *recorder) passed(m *fdrecv.Message) {
	rec.message(&record{Event: "message", at: time.Now()}, &rec.filter, proto.FromClient, m.Payload, m.FDs)
}

// message records a message, of which r has what is known besides.
func (rec *recorder) message(r *record, d *decoding, from proto.Direction, payload []byte, fds []int) {
	size := len(payload)
	r.Bytes, r.shown = &size, payload[:min(size, rec.bytes)]
	r.Cut = size - len(r.shown)
	for name, value := range scm.Vars(payload) {
		r.Variables = append(r.Variables, name+"="+value)
	}
	for i, fd := range fds {
		description, err := fdinfo.Describe(fd)
		if err != nil {
			continue
		}
		// Its place in the message; the number and the flag are this process's own.
		description.FD, description.CloseOnExec = i, false
		r.fds = append(r.fds, description)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.decoder != nil {
		r.Decoded = d.decoder.Decode(from, payload, len(fds))
	}
	rec.add(r)
}

func (rec *recorder) add(r *record) {
	if r.at.IsZero() {
		r.at = time.Now()
	}
	rec.journal.add(rec.text(r))
}

// text is what is written of a record.
func (rec *recorder) text(r *record) string {
	if rec.json {
		return rec.jsonText(r)
	}
	var b strings.Builder
	b.WriteString(r.at.Format("15:04:05.000000"))
	if r.Connection != 0 {
		fmt.Fprintf(&b, " #%d", r.Connection)
	}
	if r.From != "" {
		b.WriteString(map[string]string{"client": " >", "target": " <"}[r.From])
	}
	switch r.Event {
	case "message":
		fmt.Fprintf(&b, " %s, %s", count(*r.Bytes, "byte", "bytes"), count(len(r.fds), "descriptor", "descriptors"))
		if r.Sender != nil {
			fmt.Fprintf(&b, " from %s", r.Sender)
		}
	case "connected":
		switch {
		case r.Source != "":
			fmt.Fprintf(&b, " connected: datagrams of %s", fdinfo.Printable(r.Source))
		case r.Client == nil && r.Target == nil:
			b.WriteString(" connected: datagrams of those who have no address")
		default:
			fmt.Fprintf(&b, " connected: %s to %s", r.Client, r.Target)
		}
	case "end":
		b.WriteString(" end")
	case "failed":
		if r.Client != nil {
			fmt.Fprintf(&b, " %s:", r.Client)
		}
		fmt.Fprintf(&b, " failed: %s", fdinfo.Printable(r.Error))
	case "missing":
		fmt.Fprintf(&b, " %s missing here: nobody has read this in time", count(r.Lines, "message is", "messages are"))
	default:
		b.WriteString(" " + r.Event)
	}
	b.WriteString("\n")
	rec.details(&b, r)
	return b.String()
}

// details are the lines below the first.
func (rec *recorder) details(b *strings.Builder, r *record) {
	line := func(text string) { b.WriteString("    " + text + "\n") }
	switch {
	case len(r.shown) > 0 && rec.hex:
		for text := range strings.Lines(hex.Dump(r.shown)) {
			line(strings.TrimSuffix(text, "\n"))
		}
	case r.Variables != nil:
		for _, v := range r.Variables {
			line(fdinfo.Printable(v))
		}
	case len(r.shown) > 0:
		line(`"` + strings.ReplaceAll(fdinfo.Printable(string(r.shown)), `"`, `\"`) + `"`)
	}
	if r.Cut > 0 && (rec.hex || r.Variables == nil) {
		line("and " + count(r.Cut, "byte", "bytes") + " more")
	}
	for _, d := range r.fds {
		line(d.Line())
	}
	for _, text := range r.Decoded {
		line(text)
	}
}

func (rec *recorder) jsonText(r *record) string {
	r.Time = r.at.UTC().Format("2006-01-02T15:04:05.000000Z")
	if rec.hex {
		r.Hex = hex.EncodeToString(r.shown)
	} else {
		r.Payload = fdinfo.Printable(string(r.shown))
	}
	for _, d := range r.fds {
		r.Descriptors = append(r.Descriptors, d.JSON())
	}
	return string(fdinfo.JSON(r)) + "\n"
}
