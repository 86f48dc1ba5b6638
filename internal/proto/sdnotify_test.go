//go:build linux

package proto

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
	"fdkit/internal/interrupt"
	"fdkit/internal/scm"
)

func TestSDNotifyReceive(t *testing.T) {
	for _, test := range []struct {
		payload string
		fds     int
		names   []string
		barrier bool
	}{
		{"READY=1", 0, nil, false},
		{"READY=1\nSTATUS=Fine\n", 0, nil, false},
		{"FDSTORE=1", 1, []string{"stored"}, false},
		{"FDSTORE=1\nFDNAME=x\n", 2, []string{"x", "x"}, false},
		{"FDNAME=x\nFDSTORE=1", 1, []string{"x"}, false},
		{"FDSTORE=1\nFDNAME=a:b", 1, []string{"stored"}, false},
		{"FDSTORE=1\nFDNAME=", 1, []string{"stored"}, false},
		{"FDSTORE=1\nFDNAME=\xff", 1, []string{"stored"}, false},
		{"FDSTORE=1\nFDNAME=" + strings.Repeat("n", 256), 1, []string{"stored"}, false},
		{"FDNAME=x", 1, nil, false},
		{"junk\x00", 1, nil, false},
		{"BARRIER=1", 1, nil, true},
		{"BARRIER=1\n", 2, nil, true},
		{"BARRIER=1", 0, nil, true},
		{"BARRIER=1\nFDSTORE=1\nFDNAME=x", 1, nil, true},
		{"BARRIER=12", 1, nil, false},
	} {
		t.Run(fmt.Sprintf("%.40q", test.payload), func(t *testing.T) {
			fdtest.NoLeaks(t)
			ours, theirs, _ := conversation(t, unix.SOCK_DGRAM)
			theirs.say(t, said{test.payload, test.fds}, said{"END=1", 0})
			next, err := sdNotify.Receive(ours, Want{})
			if err != nil {
				t.Fatal(err)
			}
			var m scm.Message
			if err := next(&m); err != nil {
				t.Fatalf("next = %v", err)
			}
			defer m.Close()
			if test.barrier {
				if string(m.Payload) != "END=1" {
					t.Errorf("a barrier yields %q, want nothing", m.Payload)
				}
			} else if string(m.Payload) != test.payload || len(m.FDs) != test.fds || !slices.Equal(m.Names, test.names) {
				t.Errorf("received %q, %d descriptors, names %q; want names %q", m.Payload, len(m.FDs), m.Names, test.names)
			}
		})
	}
}

// taken is what a manager that closes barriers has taken.
func takeNotifications(c *Conn) (all []received) {
	next, _ := sdNotify.Receive(c, Want{})
	for {
		var m scm.Message
		if err := next(&m); err != nil || string(m.Payload) == "END=1" {
			return all
		}
		all = append(all, received{string(m.Payload), len(m.FDs), m.Names})
		m.Close()
	}
}

func TestSDNotifySend(t *testing.T) {
	pipe, _ := fdtest.Pipe(t)
	fd := func(n int) []int { return slices.Repeat([]int{pipe.FD}, n) }
	for _, test := range []struct {
		about  string
		parcel Parcel
		want   []received
	}{
		{"no names", Parcel{FDs: fd(3)}, []received{{"FDSTORE=1\n", 3, []string{"stored", "stored", "stored"}}}},
		{
			"two names, for three",
			Parcel{FDs: fd(3), Names: []string{"b", "a", "b"}},
			[]received{{"FDSTORE=1\nFDNAME=b\n", 2, []string{"b", "b"}}, {"FDSTORE=1\nFDNAME=a\n", 1, []string{"a"}}},
		},
		{"a payload", Parcel{FDs: fd(1), Payload: []byte("READY=1")}, []received{{"READY=1", 1, nil}}},
		{"a barrier of the user", Parcel{FDs: fd(1), Payload: []byte(sdNotifyBarrier)}, nil},
	} {
		t.Run(test.about, func(t *testing.T) {
			fdtest.NoLeaks(t)
			ours, theirs, _ := conversation(t, unix.SOCK_DGRAM)
			manager := make(chan []received, 1)
			go func() { manager <- takeNotifications(theirs) }()
			send, err := sdNotify.Send(ours)
			if err == nil {
				err = send(test.parcel)
			}
			if err != nil {
				t.Errorf("send = %v", err)
			}
			if err := ours.Send([]byte("END=1")); err != nil {
				t.Fatal(err)
			}
			if got := fdtest.Soon(t, "the manager", manager); !equalReceived(got, test.want) {
				t.Errorf("the manager takes %+v, want %+v", got, test.want)
			}
		})
	}
}

