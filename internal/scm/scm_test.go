//go:build linux

package scm_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
	"fdkit/internal/interrupt"
	"fdkit/internal/scm"
)

func TestMain(m *testing.M) {
	fdtest.Main(m, map[string]func([]string) error{"flood": flood})
}

// queue is a pair of sockets with a Sender at one end and a Receiver at the other.
type queue struct {
	send, receive *fdtest.End
	calls         interrupt.Calls
	sender        *scm.Sender
	receiver      *scm.Receiver
	message       scm.Message
}

func newQueue(t testing.TB, typ int) *queue {
	t.Helper()
	fdtest.NoLeaks(t)
	q := &queue{}
	q.send, q.receive = fdtest.Pair(t, typ)
	q.sender = scm.NewSender(q.send.FD, &q.calls)
	q.receiver = scm.NewReceiver(q.receive.FD, &q.calls)
	t.Cleanup(q.calls.Stop)
	return q
}

// mustSend sends copies of the descriptor fd, n of them.
func (q *queue) mustSend(t *testing.T, payload string, fd, n int) {
	t.Helper()
	fds := make([]int, n)
	for i := range fds {
		fds[i] = fd
	}
	if err := q.sender.Send([]byte(payload), fds...); err != nil {
		t.Fatalf("Send(%d bytes, %d descriptors) = %v, want nil", len(payload), n, err)
	}
}

// mustReceive receives a message and compares it.
func (q *queue) mustReceive(t *testing.T, payload string, fd, n int) {
	t.Helper()
	if err := q.receiver.Receive(&q.message); err != nil {
		t.Fatalf("Receive() = %v, want a message with %d descriptors", err, n)
	}
	defer q.message.Close()
	q.check(t, payload, fd, n)
}

func (q *queue) check(t *testing.T, payload string, fd, n int) {
	t.Helper()
	if got := string(q.message.Payload); got != payload {
		t.Errorf("Receive() has payload %.80q (%d bytes), want %.80q (%d bytes)", got, len(got), payload, len(payload))
	}
	if len(q.message.FDs) != n {
		t.Fatalf("Receive() has %d descriptors, want %d", len(q.message.FDs), n)
	}
	for i, got := range q.message.FDs {
		if !fdtest.SameFile(got, fd) {
			t.Errorf("descriptor %d of the message is not the file that was sent", i)
		}
		if flags, err := unix.FcntlInt(uintptr(got), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("descriptor %d of the message has flags %#x (%v), want close-on-exec", i, flags, err)
		}
	}
}

func TestSendAndReceive(t *testing.T) {
	long := scm.Begin + strings.Repeat("x", scm.MaxPayload-len(scm.Begin))
	types := map[string]int{"seqpacket": unix.SOCK_SEQPACKET, "dgram": unix.SOCK_DGRAM, "stream": unix.SOCK_STREAM}
	for name, typ := range types {
		for _, test := range []struct {
			payload string
			fds     int
		}{
			{"x", 0},
			{"x", 1},
			{"x", 2},
			{"x", scm.MaxFDs},
			{scm.Begin + "PROTO=TCP\x00", 1},
			{long, 1},
			{long, scm.MaxFDs},
		} {
			t.Run(fmt.Sprintf("%s/%d bytes, %d descriptors", name, len(test.payload), test.fds), func(t *testing.T) {
				q := newQueue(t, typ)
				for range 3 { // buffers are used again
					q.mustSend(t, test.payload, q.send.FD, test.fds)
					q.mustReceive(t, test.payload, q.send.FD, test.fds)
				}
			})
		}
	}
}

func TestSendRefuses(t *testing.T) {
	q := newQueue(t, unix.SOCK_SEQPACKET)
	for _, test := range []struct {
		bytes, fds int
		want       string
	}{
		{0, 1, "1 to 3776 bytes, not 0"},
		{scm.MaxPayload + 1, 1, "1 to 3776 bytes, not 3777"},
		{1, scm.MaxFDs + 1, "at most 253 descriptors, not 254"},
	} {
		err := q.sender.Send(make([]byte, test.bytes), make([]int, test.fds)...)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("Send(%d bytes, %d descriptors) = %v, want an error that says %q", test.bytes, test.fds, err, test.want)
		}
	}
	if came, err := q.receiver.ReceiveNow(&q.message); came || err != nil {
		t.Errorf("ReceiveNow() = %v, %v after refused messages; want false, nil", came, err)
	}
}

