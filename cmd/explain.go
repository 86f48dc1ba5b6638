//go:build linux

package cmd

import (
	"bytes"
	"slices"
	"strings"

	"fdkit/internal/fdinfo"
	"fdkit/internal/scm"
)

// remark is what there is to say of things of some sort.
type remark[T any] struct {
	when func(T) bool
	say  string
}

// explain returns what there is to say, in their order.
func explain[T any](remarks []remark[T], of T) (lines []string) {
	for _, r := range remarks {
		if r.when(of) {
			lines = append(lines, r.say)
		}
	}
	return lines
}

// parcel is a message, and whether a stream has brought it.
type parcel struct {
	*arrival
	stream bool
}

func isPayload(payload string) func(parcel) bool {
	return func(p parcel) bool { return string(p.payload) == payload }
}

// aboutMessages is what a program that receives the message has to reckon with.
var aboutMessages = []remark[parcel]{
	{func(p parcel) bool { return p.lost != nil }, "descriptors: the kernel could not open all of them in this process, and a program that does not look for MSG_CTRUNC takes a part for all"},
	{func(p parcel) bool { return p.lost == nil && len(p.descriptors) == 0 && p.names == nil }, "no descriptor: it was sent without one, or a program on the way has passed on bytes only, as socat and cat do"},
	{func(p parcel) bool { return len(p.descriptors) > 1 }, "several descriptors: a program that has room for fewer gets the first ones and MSG_CTRUNC, and the kernel closes the others"},
	{func(p parcel) bool {
		return len(p.descriptors) > 0 && p.names != nil && len(p.names) != len(p.descriptors)
	}, "names: there are not as many as descriptors, so which is whose is not sure"},
	{func(p parcel) bool { return p.sender == nil }, "sender not known: it was sent before this command was there to ask (SO_PASSCRED)"},
	{func(p parcel) bool { return p.sender != nil && p.sender.PID == 0 }, "sender of another PID namespace: a container's, most likely; its numbers mean nothing here"},
	{func(p parcel) bool { return p.sender != nil && p.sender.PID != 0 && p.sender.Command == "" }, "sender: it has ended, so what it has sent is all that will come from it"},
}

// aboutPayloads is the same of the bytes in it. What other programs send is seen with recv
// itself in recv.txtar, or as fdkit-dialects(7) has it.
var aboutPayloads = []remark[parcel]{
	{func(p parcel) bool { return len(p.payload) == 0 }, "no bytes: recv(2) returns 0, which most programs take for the end of the connection"},
	{isPayload("\x00"), "one NUL byte: as nc -F sends it to ssh with ProxyUseFdpass, Ruby's send_io, Perl's IO::FDPass, and fdkit send to unix:"},
	{isPayload(" "), "one space: as util-linux's fdsend sends it"},
	{func(p parcel) bool {
		n := len(p.descriptors)
		return n > 0 && string(p.payload) == string([]byte{byte(n)})
	}, "one byte with the number of descriptors: as Python's multiprocessing sends it (multiprocessing.reduction)"},
	{func(p parcel) bool { return notifies(p.payload) }, "lines NAME=VALUE: as sd_notify(3) sends them to a service manager, which keeps descriptors that come with FDSTORE=1"},
	{func(p parcel) bool { return bytes.HasPrefix(p.payload, []byte("{")) }, "an object of JSON: as QEMU's QMP (getfd) and Node's child processes (NODE_HANDLE) send it; such a sender waits for an answer, and none goes from here"},
	{func(p parcel) bool { return hasVars(p.payload) }, "FDKIT=1: variables as fdkit's commands send them, fdkit-protocol(7); a program gets those that fdkit-environ(7) lists"},
	{func(p parcel) bool { return len(p.payload) > scm.MaxPayload || p.cut }, "more bytes than a message of fdkit's has (3776): its other commands take the first, and of packets and datagrams lose the rest"},
	{func(p parcel) bool { return p.stream && len(p.payload) > 1 }, "a stream: it has no boundaries, so this may be part of what was sent at once, or more than that"},
}

// notifies tells whether a payload has the form of sd_notify(3).
func notifies(payload []byte) bool {
	if !isText(payload) {
		return false
	}
	return !slices.ContainsFunc(strings.Split(strings.TrimSuffix(string(payload), "\n"), "\n"), func(line string) bool {
		name, _, ok := strings.Cut(line, "=")
		return !ok || !scm.ValidName(name) || strings.ToUpper(name) != name
	})
}

