//go:build linux

package cmd

import (
	"log/slog"
	"strings"
	"testing"

	"fdkit/exec"
)

func TestPerSourceValue(t *testing.T) {
	for text, want := range map[string]exec.SourceLimit{
		"3":         {N: 3, IPv4Bits: 32, IPv6Bits: 64},
		"3/24":      {N: 3, IPv4Bits: 24, IPv6Bits: 64},
		"3/24,56":   {N: 3, IPv4Bits: 24, IPv6Bits: 56},
		"1/1,1":     {N: 1, IPv4Bits: 1, IPv6Bits: 1},
		"99/32,128": {N: 99, IPv4Bits: 32, IPv6Bits: 128},
	} {
		var p perSource
		if err := p.Set(text); err != nil || p.limit.N != want.N || p.limit.IPv4Bits != want.IPv4Bits || p.limit.IPv6Bits != want.IPv6Bits {
			t.Errorf("--per-source %s is %+v, %v; want %+v", text, p.limit, err, want)
		}
	}
}

func FuzzPerSourceValue(f *testing.F) {
	for _, text := range []string{"3", "3/24", "3/24,56", "0", "3/", "3/,", "3/33", "/", "+3", "3/24,129", "99999999999999999999"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var p perSource
		err := p.Set(text)
		l := p.limit
		switch {
		case err != nil && l.N != 0:
			t.Errorf("--per-source %q is refused (%v), and is %+v", text, err, l)
		case err == nil && (l.N < 1 || l.IPv4Bits < 1 || l.IPv4Bits > 32 || l.IPv6Bits < 1 || l.IPv6Bits > 128):
			t.Errorf("--per-source %q is %+v", text, l)
		case err == nil && strings.Trim(text, "0123456789/,") != "":
			t.Errorf("--per-source %q is taken", text)
		}
	})
}

// A flood leaves one line at once, and then one with the numbers.
func TestRefusals(t *testing.T) {
	log := logger{name: "fdkit pool", level: levelErrors, journal: &journal{lines: make(chan string, 100)}}
	r := &refusals{log: log}
	asked := 0
	add := func(reason string, times int) {
		for range times {
			r.add(reason, "line {n}", func() []slog.Attr { asked++; return []slog.Attr{slog.Int("n", asked)} })
		}
	}
	add("per-source", 1000)
	add("gone", 2)
	r.summarize() // as the timer does
	add("gone", 1)
	r.summarize()
	r.summarize() // nothing was refused meanwhile
	add("queue-timeout", 1)
	r.summarize()
	add("gone", 1)
	add("gone", 3)
	r.end()
	r.summarize()
	close(log.journal.lines)
	var got []string
	for line := range log.journal.lines {
		got = append(got, strings.TrimPrefix(line, "fdkit pool: "))
	}
	const want = "line 1\nrefused 1001 more connections: gone 2, per-source 999\nrefused 1 more connection: gone 1\n" +
		"line 2\nline 3\nrefused 3 more connections: gone 3\n"
	if text := strings.Join(got, ""); text != want || asked != 3 {
		t.Errorf("the log is\n%swant\n%s", text, want)
	}
}