func TestSendBadDescriptor(t *testing.T) {
	q := newQueue(t, unix.SOCK_SEQPACKET)
	if err := q.sender.Send([]byte("x"), 1<<20); !errors.Is(err, unix.EBADF) {
		t.Errorf("Send of a descriptor that is not open = %v, want EBADF", err)
	}
	q.mustSend(t, "x", q.send.FD, 1)
	q.mustReceive(t, "x", q.send.FD, 1)
}

// A receiver in any language, with a buffer of one byte, gets its descriptor.
func TestNaiveReceiver(t *testing.T) {
	q := newQueue(t, unix.SOCK_SEQPACKET)
	q.mustSend(t, scm.Begin+"PROTO=TCP\x00", q.send.FD, 1)
	var payload [1]byte
	control := make([]byte, unix.CmsgSpace(4))
	n, oobn, flags, _, err := unix.Recvmsg(q.receive.FD, payload[:], control, 0)
	if err != nil || n != 1 || flags&unix.MSG_CTRUNC != 0 {
		t.Fatalf("recvmsg with a buffer of 1 byte = %d bytes, flags %#x, %v; want 1 byte and no MSG_CTRUNC", n, flags, err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:oobn])
	if err != nil || len(messages) != 1 {
		t.Fatalf("it came with control messages %v, %v; want 1", messages, err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatalf("it came with descriptors %v, %v; want 1", fds, err)
	}
	if !fdtest.SameFile(fds[0], q.send.FD) {
		t.Error("the descriptor is not the file that was sent")
	}
	_ = unix.Close(fds[0])
}

// naive sends a message as a program does that knows nothing of fdkit.
func naive(t *testing.T, socket int, payload string, fds ...int) {
	t.Helper()
	// Not unix.Sendmsg, which adds a byte to an empty payload.
	var header unix.Msghdr
	bytes := []byte(payload + "\x00")
	iov := unix.Iovec{Base: &bytes[0]}
	iov.SetLen(len(payload))
	header.Iov = &iov
	header.SetIovlen(1)
	if len(fds) > 0 {
		control := unix.UnixRights(fds...)
		header.Control = &control[0]
		header.SetControllen(len(control))
	}
	if _, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(socket), uintptr(unsafe.Pointer(&header)), 0); errno != 0 {
		t.Fatalf("sendmsg(%q, %v): %v", payload, fds, errno)
	}
}

func TestNaiveSender(t *testing.T) {
	for _, payload := range []string{"x", "\x00", "hello", strings.Repeat("y", scm.MaxPayload)} {
		q := newQueue(t, unix.SOCK_SEQPACKET)
		naive(t, q.send.FD, payload, q.send.FD)
		q.mustReceive(t, payload, q.send.FD, 1)
		for name, value := range scm.Vars(q.message.Payload) {
			t.Errorf("payload %.20q has the variable %s=%s, want none", payload, name, value)
		}
	}
}

func TestPayloadIsCut(t *testing.T) {
	q := newQueue(t, unix.SOCK_SEQPACKET)
	naive(t, q.send.FD, strings.Repeat("y", scm.MaxPayload+1000), q.send.FD)
	q.mustReceive(t, strings.Repeat("y", scm.MaxPayload), q.send.FD, 1)
}