// TestSDNotifyWaits sends to a manager that takes nothing: the call lasts until it does,
// or until it is stopped.
func TestSDNotifyWaits(t *testing.T) {
	fdtest.NoLeaks(t)
	ours, theirs, calls := conversation(t, unix.SOCK_DGRAM)
	send, _ := sdNotify.Send(ours)
	sent := make(chan error, 1)
	go func() { sent <- send(Parcel{FDs: []int{0}}) }()
	fdtest.Eventually(t, "send polls", func() bool {
		return fdtest.Blocked(unix.SYS_POLL, -1) || fdtest.Blocked(unix.SYS_PPOLL, -1)
	})
	calls.Stop()
	if err := fdtest.Soon(t, "send", sent); err != interrupt.ErrStopped {
		t.Errorf("a send that nobody takes = %v when it is stopped, want %v", err, interrupt.ErrStopped)
	}
	var m scm.Message
	for _, want := range []string{"FDSTORE=1\n", sdNotifyBarrier} {
		if err := theirs.Receive(&m); err != nil || string(m.Payload) != want || len(m.FDs) != 1 {
			t.Errorf("the manager finds %q, %d descriptors, %v; want %q with one", m.Payload, len(m.FDs), err, want)
		}
		m.Close()
	}
}

func TestSDNotifyDecode(t *testing.T) {
	testDecode(t, sdNotify, false, []utterance{
		{FromClient, "READY=1\nSTATUS=a\x1bb\n", 0, []string{"READY=1: has started, or loaded its configuration", `STATUS=a\x1bb: its state in words`}},
		{FromClient, "FDSTORE=1\nFDNAME=x", 1, []string{"FDSTORE=1: hold the descriptors", "FDNAME=x: the name of the descriptors"}},
		{FromClient, "ERRNO=2\nERRNO=x\nERRNO=4096", 0, []string{"ERRNO=2: fails with: no such file or directory", "ERRNO=x: why it fails", "ERRNO=4096: why it fails"}},
		{FromClient, "BARRIER=1", 1, []string{"BARRIER=1: close the descriptor when all before is done"}},
		{FromClient, "BARRIER=1", 0, []string{"BARRIER=1: a barrier has one descriptor, and this one 0"}},
		{FromClient, "X_MINE=1\n\n\njunk\nREADY", 0, []string{"X_MINE=1", "junk: no VARIABLE=VALUE", "READY: no VARIABLE=VALUE"}},
		{FromClient, "", 0, nil},
	})
}

func FuzzSDNotifyDecode(f *testing.F) {
	fuzzDecode(f, sdNotify, "READY=1\nSTATUS=x\nERRNO=2\nBARRIER=1\nFDNAME=\xff", "junk")
}

func FuzzSDNotifyName(f *testing.F) {
	f.Add("FDSTORE=1\nFDNAME=x")
	f.Add("FDNAME=a:b\nFDNAME=c")
	f.Fuzz(func(t *testing.T, payload string) {
		if name := sdNotifyName([]byte(payload)); !isFDName(name) {
			t.Errorf("sdNotifyName(%q) = %q, which is no name", payload, name)
		}
	})
}
