//go:build linux

package cmd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
	"fdkit/internal/hint"
	"fdkit/listen"
)

// logged returns what do has logged, in lines.
func logged(l logger, do func(l logger)) (lines []string) {
	l.name, l.journal = "fdkit test", &journal{lines: make(chan string, 100)}
	do(l)
	for {
		select {
		case line := <-l.journal.lines:
			lines = append(lines, line)
		default:
			return lines
		}
	}
}

func start(l logger) {
	l.event(isInfo, "start", "start pid {pid} for {client}, waited {waited}, running {running}/{slots}",
		slog.String("client", "192.0.2.7:51022"), slog.Duration("waited", 312499*time.Nanosecond),
		slog.Int("pid", 812), slog.Int("running", 3), slog.Int("slots", 40))
}

func TestLogText(t *testing.T) {
	for _, test := range []struct {
		name string
		log  logger
		do   func(l logger)
		want string
	}{
		{"event", logger{level: levelAll}, start, "fdkit test: start pid 812 for 192.0.2.7:51022, waited 312µs, running 3/40\n"},
		{"event with -Q", logger{level: levelErrors}, start, ""},
		{"unknown field", logger{level: levelAll}, func(l logger) { l.event(isInfo, "x", "waited {waited}, ran {ran}", slog.Int("ran", 1)) }, "fdkit test: waited unknown, ran 1\n"},
		{"braces from outside", logger{level: levelAll}, func(l logger) { l.event(isInfo, "x", "{a} and {b}", slog.String("a", "{b}"), slog.String("b", "}{")) }, "fdkit test: {b} and }{\n"},
		{"notice with -Q", logger{level: levelErrors}, func(l logger) { l.notice("100%% of %d", 3) }, "fdkit test: 100% of 3\n"},
		{"notice with -q", logger{}, func(l logger) { l.notice("n") }, ""},
		{"error with -q", logger{}, func(l logger) { l.error(errors.New("e")) }, ""},
		{"info with -Q", logger{level: levelErrors}, func(l logger) { l.info("i") }, ""},
		{
			"hostile error",
			logger{level: levelErrors},
			func(l logger) {
				l.error(hint.Wrap(errors.New("a\nfdkit pool: b\x1b[2J\u009b2J{pid}%d"), "./c\nd"))
			},
			"fdkit test: a?fdkit pool: b?[2J?2J{pid}%d\nfdkit test: hint: ./c?d\n",
		},
	} {
		if got := strings.Join(logged(test.log, test.do), ""); got != test.want {
			t.Errorf("%s: logged %q; want %q", test.name, got, test.want)
		}
	}
}

func TestLogJSON(t *testing.T) {
	lines := logged(logger{level: levelAll, json: true}, func(l logger) {
		start(l)
		l.error(hint.Wrap(errors.New("cannot bind"), "choose another"))
		l.notice("still waiting")
	})
	want := []string{
		`"level":"info","msg":"start pid 812 for 192.0.2.7:51022, waited 312µs, running 3/40","program":"fdkit test","event":"start",` +
			`"client":"192.0.2.7:51022","waited":0.000312,"pid":812,"running":3,"slots":40}` + "\n",
		`"level":"error","msg":"cannot bind","program":"fdkit test","event":"error","hint":"choose another"}` + "\n",
		`"level":"notice","msg":"still waiting","program":"fdkit test","event":"notice"}` + "\n",
	}
	if len(lines) != len(want) {
		t.Fatalf("logged %d lines, %q; want %d", len(lines), lines, len(want))
	}
	for i, line := range lines {
		var head struct{ Time string }
		if err := json.Unmarshal([]byte(line), &head); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		at, err := time.Parse("2006-01-02T15:04:05.000000Z", head.Time)
		if err != nil || time.Since(at) > time.Minute || time.Since(at) < 0 {
			t.Errorf("line %q: time %s (%v); want UTC with microseconds, just now", line, head.Time, err)
		}
		if got := strings.TrimPrefix(line, `{"time":"`+head.Time+`",`); got != want[i] {
			t.Errorf("logged after the time\n%swant\n%s", got, want[i])
		}
	}
}

// FuzzLog holds that whatever comes from outside stays in its line, and JSON JSON.
func FuzzLog(f *testing.F) {
	f.Add("unix:@a\nb\"c\\\xff\u2028{client}")
	f.Add("\x00\x1b]0;x\a")
	f.Fuzz(func(t *testing.T, client string) {
		accept := func(l logger) {
			l.event(isInfo, "accepted", "accepted {client}", slog.String("client", client))
			l.error(errors.New(client))
		}
		for _, line := range logged(logger{level: levelAll}, accept) {
			if text, _ := strings.CutSuffix(line, "\n"); strings.ContainsFunc(text, unicode.IsControl) {
				t.Errorf("client %q: the log has the line %q", client, line)
			}
		}
		lines := logged(logger{level: levelAll, json: true}, accept)
		if len(lines) != 2 {
			t.Fatalf("client %q: %d lines, %q; want 2", client, len(lines), lines)
		}
		var accepted struct{ Event, Msg, Client string }
		if err := json.Unmarshal([]byte(lines[0]), &accepted); err != nil || strings.Count(lines[0], "\n") != 1 {
			t.Errorf("client %q: line %q: %v; want one line of JSON", client, lines[0], err)
		}
		if want := string([]rune(client)); accepted.Client != want { // U+FFFD for what is no UTF-8
			t.Errorf("client %q is logged as %q; want %q", client, accepted.Client, want)
		}
	})
}