func TestZeroLength(t *testing.T) {
	t.Run("skipped", func(t *testing.T) {
		q := newQueue(t, unix.SOCK_SEQPACKET)
		naive(t, q.send.FD, "")
		naive(t, q.send.FD, "")
		q.mustSend(t, "x", q.send.FD, 1)
		q.mustReceive(t, "x", q.send.FD, 1)
	})
	t.Run("with a descriptor", func(t *testing.T) {
		q := newQueue(t, unix.SOCK_SEQPACKET)
		naive(t, q.send.FD, "", q.send.FD)
		q.mustReceive(t, "", q.send.FD, 1)
	})
	t.Run("before the end", func(t *testing.T) {
		q := newQueue(t, unix.SOCK_SEQPACKET)
		naive(t, q.send.FD, "")
		q.mustSend(t, "x", q.receive.FD, 1)
		naive(t, q.send.FD, "")
		q.send.Close()
		q.mustReceive(t, "x", q.receive.FD, 1)
		if err := q.receiver.Receive(&q.message); err != io.EOF {
			t.Errorf("Receive() after the last message = %v, want io.EOF", err)
		}
	})
	// Then it is known to be one.
	t.Run("with credentials", func(t *testing.T) {
		for _, typ := range []int{unix.SOCK_SEQPACKET, unix.SOCK_DGRAM, unix.SOCK_STREAM} {
			q := newQueue(t, typ)
			if err := scm.PassCredentials(q.receive.FD); err != nil {
				t.Fatal(err)
			}
			if typ != unix.SOCK_STREAM { // which has no such messages
				naive(t, q.send.FD, "")
				q.mustReceive(t, "", q.send.FD, 0)
				if got := q.message.Sender; got == nil || got.PID != os.Getpid() {
					t.Errorf("Receive() has sender %v, want process %d", got, os.Getpid())
				}
			}
			if typ == unix.SOCK_DGRAM {
				continue // has no end
			}
			q.send.Close()
			if err := q.receiver.Receive(&q.message); err != io.EOF {
				t.Errorf("Receive() after the last message = %v, want io.EOF", err)
			}
		}
	})
	t.Run("without waiting", func(t *testing.T) {
		q := newQueue(t, unix.SOCK_SEQPACKET)
		naive(t, q.send.FD, "")
		if came, err := q.receiver.ReceiveNow(&q.message); came || err != nil {
			t.Errorf("ReceiveNow() of an empty message = %v, %v; want false, nil", came, err)
		}
	})
}

func TestEOF(t *testing.T) {
	for name, typ := range map[string]int{"seqpacket": unix.SOCK_SEQPACKET, "stream": unix.SOCK_STREAM} {
		t.Run(name, func(t *testing.T) {
			q := newQueue(t, typ)
			q.mustSend(t, "x", q.receive.FD, 1)
			q.send.Close()
			q.mustReceive(t, "x", q.receive.FD, 1)
			for range 2 {
				if err := q.receiver.Receive(&q.message); err != io.EOF {
					t.Errorf("Receive() without a sender = %v, want io.EOF", err)
				}
				if came, err := q.receiver.ReceiveNow(&q.message); came || err != io.EOF {
					t.Errorf("ReceiveNow() without a sender = %v, %v; want false, io.EOF", came, err)
				}
			}
		})
	}
}

// A sender that closes with something unread makes recvmsg say ECONNRESET once:
// nothing of what it sent is lost by that.
func TestResetLosesNothing(t *testing.T) {
	q := newQueue(t, unix.SOCK_SEQPACKET)
	q.mustSend(t, "x", q.receive.FD, 1)
	naive(t, q.receive.FD, "an answer that nobody reads")
	q.send.Close()
	q.mustReceive(t, "x", q.receive.FD, 1)
	if err := q.receiver.Receive(&q.message); err != io.EOF {
		t.Errorf("Receive() after the last message = %v, want io.EOF", err)
	}
}

func TestGone(t *testing.T) {
	for name, typ := range map[string]int{"seqpacket": unix.SOCK_SEQPACKET, "stream": unix.SOCK_STREAM, "dgram": unix.SOCK_DGRAM} {
		t.Run(name, func(t *testing.T) {
			q := newQueue(t, typ)
			q.receive.Close()
			for range 2 {
				if err := q.sender.Send([]byte("x"), q.send.FD); err != scm.ErrGone {
					t.Errorf("Send() without a receiver = %v, want ErrGone", err)
				}
			}
		})
	}
}

func TestGoneWhileWaiting(t *testing.T) {
	q := newQueue(t, unix.SOCK_SEQPACKET)
	fill(t, q.send.FD)
	ended := make(chan error, 1)
	go func() { ended <- q.sender.Send([]byte("x"), q.send.FD) }()
	fdtest.Eventually(t, "Send waits in sendmsg", func() bool { return fdtest.Blocked(unix.SYS_SENDMSG, q.send.FD) })
	q.receive.Close()
	if err := fdtest.Soon(t, "Send returns when the last receiver goes", ended); err != scm.ErrGone {
		t.Errorf("Send() = %v, want ErrGone", err)
	}
}

// fill sends until the queue is full, and returns how many messages that took.
func fill(t *testing.T, socket int) (n int) {
	t.Helper()
	for {
		err := unix.Sendmsg(socket, []byte("x"), nil, nil, unix.MSG_DONTWAIT)
		if err == unix.EAGAIN {
			return n
		}
		if err != nil {
			t.Fatalf("sendmsg: %v", err)
		}
		n++
	}
}

