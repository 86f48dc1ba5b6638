//go:build linux

package proto

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
	"fdkit/internal/hint"
)

// framed is a message of skalibs that tells of n descriptors.
func framed(n int, body string) string {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
	return string(binary.BigEndian.AppendUint16(b, uint16(n))) + body
}

// big is a number as s6 has it.
func big(n int) string { return string(binary.BigEndian.AppendUint32(nil, uint32(n))) }

// dumped is what a message of a dump says of descriptors with these names.
func dumped(names ...string) string {
	var b []byte
	for _, name := range names {
		b = append(appendShort(append(b, s6Never...), name), 0)
	}
	return string(b)
}

func TestS6Retrieve(t *testing.T) {
	one := Want{Names: []string{"one"}}
	long := strings.Repeat("l", 255)
	testReceive(t, s6, []answered{
		{about: "one", want: one, say: []said{{framed(1, "\x00"), 1}}, result: []received{{fds: 1, names: []string{"one"}}}},
		{
			about: "two", want: Want{Names: []string{"one", long}},
			say:    []said{{framed(1, "\x00"), 1}, {framed(1, "\x00"), 1}},
			result: []received{{fds: 1, names: []string{"one"}}, {fds: 1, names: []string{long}}},
		},
		{
			about: "in pieces", want: one, say: []said{{"\x00", 1}, {"\x00\x00\x01\x00", 0}, {"\x01", 0}, {"\x00", 0}},
			result: []received{{fds: 1, names: []string{"one"}}},
		},
		{about: "there is none", want: one, say: []said{{framed(0, "\x02"), 0}}, err: `"one": no such file or directory`, hint: "--list"},
		{about: "not allowed", want: one, say: []said{{framed(0, "\x01"), 0}}, err: `"one": operation not permitted`, hint: "rules"},
		{about: "an error with a descriptor", want: one, say: []said{{framed(1, "\x02"), 1}}, err: "no such file or directory"},
		{about: "nothing", want: one, err: "it has closed the connection", hint: "rules"},
		{about: "half a head", want: one, say: []said{{"\x00\x00", 0}}, err: "it has closed the connection"},
		{about: "half a message", want: one, say: []said{{framed(1, "xyz")[:7], 1}}, err: "it has closed the connection"},
		{about: "empty", want: one, say: []said{{framed(0, ""), 0}}, err: "not the answer"},
		{about: "too long", want: one, say: []said{{"\xff\xff\xff\xff\x00\x00", 0}}, err: "a message of 4294967295 bytes"},
		{about: "no descriptor", want: one, say: []said{{framed(0, "\x00"), 0}}, err: "descriptors: 0"},
		{about: "told, not sent", want: one, say: []said{{framed(1, "\x00"), 0}}, err: "0 descriptors came, of 1"},
		{about: "sent, not told", want: one, say: []said{{framed(0, "\x00"), 1}}, err: "1 descriptors came, of 0"},
		{about: "two of one", want: one, say: []said{{framed(1, "\x00"), 2}}, err: "2 descriptors came, of 1"},
		{about: "text", want: one, say: []said{{"HTTP/1.1 400 Bad Request", 0}}, err: "a message of 1213486160 bytes"},
		{about: "silence", want: one, say: []said{{"", 0}}, err: "stopped"},
		{about: "silence within", want: one, say: []said{{framed(1, "\x00")[:3], 1}, {"", 0}}, err: "stopped"},
		{about: "a name that is too long", want: Want{Names: []string{long + "x"}}, err: "at most 255 bytes"},
		{about: "a name and the list", want: Want{Names: []string{"x"}, List: true}, err: "either"},
	})
}

func TestS6List(t *testing.T) {
	list := Want{List: true}
	testReceive(t, s6, []answered{
		{about: "none", want: list, say: []said{{framed(0, "\x00"+big(0)), 0}}},
		{about: "two", want: list, say: []said{{framed(0, "\x00"+big(2)+"one\x00two\x00"), 0}}, result: []received{{payload: "one\ntwo\n"}}},
		{about: "not allowed", want: list, say: []said{{framed(0, "\x01"), 0}}, err: "cannot list: operation not permitted", hint: "rules"},
		{about: "no number", want: list, say: []said{{framed(0, "\x00\x00"), 0}}, err: "cannot list: not the answer"},
		{about: "fewer", want: list, say: []said{{framed(0, "\x00"+big(2)+"one\x00"), 0}}, err: "cannot list: not the answer"},
		{about: "no end", want: list, say: []said{{framed(0, "\x00"+big(1)+"one"), 0}}, err: "cannot list: not the answer"},
		{about: "a descriptor", want: list, say: []said{{framed(1, "\x00"+big(0)), 1}}, err: "descriptors: 1"},
	})
}