func ofKind(kinds ...fdinfo.Kind) func(fdinfo.Description) bool {
	return func(d fdinfo.Description) bool { return slices.Contains(kinds, d.Kind) }
}

func withFlag(name string) func(fdinfo.Description) bool {
	return func(d fdinfo.Description) bool { return slices.Contains(d.Flags, name) }
}

func isSocketThat(when func(*fdinfo.SocketInfo) bool) func(fdinfo.Description) bool {
	return func(d fdinfo.Description) bool { return d.Socket != nil && when(d.Socket) }
}

func isPipeThat(when func(*fdinfo.PipeInfo) bool) func(fdinfo.Description) bool {
	return func(d fdinfo.Description) bool { return d.Pipe != nil && when(d.Pipe) }
}

func isMemfdThat(when func(sealed func(seal string) bool) bool) func(fdinfo.Description) bool {
	return func(d fdinfo.Description) bool {
		return d.Memfd != nil && when(func(seal string) bool { return slices.Contains(d.Memfd.Seals, seal) })
	}
}

func positive(n *int64) bool { return n != nil && *n > 0 }

// aboutDescriptors is what a program that gets the descriptor has to reckon with.
var aboutDescriptors = []remark[fdinfo.Description]{
	// What it is.
	{ofKind(fdinfo.Directory), "a directory: openat(2) leads from it to its parents, even out of a chroot(2)"},
	{ofKind(fdinfo.TTY, fdinfo.PTY), "a terminal: it is shared with those who use it, and does not become the controlling terminal of who gets it"},
	{ofKind(fdinfo.PTYMaster), "the master side of a terminal: it reads what programs there print and writes what they read; when all copies are closed they get SIGHUP"},
	{ofKind(fdinfo.Memfd), "a memfd: memory in the form of a file, shared with the sender"},
	{ofKind(fdinfo.Epoll), "an epoll: it watches descriptors of the sender, by numbers that mean nothing in another process"},
	{ofKind(fdinfo.Eventfd, fdinfo.Timerfd, fdinfo.Inotify, fdinfo.Fanotify), "events: who reads one takes it away from all others who have a copy"},
	{ofKind(fdinfo.Signalfd), "a signalfd: who reads it gets the signals of its own process, not the sender's"},
	{ofKind(fdinfo.Pidfd), "a process: for waitid(2), pidfd_send_signal(2) and poll(2); read(2) fails on it with EINVAL"},
	{ofKind(fdinfo.Namespace), "a namespace: setns(2) enters it; it lives as long as the descriptor"},
	{func(d fdinfo.Description) bool { return d.Kind == fdinfo.CharDevice && d.Node == "1:3" }, "/dev/null: reads end at once and writes vanish; a shell puts it in the place of stdin with &, and many programs in that of a descriptor that was closed"},
	// How it is open.
	{func(d fdinfo.Description) bool { return d.Access == "path" }, "O_PATH: it only says where a file is: read(2), write(2) and ioctl(2) fail with EBADF; /proc/self/fd/N opens the file itself"},
	{func(d fdinfo.Description) bool { return d.Access == "w" }, "write only: read(2) fails with EBADF"},
	{func(d fdinfo.Description) bool { return d.Access == "r" && d.Kind != fdinfo.Directory }, "read only: write(2) fails with EBADF"},
	{withFlag("nonblock"), "O_NONBLOCK is set: cat, sed, bash and all who expect to wait fail with EAGAIN; it is shared, so who clears it does so for the sender too"},
	{withFlag("append"), "O_APPEND is set: whatever the offset is, writes go to the end"},
	{withFlag("direct"), "O_DIRECT is set: of a file, reads and writes that are not aligned fail with EINVAL; of a pipe, writes stay apart"},
	{func(d fdinfo.Description) bool { return d.Offset != nil && d.Kind != fdinfo.Directory }, "the offset is shared: reading and writing here moves it for the sender, and the sender's for whoever gets this"},
	{func(d fdinfo.Description) bool {
		return d.Access != "w" && positive(d.Size) && d.Offset != nil && *d.Offset >= *d.Size
	}, "the offset is at the end: the next read returns nothing, unless it is moved back (lseek, rewind)"},
	{func(d fdinfo.Description) bool { return d.Deleted && d.Memfd == nil && d.Kind != fdinfo.Secretmem }, "its path is gone: it cannot be opened again but by /proc, and its space is free when the last copy is closed"},
	{func(d fdinfo.Description) bool { return len(d.Locks) > 0 }, "locks: those of flock(2) come along with the descriptor, those of fcntl(2) F_SETLK stay with the process"},
	{isMemfdThat(func(sealed func(string) bool) bool { return sealed("write") }), "sealed against writing: write(2) fails with EPERM, and so does mmap(2) shared and writable"},
	{isMemfdThat(func(sealed func(string) bool) bool { return !sealed("write") && !sealed("future-write") }), "not sealed against writing: the sender can change it while it is read"},
	{isMemfdThat(func(sealed func(string) bool) bool { return !sealed("shrink") }), "not sealed against shrinking: the sender can shorten it, which kills with SIGBUS who has mapped it"},
	// Pipes.
	{isPipeThat(func(p *fdinfo.PipeInfo) bool { return p.Alone && p.End == "read" }), "nobody can write any more: reads return what is left, then 0"},
	{isPipeThat(func(p *fdinfo.PipeInfo) bool { return p.Alone && p.End == "write" }), "nobody can read any more: writes end the program with SIGPIPE, or fail with EPIPE"},
	{isPipeThat(func(p *fdinfo.PipeInfo) bool { return !p.Alone && p.End == "write" }), "the reader sees the end only when all copies are closed, the sender's as well"},
	{isPipeThat(func(p *fdinfo.PipeInfo) bool { return p.End == "both" }), "both ends at once: its own write end keeps reads from ever seeing the end"},
	// Sockets.
	{isSocketThat(func(s *fdinfo.SocketInfo) bool { return s.Listening }), "a listening socket, no connection: accept(2) takes connections from it, read(2) and write(2) fail; all who have a copy share its clients"},
	{isSocketThat(func(s *fdinfo.SocketInfo) bool {
		return !s.Listening && !s.Connected && s.Type != "dgram" && s.Ended == "" && s.Family != "netlink"
	}), "not connected: read(2) and write(2) fail until connect(2)"},
	{isSocketThat(func(s *fdinfo.SocketInfo) bool { return !s.Connected && s.Type == "dgram" }), "datagrams of no certain peer: sendto(2) names one, write(2) fails; a read with too small a buffer loses the rest"},
	{isSocketThat(func(s *fdinfo.SocketInfo) bool { return s.Type == "seqpacket" || s.Type == "dgram" && s.Connected }), "packets: a read with too small a buffer loses the rest of one"},
	{isSocketThat(func(s *fdinfo.SocketInfo) bool { return s.Ended == "receiving" }), "nothing more comes: reads return what is left, then 0; it can still be written to"},
	{isSocketThat(func(s *fdinfo.SocketInfo) bool { return s.Ended == "both" }), "the other side has closed it: reads return what is left, then 0, and writes end the program with SIGPIPE, or fail with EPIPE"},
	{isSocketThat(func(s *fdinfo.SocketInfo) bool { return s.Failed }), "an error waits in it, for which the next call fails"},
	{isSocketThat(func(s *fdinfo.SocketInfo) bool { return positive(s.Backlog) }), "clients wait in its backlog: they are not served until somebody accepts them"},
	{isSocketThat(func(s *fdinfo.SocketInfo) bool { return positive(s.Descriptors) }), "descriptors wait in it: recvmsg(2) takes them, and read(2) closes them without a word"},
	{isSocketThat(func(s *fdinfo.SocketInfo) bool { return s.PeerProcess != nil }), "its peer is who connected or made it (SO_PEERCRED): that does not change when it is passed on"},
	{func(d fdinfo.Description) bool {
		return d.Socket != nil && positive(d.Socket.Unread) || d.Pipe != nil && positive(d.Pipe.Unread) && d.Pipe.End != "write"
	}, "bytes wait in it: they are the next to be read, and what came before them others may have read"},
	{func(d fdinfo.Description) bool { return d.Partial != "" }, "more could not be found out of it"},
}
