//go:build linux

package fdsend_test

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/fdsend"
	"fdkit/internal/fdtest"
)

// What a dialect cannot have is an error, and nothing of it is sent.
func TestSpeakRefuses(t *testing.T) {
	fdtest.NoLeaks(t)
	for _, test := range []struct {
		dialect string
		parcel  fdsend.Parcel
		want    string
	}{
		{"openssh", fdsend.Parcel{FDs: []int{2}, Payload: []byte("x")}, "a payload of its own"},
		{"raw", fdsend.Parcel{FDs: []int{2}, Payload: []byte{}}, "at least one byte"},
		{"raw", fdsend.Parcel{FDs: []int{2}, Names: []string{"a"}}, "no names"},
		{"runc", fdsend.Parcel{FDs: []int{2}, Names: []string{}}, "0 names for 1 descriptor"},
		{"s6-fdholder", fdsend.Parcel{FDs: []int{2, 2}, Names: []string{"a"}}, "1 name for 2 descriptors"},
		{"s6-fdholder", fdsend.Parcel{FDs: []int{2}, Names: []string{strings.Repeat("n", 256)}}, "is no name"},
		{"sd-notify", fdsend.Parcel{FDs: []int{2}, Names: []string{"a\nREADY=1"}}, "is no name"},
		{"sd-notify", fdsend.Parcel{FDs: []int{2}, Names: []string{""}}, "is no name"},
	} {
		ours, theirs := fdtest.Pair(t, unix.SOCK_STREAM)
		q, err := fdsend.Open(fmt.Sprintf("fd:%d", ours.Take()), fdsend.Options{})
		if err != nil {
			t.Fatal(err)
		}
		send, err := q.Speak(test.dialect)
		if err != nil {
			t.Fatal(err)
		}
		if err := send(test.parcel); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: sending %+v = %v; want an error with %q", test.dialect, test.parcel, err, test.want)
		}
		if n, err := unix.IoctlGetInt(theirs.FD, unix.SIOCINQ); n != 0 || err != nil {
			t.Errorf("%s: of %+v %d bytes were sent, %v; want none", test.dialect, test.parcel, n, err)
		}
		_, _ = q.Close()
	}
}
