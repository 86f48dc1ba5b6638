//go:build linux

package fdinfo

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestParseInfo(t *testing.T) {
	i := parseInfo([]byte("pos:\t5\nflags:\t02004002\nmnt_id:\t7\nino:\t9\nlock:\t1: POSIX\nlock:\t2: FLOCK\nflags:\t0\nnothing\n"))
	var locks []string
	for lock := range i.all("lock") {
		locks = append(locks, lock)
	}
	if n, ok := i.number("pos"); i.flags != 0o2004002 || n != 5 || !ok || fmt.Sprint(locks) != "[1: POSIX 2: FLOCK]" {
		t.Errorf("parseInfo() = %+v", i)
	}
	if n, ok := i.number("lock"); ok {
		t.Errorf("number of what is none = %d, true; want false", n)
	}
}

func TestParseLines(t *testing.T) {
	for _, test := range []struct {
		about, text string
		parse       func(info) any
		want        string
	}{
		{
			"epoll", "tfd:        3 events: 4000001d data:        fffffffff  pos:0 ino:f2b1ff sdev:800003\n",
			func(i info) any { return parseEpoll(i).Watches },
			"[{3 [EPOLLIN EPOLLOUT EPOLLONESHOT] 0xfffffffff 15905279 8:3}]",
		},
		{
			"epoll before Linux 5", "tfd:        3 events:       19 data: 3\n",
			func(i info) any { return parseEpoll(i).Watches },
			"[{3 [EPOLLIN] 0x3 0 }]",
		},
		{"epoll, garbage", "tfd: x events: 1\ntfd:\ntfd: 1 events: -1\n", func(i info) any { return parseEpoll(i).Watches }, "[]"},
		{
			"inotify", "inotify wd:11 ino:3c4a3 sdev:fe00000 mask:2 ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:a3c4\n",
			func(i info) any { return parseNotify(i, "inotify ").Watches }, "[{11 246947 254:0 0 0x2}]",
		},
		{
			"fanotify", "fanotify flags:10 event-flags:0\nfanotify mnt_id:12 mflags:40 mask:38 ignored_mask:0\nfanotify sdev:800013 mflags:0 mask:3b ignored_mask:0\n",
			func(i info) any { return parseNotify(i, "fanotify ").Watches }, "[{0 0  18 0x38} {0 0 8:19 0 0x3b}]",
		},
		{
			"timerfd", "clockid: 9\nticks: 3\nsettime flags: 01\nit_value: (0, 49406829)\nit_interval: (1, 0)\n",
			func(i info) any {
				timer := parseTimerfd(i)
				return fmt.Sprint(timer.Clock, timer.Ticks, *timer.Left, *timer.Interval)
			},
			"CLOCK_BOOTTIME_ALARM3 0.049407 1",
		},
		{"timerfd without lines", "pos: 0\n", func(i info) any { return parseTimerfd(i) }, "<nil>"},
	} {
		t.Run(test.about, func(t *testing.T) {
			if got := fmt.Sprint(test.parse(parseInfo([]byte(test.text)))); got != test.want {
				t.Errorf("parsing %q\n got %s\nwant %s", test.text, got, test.want)
			}
		})
	}
}

func TestUnixTable(t *testing.T) {
	const header = "Num       RefCount Protocol Flags    Type St Inode Path\n"
	for _, test := range []struct {
		about, text, want string
	}{
		{"listening", header + "0000: 00000002 00000000 00010000 0005 01 77 /run/a b.sock\n", "seqpacket true false unix:/run/a b.sock"},
		{"connected", header + "0000: 00000003 00000000 00000000 0001 03 77\n", "stream false true "},
		{"abstract", header + "0000: 00000003 00000000 00000000 0002 01 77 @x@y\n", "dgram false false unix:@x@y"},
		{"forged", header + "0000: 00000003 00000000 00000000 0001 01 5 /a\n0: 2 0 10000 1 1 77 /etc/shadow\n0000: 00000003 00000000 00000000 0001 03 77\n", " false false "},
		{"another", header + "0000: 00000003 00000000 00000000 0001 03 78\n", " false false "},
	} {
		t.Run(test.about, func(t *testing.T) {
			var s SocketInfo
			s.unixTable(test.text, 77)
			if got := fmt.Sprint(s.Type, " ", s.Listening, " ", s.Connected, " ", s.Local); got != test.want {
				t.Errorf("unixTable(%q) = %q; want %q", test.text, got, test.want)
			}
		})
	}
}

func FuzzInfo(f *testing.F) {
	f.Add("pos:\t0\nflags:\t02\ntfd: 3 events: 19 data: 3 pos:0 ino:f sdev:f\nclockid: 0\nit_value: (99, 976101985)\ninotify wd:1 ino:3 sdev:f mask:2\nfanotify mnt_id:12 mask:3\n")
	f.Add("tfd:::: : :\ninotify :\nit_value: (,)\nclockid:1\n")
	f.Fuzz(func(t *testing.T, text string) {
		i := parseInfo([]byte(text))
		for _, w := range parseEpoll(i).Watches {
			if w.FD < 0 && !strings.Contains(text, "-") {
				t.Errorf("parseEpoll(%q) watches %d", text, w.FD)
			}
		}
		d := Description{
			Epoll: parseEpoll(i), Timerfd: parseTimerfd(i),
			Inotify: parseNotify(i, "inotify "), Fanotify: parseNotify(i, "fanotify "),
		}
		rendered(t, d)
	})
}

func FuzzTables(f *testing.F) {
	f.Add("0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7 1\n")
	f.Add("0: 00000000000000000000000001000000:1F90 0000000000000000FFFF00000100007F:0001 01 00000005:00000001 00:00000000 00000000     0        0 7 1\n")
	f.Add("0000: 00000003 00000000 00010000 0001 03 7 @\x1b\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, protocol := range []string{"tcp", "udp"} {
			s := SocketInfo{Family: "inet", Protocol: protocol}
			s.inetTable(text, 7)
			rendered(t, Description{Socket: &s})
		}
		s := SocketInfo{Family: "unix"}
		s.unixTable(text, 7)
		rendered(t, Description{Socket: &s})
	})
}

func FuzzPrintable(f *testing.F) {
	f.Add("a\nb\x1b\xff\u202e\\")
	f.Fuzz(func(t *testing.T, text string) {
		got := Printable(text)
		if !utf8.ValidString(got) || strings.ContainsAny(got, "\n\r\x1b") {
			t.Errorf("Printable(%q) = %q", text, got)
		}
		rendered(t, Description{Name: text, Memfd: &MemfdInfo{Name: text}, Locks: []string{text}})
	})
}

// rendered holds that nothing of a description breaks out of its line.
func rendered(t *testing.T, d Description) {
	t.Helper()
	if line := d.Line(); strings.ContainsAny(line, "\n\r\x1b\u009b") {
		t.Errorf("Line() = %q", line)
	}
	if text := d.JSON(); strings.ContainsAny(string(text), "\n\r\x1b\u009b") {
		t.Errorf("JSON() = %q", text)
	}
	for line := range strings.Lines(d.Verbose(" ")) {
		if !strings.HasPrefix(line, " ") || !strings.Contains(line, ": ") {
			t.Errorf("Verbose() has the line %q", line)
		}
	}
}
