//go:build linux

package proto

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
)

func TestRuncReceive(t *testing.T) {
	long := strings.Repeat("n", 4095)
	testReceive(t, runc, []answered{
		// As runc 1.1.5 has sent it.
		{about: "one", say: []said{{"/dev/ptmx", 1}}, result: []received{{fds: 1, names: []string{"/dev/ptmx"}}}},
		{about: "a long name", say: []said{{long, 1}}, result: []received{{fds: 1, names: []string{long}}}},
		{about: "a name that is too long", say: []said{{long + "n", 1}}, err: "descriptors: 1, and not one with a name"},
		{about: "no descriptor", say: []said{{"/dev/ptmx", 0}}, err: "descriptors: 0, and not one with a name: /dev/ptmx"},
		{about: "two", say: []said{{"/dev/ptmx", 2}}, err: "descriptors: 2"},
		{about: "nothing"},
		{about: "silence", say: []said{{"", 0}}, err: "stopped"},
	})
}

func TestRuncSend(t *testing.T) {
	fdtest.NoLeaks(t)
	null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(null)
	for _, test := range []struct {
		parcel Parcel
		want   string
		err    string
	}{
		{Parcel{FDs: []int{null}}, "/dev/null", ""},
		{Parcel{FDs: []int{null}, Names: []string{"/dev/ptmx"}}, "/dev/ptmx", ""},
		{Parcel{FDs: []int{null, null}}, "", "one descriptor, and here are 2"},
		{Parcel{FDs: []int{1 << 20}}, "", "cannot name the descriptor"},
	} {
		ours, theirs, _ := conversation(t, unix.SOCK_STREAM)
		send, err := runc.Send(ours)
		if err == nil {
			err = send(test.parcel)
		}
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("sending %+v: %v, want an error with %q", test.parcel, err, test.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("sending %+v: %v", test.parcel, err)
			continue
		}
		got, err := theirs.ReadFull(len(test.want))
		if err != nil || string(got) != test.want || len(theirs.fds) != 1 {
			t.Errorf("sending %+v sends %q, descriptors %d, %v; want %q with one", test.parcel, got, len(theirs.fds), err, test.want)
		}
	}
	if err := runcCheckName(strings.Repeat("n", 4096)); err == nil {
		t.Error("a name of 4096 bytes is taken, want it refused")
	}
}

func FuzzRuncReceive(f *testing.F) { fuzzReceive(f, runc, Want{}, "/dev/ptmx", "") }