func TestLost(t *testing.T) {
	for _, test := range []struct{ sent, room int }{{1, 0}, {3, 2}, {scm.MaxFDs, 1}} {
		t.Run(fmt.Sprintf("%d of %d", test.room, test.sent), func(t *testing.T) {
			q := newQueue(t, unix.SOCK_SEQPACKET)
			q.mustSend(t, "first", q.send.FD, test.sent)
			q.mustSend(t, "second", q.send.FD, 1)
			restore := fdtest.FewFiles(t, test.room)
			err := q.receiver.Receive(&q.message)
			restore()
			lost, ok := errors.AsType[*scm.LostError](err)
			if !ok || lost.Came != test.room || !lost.Full {
				t.Errorf("Receive() of %d descriptors with room for %d = %v, want a LostError with Came = %[2]d that is Full", test.sent, test.room, err)
			}
			if len(q.message.FDs) != 0 {
				t.Errorf("the message has descriptors %v, want none", q.message.FDs)
			}
			q.mustReceive(t, "second", q.send.FD, 1)
		})
	}
}

func nonblocking(t *testing.T, fd int) {
	t.Helper()
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatalf("fcntl(%d, F_SETFL, O_NONBLOCK): %v", fd, err)
	}
}

// Whoever shares a socket can set O_NONBLOCK on it: then it is waited for in poll.
func TestReceiveOfNonblocking(t *testing.T) {
	q := newQueue(t, unix.SOCK_SEQPACKET)
	nonblocking(t, q.receive.FD)
	ended := make(chan error, 1)
	go func() { ended <- q.receiver.Receive(&q.message) }()
	fdtest.Eventually(t, "Receive waits in poll", func() bool { return fdtest.Blocked(unix.SYS_PPOLL, -1) })
	q.mustSend(t, "x", q.send.FD, 1)
	if err := fdtest.Soon(t, "Receive returns", ended); err != nil {
		t.Fatalf("Receive() = %v, want nil", err)
	}
	q.check(t, "x", q.send.FD, 1)
	q.message.Close()
	go func() { ended <- q.receiver.Receive(&q.message) }()
	fdtest.Eventually(t, "Receive waits in poll", func() bool { return fdtest.Blocked(unix.SYS_PPOLL, -1) })
	q.send.Close()
	if err := fdtest.Soon(t, "Receive returns at the end", ended); err != io.EOF {
		t.Fatalf("Receive() = %v, want io.EOF", err)
	}
}

func TestSendToNonblocking(t *testing.T) {
	q := newQueue(t, unix.SOCK_SEQPACKET)
	nonblocking(t, q.send.FD)
	queued := fill(t, q.send.FD)
	ended := make(chan error, 1)
	go func() { ended <- q.sender.Send([]byte("last"), q.send.FD) }()
	fdtest.Eventually(t, "Send waits in poll", func() bool { return fdtest.Blocked(unix.SYS_PPOLL, -1) })
	for range queued {
		q.mustReceive(t, "x", q.send.FD, 0)
	}
	if err := fdtest.Soon(t, "Send returns", ended); err != nil {
		t.Fatalf("Send() = %v, want nil", err)
	}
	q.mustReceive(t, "last", q.send.FD, 1)
}

func TestStop(t *testing.T) {
	for _, test := range []struct {
		about       string
		nonblocking bool
		call        uintptr
		begin       func(q *queue) error
	}{
		{"Receive", false, unix.SYS_RECVMSG, func(q *queue) error { return q.receiver.Receive(&q.message) }},
		{"Receive, O_NONBLOCK", true, unix.SYS_PPOLL, func(q *queue) error { return q.receiver.Receive(&q.message) }},
		{"Send", false, unix.SYS_SENDMSG, func(q *queue) error { return q.sender.Send([]byte("x")) }},
		{"Send, O_NONBLOCK", true, unix.SYS_PPOLL, func(q *queue) error { return q.sender.Send([]byte("x")) }},
	} {
		t.Run(test.about, func(t *testing.T) {
			q := newQueue(t, unix.SOCK_SEQPACKET)
			if strings.HasPrefix(test.about, "Send") {
				fill(t, q.send.FD)
			}
			if test.nonblocking {
				nonblocking(t, q.send.FD)
				nonblocking(t, q.receive.FD)
			}
			ended := make(chan error, 1)
			go func() { ended <- test.begin(q) }()
			fdtest.Eventually(t, "the call waits", func() bool { return fdtest.Blocked(test.call, -1) })
			q.calls.Stop()
			if err := fdtest.Soon(t, "the call ends with Stop", ended); err != interrupt.ErrStopped {
				t.Errorf("it returned %v, want ErrStopped", err)
			}
			if err := test.begin(q); err != interrupt.ErrStopped {
				t.Errorf("a call after Stop returned %v, want ErrStopped", err)
			}
		})
	}
}

