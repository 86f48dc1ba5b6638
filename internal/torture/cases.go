//go:build linux

package torture

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/scm"
)

// Case is one thing that is done to a peer.
type Case struct {
	Name  string
	About string // in a line
	Rule  string // that a fault breaks, where it is not that of the verdict

	needs trait
	do    func(*trial)
}

const (
	ctrunc  = "recvmsg(2), MSG_CTRUNC: some control data was discarded for lack of space; unix(7): what did fit has been received, and must be closed."
	framing = "unix(7): a stream has no message boundaries, and the descriptors come with the first byte that they were sent with: read on, and keep them until the message is whole."
	kinds   = "unix(7): a descriptor of any kind can be passed; fstat(2), getsockopt(2) and F_GETFL of fcntl(2) tell what came."
	anytime = "unix(7): a peer may close at any time; what it sent before is still received, and then recvmsg(2) returns 0."
	turns   = "recvmsg(2) waits for as long as the peer likes: poll(2) with a time limit, or a process for each."
)

// receiverCases are for peers that receive. The first one is the base case.
var receiverCases = []Case{
	{Name: "one", About: "one NUL byte with one descriptor: the base case", do: func(t *trial) {
		t.send(t.connect(), []byte{0}, t.socket())
	}},

	// What comes with the descriptor.
	{
		Name: "empty", About: "a message of no bytes, and one of no bytes with a descriptor", needs: packets,
		Rule: "recv(2): a datagram of zero bytes is permitted and returns 0, as the end does; SO_PEEK_OFF aside, poll(2) with POLLRDHUP tells them apart.", do: func(t *trial) {
			c := t.connect()
			t.send(c, nil)
			t.send(c, nil, t.socket())
		},
	},
	{Name: "no-descriptor", About: "a byte without a descriptor", Rule: "recvmsg(2): msg_controllen is 0 when nothing came.", do: func(t *trial) {
		t.send(t.connect(), []byte{0})
	}},
	{Name: "large", About: "64 KiB with one descriptor", needs: boundless, Rule: "recvmsg(2), MSG_TRUNC: of a message longer than the buffer the rest is discarded; a stream has the rest for the next call.", do: func(t *trial) {
		t.send(t.connect(), t.noise(64<<10), t.socket())
	}},
	{Name: "random", About: "random bytes with one descriptor", do: func(t *trial) {
		t.send(t.connect(), t.noise(1+t.IntN(3000)), t.socket())
	}},
	{Name: "unterminated", About: "variables of which the last has no end", do: func(t *trial) {
		t.send(t.connect(), []byte(scm.Begin+"PROTO=TCP\x00TCPREMOTEIP="+strings.Repeat("1", 1+t.IntN(500))), t.socket())
	}},
	{Name: "invalid-text", About: "text that is no UTF-8, and commands a terminal", do: func(t *trial) {
		text := []byte(scm.Begin + "FDNAMES=\xff\xfe\xc0\x80\x1b]0;title\x07\x1b[2J\r\n\xed\xa0\x80\x00")
		t.send(t.connect(), append(text, t.noise(t.IntN(64))...), t.socket())
	}},
	{Name: "hostile-variables", About: "variables that no program must get: LD_PRELOAD, PATH, IFS, BASH_ENV", do: func(t *trial) {
		payload := []byte(scm.Begin)
		lines := []string{
			"LD_PRELOAD=/nonexistent/torture.so", "PATH=/nonexistent", "IFS=/", "BASH_ENV=/nonexistent", "ENV=/nonexistent", "LD_LIBRARY_PATH=/nonexistent",
			"=nameless", "TCPREMOTEIP", "FDKIT=2", "TCPREMOTEIP=1.2.3.4\nPATH=/nonexistent", "BASH_FUNC_x%%=() { :;}",
		}
		t.Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
		for _, line := range lines {
			payload = append(append(payload, line...), 0)
		}
		t.send(t.connect(), payload, t.socket())
	}},
	{Name: "overlong", About: "3776 bytes of variables, with names and values that are very long", do: func(t *trial) {
		name := 1 + t.IntN(3000)
		payload := []byte(scm.Begin + strings.Repeat("N", name) + "=")
		payload = append(payload, strings.Repeat("v", scm.MaxPayload-1-len(payload))...)
		t.send(t.connect(), append(payload, 0), t.socket())
	}},
	{Name: "credentials", About: "credentials (SCM_CREDENTIALS) and no descriptor", Rule: "unix(7): several kinds of control messages may come; cmsg_level and cmsg_type tell which.", do: func(t *trial) {
		c := t.connect()
		t.credentials(c)
	}},

	// How many come.
	{Name: "two", About: "two descriptors in a message", Rule: "unix(7), SCM_RIGHTS: the data is an array; cmsg(3): room for one, with its padding, is room for two. All that came must be closed.", do: func(t *trial) {
		t.send(t.connect(), []byte{0}, t.sockets(2)...)
	}},
	{Name: "many", About: "253 descriptors in a message", Rule: ctrunc, do: func(t *trial) {
		t.send(t.connect(), []byte{0}, t.sockets(scm.MaxFDs)...)
	}},
	{Name: "spread", About: "descriptors in each of three messages", do: func(t *trial) {
		c := t.connect()
		for range 3 {
			t.send(c, []byte{0}, t.sockets(1+t.IntN(3))...)
		}
	}},
	{Name: "few-files", About: "253 descriptors for a program that may have 24 open", needs: started, Rule: ctrunc, do: func(t *trial) {
		c := t.connect()
		if c.process == nil {
			return
		}
		few := unix.Rlimit{Cur: 24, Max: 24}
		_ = unix.Prlimit(c.process.pid, unix.RLIMIT_NOFILE, &few, nil)
		t.send(c, []byte{0}, t.sockets(scm.MaxFDs)...)
	}},

	// How the bytes of a stream come.
	{Name: "coalesced", About: "two messages before the first is read", needs: stream, Rule: "unix(7): recvmsg(2) does not read across a message with other descriptors, but two without any become one.", do: func(t *trial) {
		c := t.connect()
		t.send(c, t.text(), t.socket())
		t.send(c, t.text(), t.socket())
	}},
	{Name: "split-first", About: "a message byte by byte, the descriptor with the first", needs: stream, Rule: framing, do: func(t *trial) { t.split(func(n int) int { return 0 }, 0) }},
	{Name: "split-middle", About: "a message byte by byte, the descriptor with one in the middle", needs: stream, Rule: framing, do: func(t *trial) { t.split(func(n int) int { return 1 + t.IntN(n-2) }, 0) }},
	{Name: "split-last", About: "a message byte by byte, the descriptor with the last", needs: stream, Rule: framing, do: func(t *trial) { t.split(func(n int) int { return n - 1 }, 0) }},
	{Name: "urgent", About: "a byte out of band (MSG_OOB) behind the message", needs: stream, Rule: "unix(7), MSG_OOB: a stream may have a byte out of band, since Linux 5.15; what comes before and after it is read as ever.", do: func(t *trial) {
		c := t.connect()
		t.send(c, []byte{0}, t.socket())
		t.sendFlags(c, unix.MSG_OOB, []byte("!"))
		if strings.Contains(t.refused, "not supported") {
			t.lacks = "this kernel has no MSG_OOB for Unix sockets"
		}
	}},
	{Name: "slow-writer", About: "a message byte by byte, each after a while; others come meanwhile", needs: stream, Rule: turns, do: func(t *trial) {
		t.split(func(int) int { return 0 }, 30*time.Millisecond)
	}},

	// What is passed.
	{Name: "nonblocking", About: "a socket with O_NONBLOCK set", Rule: "fcntl(2), F_SETFL: the flag belongs to the open file description, which sender and receiver share; read(2) then fails with EAGAIN.", do: func(t *trial) {
		t.give(t.socket(), func(fd int) error { return unix.SetNonblock(fd, true) })
	}},
	{Name: "write-only", About: "the end of a pipe that can only be written", Rule: kinds, do: func(t *trial) { t.give(t.pipe(true).near, nil) }},
	{Name: "silent-pipe", About: "the end of a pipe to which nobody writes; others come meanwhile", Rule: turns, do: func(t *trial) {
		p := t.pipe(false)
		p.held = true
		t.give(p.near, nil)
		t.others("while it has a pipe that nobody writes to")
		p.held = false
	}},
	{Name: "closed-peer", About: "a socket whose other end is closed", Rule: kinds, do: func(t *trial) {
		fd := t.socket()
		for _, p := range t.passed {
			p.closeFar()
		}
		t.give(fd, nil)
	}},
	{Name: "path-only", About: "a descriptor that is only a path (O_PATH)", Rule: "open(2), O_PATH: read(2), write(2), fchmod(2) and more fail with EBADF; close(2) does not.", do: func(t *trial) { t.open("/dev/full", unix.O_PATH) }},
	{Name: "directory", About: "a directory", Rule: kinds, do: func(t *trial) { t.open("/proc/self/task", unix.O_RDONLY|unix.O_DIRECTORY) }},
	{Name: "full-device", About: "/dev/full, which is always full", Rule: kinds, do: func(t *trial) { t.open("/dev/full", unix.O_RDWR) }},
	{Name: "memfd", About: "a file in memory that is empty and sealed", Rule: kinds, do: func(t *trial) {
		fd, err := unix.MemfdCreate("torture", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
		if err == nil {
			_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
		}
		t.give(t.pass(fd, -1, os.NewSyscallError("memfd_create", err)).near, nil)
	}},
	{Name: "pidfd", About: "a pidfd", Rule: kinds, do: func(t *trial) {
		fd, err := unix.PidfdOpen(os.Getpid(), 0)
		t.give(t.pass(fd, -1, os.NewSyscallError("pidfd_open", err)).near, nil)
	}},
	{Name: "epoll", About: "an epoll instance", Rule: kinds, do: func(t *trial) {
		fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
		t.give(t.pass(fd, -1, os.NewSyscallError("epoll_create1", err)).near, nil)
	}},
	{Name: "listening", About: "a listening socket", Rule: kinds, do: func(t *trial) { t.listening() }},
	{Name: "reset", About: "a TCP connection that is reset (SO_LINGER)", Rule: "tcp(7): reading from it fails with ECONNRESET.", do: func(t *trial) { t.reset() }},
	{Name: "contains-itself", About: "a Unix socket whose queue holds itself", Rule: "unix(7): closing it is all there is to do; the kernel finds such cycles.", do: func(t *trial) { t.cycle() }},

	// What becomes of the connection.
	{Name: "early-close", About: "a connection that is closed before anything is sent", needs: ends, Rule: anytime, do: func(t *trial) { t.connect().close() }},
	{Name: "close-in-message", About: "half a message with its descriptor, and then the end", needs: stream | ends, Rule: anytime, do: func(t *trial) {
		c := t.connect()
		text := t.text()
		t.send(c, text[:len(text)/2], t.socket())
		c.close()
	}},
	{Name: "close-after", About: "a connection that is closed right after the message", needs: ends, Rule: anytime, do: func(t *trial) {
		c := t.connect()
		t.send(c, []byte{0}, t.socket())
		c.close()
	}},
	{Name: "half-close", About: "the end of what is sent right after the message", needs: ends, Rule: anytime, do: func(t *trial) {
		c := t.connect()
		t.send(c, []byte{0}, t.socket())
		c.halfClose()
	}},
	{Name: "never-reads", About: "64 messages, and no answer is read", needs: ends, Rule: "send(2): when the message does not fit into the buffer of the socket it waits, unless MSG_DONTWAIT is given.", do: func(t *trial) {
		c := t.connect()
		c.deaf = true
		for range 64 {
			if !t.send(c, []byte{0}, t.socket()) {
				break
			}
			t.drop()
		}
	}},
	{Name: "crowd", About: "100 connections at once, each with a descriptor", needs: ends | server, Rule: "listen(2), accept(2): they come in the order in which they connected.", do: func(t *trial) {
		for range 100 {
			t.connect()
		}
		for _, c := range t.conns {
			t.send(c, []byte{0}, t.socket())
			t.drop()
		}
	}},
	{Name: "storm", About: "200 connections that are closed at once, some with a descriptor in them", needs: ends | server, Rule: anytime, do: func(t *trial) {
		for range 200 {
			if t.err != nil {
				return
			}
			c, err := t.join(t.options.Wait)
			if err != nil {
				t.err = err
				return
			}
			if t.IntN(2) == 0 {
				t.send(c, []byte{0}, t.socket())
				t.drop()
				t.passed[len(t.passed)-1].closeFar()
			}
			c.close()
			if c.process != nil {
				c.process.end()
			}
		}
		t.send(t.connect(), []byte{0}, t.socket())
	}},
}

// noise is n random bytes.
func (t *trial) noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(t.Uint32())
	}
	return b
}

// text is a short message that can be printed.
func (t *trial) text() []byte { return fmt.Appendf(nil, "message %d\n", t.Uint32()) }

// give sends a descriptor that has been prepared as the message of the base case.
func (t *trial) give(fd int, prepare func(fd int) error) {
	if t.err == nil && prepare != nil {
		t.err = prepare(fd)
	}
	t.send(t.connect(), []byte{0}, fd)
	t.drop()
}

// split sends a message byte by byte, with a descriptor at one of them.
func (t *trial) split(at func(n int) int, pause time.Duration) {
	c := t.connect()
	text := t.text()
	with, read := at(len(text)), true
	for i := range text {
		var fds []int
		if i == with {
			fds = []int{t.socket()}
		}
		t.send(c, text[i:i+1], fds...)
		t.drop()
		switch {
		case pause > 0:
			t.rest(pause/2 + time.Duration(t.Int64N(int64(pause))))
			if i == len(text)/2 {
				t.others("while a message comes byte by byte")
			}
		case read:
			read = t.taken() // else the kernel may join them
		}
	}
}
