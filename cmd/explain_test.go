//go:build linux

package cmd

import (
	"slices"
	"strings"
	"testing"

	"fdkit/fdrecv"
	"fdkit/internal/fdinfo"
)

// begins returns of each line what stands before the first colon.
func begins(lines []string) (words []string) {
	for _, line := range lines {
		word, _, _ := strings.Cut(line, ":")
		words = append(words, word)
	}
	return words
}

func TestExplainMessages(t *testing.T) {
	one, two := make([]fdinfo.Description, 1), make([]fdinfo.Description, 2)
	known := &identity{PID: 1, Command: "init"}
	seen := map[string]bool{}
	for _, test := range []struct {
		p    parcel
		want []string
	}{
		{parcel{&arrival{payload: []byte("x"), descriptors: one, sender: known}, false}, nil},
		{parcel{&arrival{payload: []byte("\x00"), descriptors: one, sender: known}, true}, []string{"one NUL byte"}},
		{parcel{&arrival{payload: []byte(" "), descriptors: one, sender: known}, true}, []string{"one space"}},
		{parcel{&arrival{payload: []byte("\x02"), descriptors: two, sender: known}, true}, []string{"several descriptors", "one byte with the number of descriptors"}},
		{parcel{&arrival{payload: []byte("\x01"), descriptors: two, sender: known}, false}, []string{"several descriptors"}},
		{parcel{&arrival{sender: known}, false}, []string{"no descriptor", "no bytes"}},
		{parcel{&arrival{payload: []byte("x"), lost: &fdrecv.LostError{}, sender: known}, false}, []string{"descriptors"}},
		{parcel{&arrival{payload: []byte("READY=1\nMAINPID=3"), descriptors: one, sender: known}, false}, []string{"lines NAME=VALUE"}},
		{parcel{&arrival{payload: []byte("READY=1\nmore"), descriptors: one, sender: known}, true}, []string{"a stream"}},
		{parcel{&arrival{payload: []byte(`{"execute":"getfd"}`), descriptors: one, sender: known}, false}, []string{"an object of JSON"}},
		{parcel{&arrival{payload: []byte("FDKIT=1\x00"), descriptors: one, names: []string{"a", "b"}, sender: known}, false}, []string{"names", "FDKIT=1"}},
		{parcel{&arrival{payload: make([]byte, 3777), descriptors: one, sender: known}, false}, []string{"more bytes than a message of fdkit's has (3776)"}},
		{parcel{&arrival{payload: []byte("x"), descriptors: one}, false}, []string{"sender not known"}},
		{parcel{&arrival{payload: []byte("x"), descriptors: one, sender: &identity{}}, false}, []string{"sender of another PID namespace"}},
		{parcel{&arrival{payload: []byte("x"), descriptors: one, sender: &identity{PID: 9}}, false}, []string{"sender"}},
	} {
		lines := append(explain(aboutMessages, test.p), explain(aboutPayloads, test.p)...)
		if got := begins(lines); !slices.Equal(got, test.want) {
			t.Errorf("of %q with %d descriptors it says %q; want %q", test.p.payload, len(test.p.descriptors), got, test.want)
		}
		for _, line := range lines {
			seen[line] = true
		}
	}
	unseen(t, aboutMessages, seen)
	unseen(t, aboutPayloads, seen)
}

// unseen fails the test if there is a remark that nothing has shown.
func unseen[T any](t *testing.T, remarks []remark[T], seen map[string]bool) {
	t.Helper()
	for _, r := range remarks {
		if !seen[r.say] {
			t.Errorf("no test has shown the remark %q", r.say)
		}
	}
}