// What others have asked for on a shared socket comes with each message.
func TestForeignControlMessages(t *testing.T) {
	const soPassPIDFD = 76 // SO_PASSPIDFD, asm-generic/socket.h since 6.5
	q := newQueue(t, unix.SOCK_SEQPACKET)
	for name, option := range map[string]int{
		"SO_PASSCRED": unix.SO_PASSCRED, "SO_PASSSEC": unix.SO_PASSSEC, "SO_PASSPIDFD": soPassPIDFD,
	} {
		if err := unix.SetsockoptInt(q.receive.FD, unix.SOL_SOCKET, option, 1); err != nil {
			t.Logf("setsockopt(%s): %v: this kernel does not have it", name, err)
		}
	}
	for _, n := range []int{0, 1, 2, scm.MaxFDs} {
		q.mustSend(t, "x", q.send.FD, n)
		q.mustReceive(t, "x", q.send.FD, n)
	}
}

func TestNothingIsAllocated(t *testing.T) {
	q := newQueue(t, unix.SOCK_SEQPACKET)
	payload := []byte(scm.Begin + "PROTO=TCP\x00TCPLOCALIP=127.0.0.1\x00")
	allocs := testing.AllocsPerRun(200, func() {
		if err := q.sender.Send(payload, q.send.FD, q.receive.FD); err != nil {
			t.Fatalf("Send() = %v", err)
		}
		if err := q.receiver.Receive(&q.message); err != nil {
			t.Fatalf("Receive() = %v", err)
		}
		q.message.Close()
	})
	if allocs != 0 {
		t.Errorf("Send and Receive allocate %v times for a message, want 0", allocs)
	}
}

// A user has too many descriptors in flight: root never has, so an unprivileged
// process tries it.
func TestTooManyInFlight(t *testing.T) {
	c := fdtest.AsNobody(t, fdtest.Program(t, "flood"))
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func flood([]string) error {
	const limit, each = 64, 40
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
		return err
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socketpair", err)
	}
	files := make([]int, each)
	for i := range files {
		files[i] = fds[0]
	}
	rights := unix.UnixRights(files...)
	queued := 0
	for ; ; queued++ {
		err := unix.Sendmsg(fds[0], []byte("x"), rights, nil, unix.MSG_DONTWAIT)
		if err == unix.ETOOMANYREFS {
			break
		}
		if err != nil {
			return fmt.Errorf("sendmsg of %d descriptors, after %d messages: %w; want ETOOMANYREFS", each, queued, err)
		}
	}
	var calls interrupt.Calls
	ended := make(chan error, 1)
	sender := scm.NewSender(fds[0], &calls)
	go func() { ended <- sender.Send([]byte("last"), files...) }()
	untilPausing()
	if err := sender.Delay(); !errors.Is(err, unix.ETOOMANYREFS) {
		return fmt.Errorf("Delay() = %w while Send waits; want ETOOMANYREFS", err)
	}
	r := scm.NewReceiver(fds[1], &calls)
	var m scm.Message
	for range queued {
		if err := r.Receive(&m); err != nil {
			return fmt.Errorf("Receive() = %w", err)
		}
		m.Close()
	}
	if err := <-ended; err != nil {
		return fmt.Errorf("Send() = %w; want nil once there is room again", err)
	}
	if err := sender.Delay(); err != nil {
		return fmt.Errorf("Delay() = %w after Send; want nil", err)
	}
	if err := r.Receive(&m); err != nil || string(m.Payload) != "last" || len(m.FDs) != each {
		return fmt.Errorf("Receive() = %q, %d descriptors, %w; want %q, %d", m.Payload, len(m.FDs), err, "last", each)
	}
	m.Close()

	// It can be stopped while it waits.
	for err == nil {
		err = unix.Sendmsg(fds[0], []byte("x"), rights, nil, unix.MSG_DONTWAIT)
	}
	go func() { ended <- scm.NewSender(fds[0], &calls).Send([]byte("last"), files...) }()
	untilPausing()
	calls.Stop()
	if err := <-ended; err != interrupt.ErrStopped {
		return fmt.Errorf("Send() = %w after Stop, want ErrStopped", err)
	}
	return nil
}

