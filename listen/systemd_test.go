//go:build linux

package listen

import (
	"slices"
	"testing"
)

func TestSockets(t *testing.T) {
	t.Setenv("LISTEN_PID", "1")
	t.Setenv("LISTEN_FDS", "1")
	for _, test := range []struct {
		address Address
		want    []Socket
		err     bool
	}{
		{Address{Port: 80}, nil, false},
		{Address{Kind: Unix, Path: "/a"}, nil, false},
		{Address{Kind: Inherited, FD: 7}, []Socket{{FD: 7}}, false},
		{Address{Kind: Systemd}, nil, true}, // they are for process 1
		{Address{Kind: Systemd, Name: "web"}, nil, true},
	} {
		got, err := test.address.Sockets()
		if !slices.Equal(got, test.want) || (err != nil) != test.err {
			t.Errorf("%v.Sockets() = %v, %v; want %v, an error: %t", test.address, got, err, test.want, test.err)
		}
	}
}