func TestS6Dump(t *testing.T) {
	head := func(messages, fds int) said { return said{framed(0, "\x00"+big(messages)+big(fds)), 0} }
	names := slices.Repeat([]string{strings.Repeat("n", 255)}, 253)
	testReceive(t, s6, []answered{
		{about: "none", say: []said{head(0, 0)}},
		{
			about: "two messages", say: []said{head(2, 3), {framed(2, dumped("one", "two")), 2}, {framed(1, dumped("three")), 1}},
			result: []received{{fds: 2, names: []string{"one", "two"}}, {fds: 1, names: []string{"three"}}},
		},
		{
			// The end of the first message comes with the second one's descriptors.
			about: "large ones", say: []said{head(2, 506), {framed(253, dumped(names...)), 253}, {framed(253, dumped(names...)), 253}},
			result: []received{{fds: 253, names: names}, {fds: 253, names: names}},
		},
		{about: "not allowed", say: []said{{framed(0, "\x01"), 0}}, err: "cannot dump: operation not permitted", hint: "rules"},
		{about: "no numbers", say: []said{{framed(0, "\x00"), 0}}, err: "cannot dump: not the answer"},
		{about: "fewer messages", say: []said{head(1, 1)}, err: "cannot dump: not the answer that the dialect has: it has closed"},
		{about: "fewer names", say: []said{head(1, 2), {framed(2, dumped("one")), 2}}, err: "descriptors: 2"},
		{about: "more names", say: []said{head(1, 1), {framed(1, dumped("one", "two")), 1}}, err: "descriptors: 1"},
		{about: "half a name", say: []said{head(1, 1), {framed(1, dumped("one")[:15]), 1}}, err: "descriptors: 1"},
		{about: "silence", say: []said{head(1, 1), {"", 0}}, err: "stopped"},
	})
}

func TestS6Store(t *testing.T) {
	stored := framed(1, "S"+s6Never+"\x03one\x00")
	for _, test := range []struct {
		about  string
		names  []string
		answer []said
		err    string
		hint   string
	}{
		{"one", []string{"one"}, []said{{framed(0, "\x00"), 0}}, "", ""},
		{"no name", nil, nil, "none is given", "--name ID"},
		{"there is one", []string{"one"}, []said{{framed(0, "\x10"), 0}}, `"one": device or resource busy`, "s6-fdholder-delete"},
		{"full", []string{"one"}, []said{{framed(0, "\x17"), 0}}, `"one": too many open files in system`, "-n"},
		{"a descriptor is the answer", []string{"one"}, []said{{framed(1, "\x00"), 1}}, "descriptors: 1", ""},
		{"nothing", []string{"one"}, nil, "it has closed the connection", "rules"},
	} {
		t.Run(test.about, func(t *testing.T) {
			fdtest.NoLeaks(t)
			ours, theirs, _ := conversation(t, unix.SOCK_STREAM)
			pipe, _ := fdtest.Pipe(t)
			theirs.say(t, test.answer...)
			send, err := s6.Send(ours)
			if err == nil {
				err = send(Parcel{FDs: []int{pipe.FD}, Names: test.names})
			}
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) || !strings.Contains(hint.Of(err), test.hint) {
				t.Errorf("send = %v, hint %q; want %q, hint %q", err, hint.Of(err), test.err, test.hint)
			}
			if test.names == nil {
				return
			}
			if got, err := theirs.ReadFull(len(stored)); err != nil || string(got) != stored || len(theirs.fds) != 1 {
				t.Errorf("sent is %q, descriptors %d, %v; want %q with one", got, len(theirs.fds), err, stored)
			}
		})
	}
}

// TestS6Questions holds what the commands are.
func TestS6Questions(t *testing.T) {
	for _, test := range []struct {
		want     Want
		question string
	}{
		{Want{}, "?"},
		{Want{List: true}, "L"},
		{Want{Names: []string{"one"}}, "R\x00\x03one\x00"},
	} {
		ours, theirs, _ := conversation(t, unix.SOCK_STREAM)
		theirs.say(t)
		_, _ = receiveAll(ours, s6, test.want)
		want := framed(0, test.question)
		if got, err := theirs.ReadFull(len(want)); err != nil || string(got) != want {
			t.Errorf("for %+v is sent %q, %v; want %q", test.want, got, err, want)
		}
	}
}