func TestAnonymous(t *testing.T) {
	for _, test := range []struct{ address, want string }{
		{"192.0.2.7:51022", "192.0.2.0"},
		{"192.0.2.7", "192.0.2.0"},
		{"[2001:db8:1:2:3:4:5:6]:80", "2001:db8:1::"},
		{"2001:db8:1:2::", "2001:db8:1::"},
		{"[fe80::1%eth0]:80", "fe80::"},
		{"[::1]:80", "::"},
		{"[::ffff:192.0.2.7]:80", "192.0.2.0"},
		{"[2002:c000:207:1::1]:80", "2002:c000:200::"},
		{"unix:", "unix:"},
		{"unix:/home/alice/socket", "unix:"},
		{"unix:@alice", "unix:"},
		{"unknown", "unknown"},
		{"", "unknown"},
		{"192.0.2.7:51022:", "unknown"},
		{"[192.0.2.7]", "unknown"},
	} {
		if got := anonymous(test.address); got != test.want {
			t.Errorf("anonymous(%q) = %q; want %q", test.address, got, test.want)
		}
	}
}

// FuzzAnonymous holds that no bit of the host is left of any address.
func FuzzAnonymous(f *testing.F) {
	f.Add("192.0.2.7:51022")
	f.Add("[2001:db8:1:2:3:4:5:6%eth0]:80")
	f.Fuzz(func(t *testing.T, address string) {
		got := anonymous(address)
		if got == "unknown" || got == "unix:" {
			return
		}
		ip, err := netip.ParseAddr(got)
		if err != nil {
			t.Fatalf("anonymous(%q) = %q: %v", address, got, err)
		}
		bits := 48
		if ip.Is4() {
			bits = 24
		}
		if p := netip.PrefixFrom(ip, bits); p.Masked().Addr() != ip || ip.Zone() != "" {
			t.Errorf("anonymous(%q) = %q; want a network of %d bits", address, got, bits)
		}
	})
}

// TestLogAnonymizeErrors holds that a client's address stays out of errors too.
func TestLogAnonymizeErrors(t *testing.T) {
	const address = "[2001:db8:1:2:3:4:5:6]:51022"
	err := fmt.Errorf("it failed: %w", &listen.SendError{Remote: address, Err: errors.New("broken pipe")})
	for _, format := range []bool{false, true} {
		for _, anonymize := range []bool{false, true} {
			lines := logged(logger{level: levelErrors, json: format, anonymize: anonymize}, func(l logger) { l.error(err) })
			if len(lines) != 1 || strings.Contains(lines[0], address) == anonymize ||
				strings.Contains(lines[0], "connection of 2001:db8:1::: broken pipe") != anonymize {
				t.Errorf("json %t, anonymize %t: logged %q", format, anonymize, lines)
			}
		}
	}
}

// TestJournalMissing holds that lines which found no room are counted in their place,
// in the form of the others.
func TestJournalMissing(t *testing.T) {
	const text = "fdkit test: 1 line is missing here: nobody has read the log in time\n"
	for format, want := range map[bool]string{
		false: "first\n" + text + "second\n",
		true:  `"msg":"1 line is missing here: nobody has read the log in time","program":"fdkit test","event":"missing","lines":1}` + "\nsecond\n",
	} {
		read, write := fdtest.Pipe(t)
		stderr := fdtest.Dup(t, 2)
		if err := unix.Dup3(write.FD, 2, unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		j := newJournal(logger{name: "fdkit test", level: levelErrors, json: format})
		j.missing.Add(1)
		j.add("first\n")
		j.add("second\n")
		j.end()
		err := unix.Dup3(stderr.FD, 2, 0)
		write.Close()
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(os.NewFile(uintptr(read.Take()), "log"))
		if err != nil || !strings.HasPrefix(string(got), "first\n") || !strings.HasSuffix(string(got), want) {
			t.Errorf("json %t: the log is %q, %v; want %q at its end", format, got, err, want)
		}
	}
}

func TestCount(t *testing.T) {
	for n, want := range map[int]string{0: "0 lines are", 1: "1 line is", 2: "2 lines are", 1000: "1000 lines are"} {
		if got := count(n, "line is", "lines are"); got != want {
			t.Errorf("count(%d) = %q; want %q", n, got, want)
		}
	}
}