func TestExplainDescriptors(t *testing.T) {
	n := func(n int64) *int64 { return &n }
	connected := func(s fdinfo.SocketInfo) fdinfo.Description {
		s.Connected = true
		return fdinfo.Description{Kind: fdinfo.Socket, Access: "rw", Socket: &s}
	}
	pipe := func(access string, p fdinfo.PipeInfo) fdinfo.Description {
		return fdinfo.Description{Kind: fdinfo.Pipe, Access: access, Pipe: &p}
	}
	memfd := func(seals ...string) fdinfo.Description {
		return fdinfo.Description{Kind: fdinfo.Memfd, Access: "rw", Deleted: true, Memfd: &fdinfo.MemfdInfo{Seals: seals}}
	}
	seen := map[string]bool{}
	for _, test := range []struct {
		d    fdinfo.Description
		want []string
	}{
		{fdinfo.Description{Kind: fdinfo.Directory, Access: "r", Offset: n(0)}, []string{"a directory"}},
		{fdinfo.Description{Kind: fdinfo.PTY, Access: "rw"}, []string{"a terminal"}},
		{fdinfo.Description{Kind: fdinfo.PTYMaster, Access: "rw"}, []string{"the master side of a terminal"}},
		{fdinfo.Description{Kind: fdinfo.Epoll, Access: "rw"}, []string{"an epoll"}},
		{fdinfo.Description{Kind: fdinfo.Eventfd, Access: "rw"}, []string{"events"}},
		{fdinfo.Description{Kind: fdinfo.Signalfd, Access: "rw"}, []string{"a signalfd"}},
		{fdinfo.Description{Kind: fdinfo.Pidfd, Access: "rw"}, []string{"a process"}},
		{fdinfo.Description{Kind: fdinfo.Namespace, Access: "r"}, []string{"a namespace", "read only"}},
		{fdinfo.Description{Kind: fdinfo.CharDevice, Access: "rw", Node: "1:3"}, []string{"/dev/null"}},
		{fdinfo.Description{Kind: fdinfo.File, Access: "path", Size: n(1)}, []string{"O_PATH"}},
		{fdinfo.Description{Kind: fdinfo.File, Access: "w", Offset: n(0), Size: n(0), Flags: []string{"append", "direct"}}, []string{"write only", "O_APPEND is set", "O_DIRECT is set", "the offset is shared"}},
		{fdinfo.Description{Kind: fdinfo.File, Access: "rw", Offset: n(5), Size: n(5), Deleted: true, Locks: []string{"FLOCK"}}, []string{"the offset is shared", "the offset is at the end", "its path is gone", "locks"}},
		{memfd("seal"), []string{"a memfd", "not sealed against writing", "not sealed against shrinking"}},
		{memfd("shrink", "write"), []string{"a memfd", "sealed against writing"}},
		{pipe("r", fdinfo.PipeInfo{End: "read", Alone: true, Unread: n(1)}), []string{"read only", "nobody can write any more", "bytes wait in it"}},
		{pipe("w", fdinfo.PipeInfo{End: "write", Alone: true}), []string{"write only", "nobody can read any more"}},
		{pipe("w", fdinfo.PipeInfo{End: "write", Unread: n(1)}), []string{"write only", "the reader sees the end only when all copies are closed, the sender's as well"}},
		{pipe("rw", fdinfo.PipeInfo{End: "both"}), []string{"both ends at once"}},
		{fdinfo.Description{Kind: fdinfo.Socket, Socket: &fdinfo.SocketInfo{Type: "stream", Listening: true, Backlog: n(2)}}, []string{"a listening socket, no connection", "clients wait in its backlog"}},
		{fdinfo.Description{Kind: fdinfo.Socket, Socket: &fdinfo.SocketInfo{Type: "stream"}}, []string{"not connected"}},
		{fdinfo.Description{Kind: fdinfo.Socket, Socket: &fdinfo.SocketInfo{Type: "dgram"}}, []string{"datagrams of no certain peer"}},
		{connected(fdinfo.SocketInfo{Type: "dgram"}), []string{"packets"}},
		{connected(fdinfo.SocketInfo{Type: "stream"}), nil},
		{connected(fdinfo.SocketInfo{Type: "seqpacket", Ended: "receiving", Descriptors: n(1)}), []string{"packets", "nothing more comes", "descriptors wait in it"}},
		{connected(fdinfo.SocketInfo{Type: "stream", Ended: "both", Failed: true, Unread: n(1)}), []string{"the other side has closed it", "an error waits in it, for which the next call fails", "bytes wait in it"}},
		{connected(fdinfo.SocketInfo{Type: "stream", PeerProcess: &fdinfo.PeerProcess{}}), []string{"its peer is who connected or made it (SO_PEERCRED)"}},
		{fdinfo.Description{Kind: fdinfo.TTY, Access: "rw", Flags: []string{"nonblock"}, Partial: "why"}, []string{"a terminal", "O_NONBLOCK is set", "more could not be found out of it"}},
	} {
		lines := explain(aboutDescriptors, test.d)
		if got := begins(lines); !slices.Equal(got, test.want) {
			t.Errorf("of %s it says %q; want %q", test.d.Line(), got, test.want)
		}
		for _, line := range lines {
			seen[line] = true
		}
	}
	unseen(t, aboutDescriptors, seen)
}