// untilPausing waits until Send sleeps, for want of something to wait for.
func untilPausing() {
	for !fdtest.Inside("time.Sleep", "(*Sender).Send") {
		runtime.Gosched()
	}
}

// TestTry sends what Send does not: nothing, and without waiting.
func TestTry(t *testing.T) {
	q := newQueue(t, unix.SOCK_SEQPACKET)
	for _, payload := range []string{"", "x"} {
		if n, err := q.sender.Try([]byte(payload), []int{2}, nil, 0); n != len(payload) || err != nil {
			t.Fatalf("Try(%q, 1 descriptor) = %d, %v; want %d, nil", payload, n, err, len(payload))
		}
		q.mustReceive(t, payload, 2, 1)
	}
	for {
		if _, err := q.sender.Try(make([]byte, 1000), nil, nil, 0); err != nil {
			if err != unix.EAGAIN {
				t.Errorf("Try at a full queue: %v, want EAGAIN", err)
			}
			break
		}
	}
	if _, err := q.sender.Try([]byte("x"), make([]int, scm.MaxFDs+1), nil, 0); err != unix.EINVAL {
		t.Errorf("Try with 254 descriptors: %v, want EINVAL", err)
	}
	q.receive.Close()
	// That something is lost unread is said once, unix(7).
	for _, want := range []error{unix.ECONNRESET, unix.EPIPE} {
		if _, err := q.sender.Try([]byte("x"), nil, nil, 0); err != want {
			t.Errorf("Try without a receiver: %v, want %v", err, want)
		}
	}
}

// TestNarrow holds that what did come of a message for which there is no room is closed.
func TestNarrow(t *testing.T) {
	q := newQueue(t, unix.SOCK_SEQPACKET)
	q.receiver.Narrow(3)
	q.mustSend(t, "x", 2, 3)
	q.mustReceive(t, "x", 2, 3)
	q.mustSend(t, "x", 2, 5)
	_, err := q.receiver.ReceiveNow(&q.message)
	if lost, ok := errors.AsType[*scm.LostError](err); !ok || lost.Came != 3 {
		t.Errorf("ReceiveNow with room for 3 of 5 descriptors: %v, want a LostError of 3", err)
	}
}

// TestUrgent holds that a byte out of band, which a sender of a stream may leave unread
// for ever, keeps nobody from the end.
func TestUrgent(t *testing.T) {
	q := newQueue(t, unix.SOCK_STREAM)
	q.mustSend(t, "x", 2, 1)
	if _, err := q.sender.Try([]byte("!"), nil, nil, unix.MSG_OOB); err == unix.EOPNOTSUPP {
		fdtest.Lacks(t, "this kernel has no MSG_OOB for Unix sockets")
	} else if err != nil {
		t.Fatal(err)
	}
	q.mustReceive(t, "x", 2, 1)
	q.send.Close()
	ended := make(chan error, 1)
	go func() { ended <- q.receiver.Receive(&q.message) }()
	if err := fdtest.Soon(t, "the end", ended); err != io.EOF {
		t.Errorf("Receive of a byte out of band: %v, want EOF", err)
	}
}

func TestSendNow(t *testing.T) {
	q := newQueue(t, unix.SOCK_SEQPACKET)
	if err := q.sender.SendNow(nil, 0); err == nil {
		t.Error("SendNow of no bytes succeeds; want an error")
	}
	sent := 0
	for err := error(nil); err == nil; sent++ {
		if err = q.sender.SendNow([]byte("x"), 0); err != nil && !errors.Is(err, unix.EAGAIN) || sent > 10_000 {
			t.Fatalf("SendNow = %v after %d messages; want EAGAIN in the end", err, sent)
		}
	}
	for range sent - 1 {
		q.mustReceive(t, "x", 0, 1)
	}
	if err := q.sender.SendNow([]byte("y"), 0); err != nil {
		t.Errorf("SendNow into an empty queue = %v", err)
	}
	q.mustReceive(t, "y", 0, 1)
	q.receive.Close()
	if err := q.sender.SendNow([]byte("x"), 0); err != scm.ErrGone {
		t.Errorf("SendNow without a receiver = %v; want ErrGone", err)
	}
}
