//go:build linux

package cmd

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
)

func FuzzPayloadValue(f *testing.F) {
	for _, text := range []string{"", "00", "0", "0g", "FF0a", `\x00`, `a\r\n`, `\`, " 00", strings.Repeat("0", 2*3776), strings.Repeat("0", 2*3777)} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, isHex := range []bool{true, false} {
			p := payloadText{hex: isHex}
			if p.Set(text) != nil {
				continue
			}
			if len(p.bytes) < 1 || len(p.bytes) > 3776 {
				t.Errorf("the value %q has %d bytes", text, len(p.bytes))
			}
			if isHex && hex.EncodeToString(p.bytes) != strings.ToLower(text) {
				t.Errorf("the digits %q are %x", text, p.bytes)
			}
			if !isHex && !strings.Contains(text, `\`) && string(p.bytes) != text {
				t.Errorf("the text %q is %q", text, p.bytes)
			}
		}
	})
}

func TestPayload(t *testing.T) {
	fdtest.NoLeaks(t)
	pipe, _ := fdtest.Pipe(t)
	stream, _ := fdtest.Pair(t, unix.SOCK_STREAM)
	datagram, _ := fdtest.Pair(t, unix.SOCK_DGRAM)
	_, connection := fdtest.TCPPair(t)
	udp, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(udp)
	listening, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(listening)
	t.Chdir(t.TempDir())
	if err := unix.Bind(listening, &unix.SockaddrUnix{Name: "s"}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(listening, 1); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		about   string
		payload payload
		first   int
		fds     []int
		want    string // of each variable its name if the value is not the same each time
	}{
		{"what the user says", payload{fixed: []byte("x")}, 0, []int{stream.FD, pipe.FD}, "x"},
		{"a pipe", payload{}, 0, []int{pipe.FD}, "FDKIT=1|"},
		{"datagrams are no connection", payload{}, 0, []int{datagram.FD}, "FDKIT=1|"},
		{"nor is UDP", payload{}, 0, []int{udp}, "FDKIT=1|"},
		{"TCP", payload{}, 0, []int{connection.FD}, "FDKIT=1|PROTO=TCP|TCPLOCALIP=127.0.0.1|TCPLOCALPORT|TCPREMOTEIP=127.0.0.1|TCPREMOTEPORT|REMOTE_ADDR=127.0.0.1|REMOTE_PORT|"},
		{"a Unix stream", payload{}, 0, []int{stream.FD}, "FDKIT=1|PROTO=UNIX|UNIXREMOTEEUID|UNIXREMOTEEGID|UNIXREMOTEPID|"},
		{"who listens is no peer", payload{}, 0, []int{listening}, "FDKIT=1|PROTO=UNIX|UNIXLOCALPATH=s|"},
		{"the first is described", payload{}, 0, []int{pipe.FD, stream.FD}, "FDKIT=1|FDNAMES=unknown:unknown|"},
		{"names", payload{names: []string{"a", "b", "c"}}, 0, []int{pipe.FD, pipe.FD, pipe.FD}, "FDKIT=1|FDNAMES=a:b:c|"},
		{"names, one message for each", payload{names: []string{"a", "b", "c"}}, 1, []int{pipe.FD}, "FDKIT=1|FDNAMES=b|"},
		{"the user's variables come first", payload{vars: []byte("PROTO=X\x00")}, 0, []int{listening}, "FDKIT=1|PROTO=X|PROTO=UNIX|UNIXLOCALPATH=s|"},
	} {
		got, err := test.payload.of(test.first, test.fds)
		var text strings.Builder
		for v := range bytes.SplitSeq(got, []byte{0}) {
			name, _, _ := bytes.Cut(v, []byte("="))
			switch {
			case len(v) == 0:
			case bytes.HasSuffix(name, []byte("PORT")), bytes.HasPrefix(name, []byte("UNIXREMOTE")):
				text.Write(append(name, '|'))
			case test.payload.fixed != nil:
				text.Write(v)
			default:
				text.Write(append(v, '|'))
			}
		}
		if err != nil || text.String() != test.want {
			t.Errorf("%s: the payload is %q, %v; want %q", test.about, text.String(), err, test.want)
		}
	}
	all := bytes.Repeat([]byte("A=1\x00"), 1000)
	if got, err := (payload{vars: all}).of(0, []int{pipe.FD}); err == nil || exitStatus(err) != exitUsage {
		t.Errorf("a payload of %d bytes of variables has %d bytes, %v; want wrong usage", len(all), len(got), err)
	}
}
