//go:build linux

package cmd

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/fdsend"
	"fdkit/internal/fdtest"
	"fdkit/internal/hint"
)

// outgoings returns n messages with one descriptor each.
func outgoings(fd, n int) (all []outgoing) {
	for range n {
		all = append(all, outgoing{payload: []byte(fdsend.Begin), fds: []int{fd}})
	}
	return all
}

// delivering calls deliver with messages for a queue that spec names.
func delivering(t *testing.T, spec string, n int, stop <-chan struct{}) <-chan error {
	t.Helper()
	q, err := fdsend.Open(spec, fdsend.Options{})
	if err != nil {
		t.Fatalf("Open(%q) = %v", spec, err)
	}
	pipe, _ := fdtest.Pipe(t)
	ended := make(chan error, 1)
	go func() {
		lost, err := deliver(logger{}, q, outgoings(pipe.FD, n), stop)
		if (lost > 0) != (err != nil) {
			err = fmt.Errorf("%d messages are lost, %w", lost, err)
		}
		ended <- err
	}()
	return ended
}

// isSending tells whether a thread waits for room in a queue.
func isSending() bool { return fdtest.Blocked(unix.SYS_SENDMSG, -1) }

func TestDeliver(t *testing.T) {
	const many = 1000 // more than any queue holds
	for _, typ := range []int{unix.SOCK_STREAM, unix.SOCK_SEQPACKET, unix.SOCK_DGRAM} {
		t.Run(fmt.Sprint("socket type ", typ), func(t *testing.T) {
			fdtest.NoLeaks(t)
			send, receive := fdtest.Pair(t, typ)
			ended := delivering(t, fmt.Sprintf("fd:%d", fdtest.Dup(t, send.FD).Take()), 1, nil)
			if err := fdtest.Soon(t, "deliver", ended); err != nil {
				t.Errorf("deliver to a socket with room = %v, want nil at once", err)
			}

			stop := make(chan struct{})
			ended = delivering(t, fmt.Sprintf("fd:%d", fdtest.Dup(t, send.FD).Take()), many, stop)
			fdtest.Eventually(t, "the socket is full", isSending)
			close(stop)
			if err := fdtest.Soon(t, "deliver", ended); !errors.Is(err, errFull) {
				t.Errorf("deliver to a full socket that is stopped = %v, want %v", err, errFull)
			}

			ended = delivering(t, fmt.Sprintf("fd:%d", send.Take()), many, nil)
			fdtest.Eventually(t, "the socket is full", isSending)
			receive.Close()
			if err := fdtest.Soon(t, "deliver", ended); !errors.Is(err, errNoReceiver) {
				t.Errorf("deliver to a full socket whose receiver goes = %v, want %v", err, errNoReceiver)
			}
		})
	}
}

// At a shell pipe this process holds the receiving end too: that the receivers go
// makes no room.
func TestDeliverPipe(t *testing.T) {
	fdtest.NoLeaks(t)
	for _, n := range []int{1, 1000} {
		read, write := fdtest.Pipe(t)
		ended := delivering(t, fmt.Sprintf("fd:%d", write.Take()), n, nil)
		if n > 1 {
			fdtest.Eventually(t, "the queue is full", isSending)
		}
		read.Close()
		if err := fdtest.Soon(t, "deliver", ended); !errors.Is(err, errNoReceiver) {
			t.Errorf("deliver of %d messages to a pipe whose reader goes = %v, want %v", n, err, errNoReceiver)
		}
	}
}

// A named queue waits for its first receiver.
func TestDeliverNamed(t *testing.T) {
	fdtest.NoLeaks(t)
	t.Chdir(t.TempDir())
	stop := make(chan struct{})
	ended := delivering(t, "./q", 1, stop)
	fdtest.Eventually(t, "deliver waits for a receiver", func() bool { return fdtest.Inside("fdsend.(*Queue).Drain") })
	close(stop)
	if err := fdtest.Soon(t, "deliver", ended); !errors.Is(err, errUnreceived) {
		t.Errorf("deliver to a queue that nobody receives from, stopped, = %v, want %v", err, errUnreceived)
	}
}

func TestExplainSend(t *testing.T) {
	for errno, want := range map[unix.Errno]string{
		unix.EPERM:  "SO_PASSRIGHTS",
		unix.EINVAL: "io_uring",
		unix.EBADF:  "",
	} {
		err := explainSend(os.NewSyscallError("sendmsg", errno))
		if got := hint.Of(err); !errors.Is(err, errno) || !strings.Contains(got, want) || (got == "") != (want == "") {
			t.Errorf("explainSend(%v) = %v with the hint %q; want %q in it", errno, err, got, want)
		}
	}
}

// The kernel says so itself, where it knows of SO_PASSRIGHTS (Linux 6.16).
func TestDeliverRefused(t *testing.T) {
	const soPassRights = 83 // asm-generic/socket.h; x/sys has no name for it
	send, receive := fdtest.Pair(t, unix.SOCK_SEQPACKET)
	want := error(unix.EPERM)
	if unix.SetsockoptInt(receive.FD, unix.SOL_SOCKET, soPassRights, 0) != nil {
		want = nil
	}
	ended := delivering(t, fmt.Sprintf("fd:%d", send.Take()), 1, nil)
	if err := fdtest.Soon(t, "deliver", ended); !errors.Is(err, want) {
		t.Errorf("deliver to a socket that takes no descriptors = %v, want %v", err, want)
	}
}