func TestS6Decode(t *testing.T) {
	testDecode(t, s6, true, []utterance{
		{FromClient, framed(1, "S"+s6Never+"\x03one\x00"), 1, []string{"store one, descriptors: 1"}},
		{FromServer, framed(0, "\x00"), 0, []string{"done"}},
		{FromClient, framed(1, "S123456789012\x03o\ne\x00"), 0, []string{`store o\ne, with an end, descriptors: 0 of 1`}},
		{FromServer, framed(0, "\x10"), 0, []string{"no: device or resource busy"}},
		{FromClient, framed(0, "R\x01\x03one\x00") + framed(0, "D\x03one\x00"), 0, []string{"retrieve one, and delete it", "delete one"}},
		{FromServer, framed(1, "\x00") + framed(0, "\x02"), 1, []string{"done, descriptors: 1", "no: no such file or directory"}},
		{FromClient, framed(0, "L"), 0, []string{"list"}},
		{FromServer, framed(0, "\x00"+big(2)+"one\x00two\x00"), 0, []string{"it holds: one, two"}},
		{FromClient, framed(0, "?"), 0, []string{"dump"}},
		{FromServer, framed(0, "\x00"+big(1)+big(2)), 0, []string{"it holds: 2, messages to come: 1"}},
		{FromServer, framed(2, dumped("one", "two")), 2, []string{"dumped: one, two, descriptors: 2"}},
		{FromClient, framed(0, "!"+big(2)), 0, []string{"store a dump, descriptors in all: 2"}},
		{FromServer, framed(0, "\x00"+big(1)), 0, []string{"done"}},
		{FromClient, framed(1, "."+dumped("one")), 1, []string{"dumped: one, descriptors: 1"}},
		{FromServer, framed(0, "\x0b"), 0, []string{"done, more is to come"}},
		{FromServer, framed(0, "\x00"), 0, []string{"an answer to nothing: \\x00"}},
		{FromClient, framed(0, ""), 0, []string{"an empty message"}},
		{FromClient, framed(0, "X"), 0, []string{"a command that there is not: X"}},
		{FromServer, framed(0, ""), 0, []string{"an empty answer"}},
		{FromClient, "\x7f\xff\xff\xff\x00\x00", 0, []string{`a message of 2147483647 bytes: \x7f\xff\xff\xff\x00\x00; what follows is not explained`}},
		{FromClient, framed(0, "L"), 0, nil},
	})
	d := s6.Decoder()
	lines := d.Decode(FromClient, []byte(strings.Repeat(framed(0, "L"), s6Ahead+2)), 0)
	if want := s6Ahead + 1; len(lines) != want || !strings.Contains(lines[want-1], "too many") {
		t.Errorf("Decode of %d commands makes %d lines, the last %q; want %d and that these are too many", s6Ahead+2, len(lines), lines[len(lines)-1], want)
	}
}

func FuzzS6Decode(f *testing.F) {
	fuzzDecode(f, s6, framed(1, "S"+s6Never+"\x03one\x00")+framed(0, "L"), framed(0, "\x00"+big(1)+"one\x00"), framed(0, "?")+framed(0, "."))
}

func FuzzS6Retrieve(f *testing.F) {
	fuzzReceive(f, s6, Want{Names: []string{"one", "two"}}, framed(1, "\x00")+framed(0, "\x02"), framed(1, "\x00")+framed(1, "\x00"))
}

func FuzzS6Dump(f *testing.F) {
	fuzzReceive(f, s6, Want{}, framed(0, "\x00"+big(1)+big(1))+framed(1, dumped("one")), framed(0, "\x00"+big(0)+big(0)))
}

// FuzzS6Names parses the names of lists and dumps: those that it finds are all that was
// there.
func FuzzS6Names(f *testing.F) {
	f.Add([]byte(big(2) + "one\x00two\x00"))
	f.Add([]byte(dumped("one", "")))
	f.Fuzz(func(t *testing.T, body []byte) {
		if names, ok := s6Names(body); ok {
			again := big(len(names))
			for _, name := range names {
				again += name + "\x00"
			}
			if again != string(body) {
				t.Errorf("s6Names(%q) = %q, which is %q", body, names, again)
			}
		}
		if names, ok := s6Dumped(body); ok {
			if want := len(strings.Join(names, "")) + len(names)*(s6Time+2); want != len(body) {
				t.Errorf("s6Dumped(%q) = %q, which are %d bytes", body, names, want)
			}
		}
	})
}
