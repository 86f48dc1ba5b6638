//go:build linux

package fdrecv_test

import (
	"fmt"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/fdrecv"
	"fdkit/internal/fdtest"
)

// Who sends is known of what is sent after PassCredentials, and the socket is as it was
// when the queue is closed.
func TestPassCredentials(t *testing.T) {
	for _, before := range []int{0, 1} {
		fdtest.NoLeaks(t)
		send, receive := fdtest.Pair(t, unix.SOCK_SEQPACKET)
		option := func() int {
			t.Helper()
			n, err := unix.GetsockoptInt(receive.FD, unix.SOL_SOCKET, unix.SO_PASSCRED)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		if err := unix.SetsockoptInt(receive.FD, unix.SOL_SOCKET, unix.SO_PASSCRED, before); err != nil {
			t.Fatal(err)
		}
		q, err := fdrecv.Open(fmt.Sprintf("fd:%d", fdtest.Dup(t, receive.FD).Take()), fdrecv.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if who, ok := q.Peer(); !ok || who.PID != os.Getpid() || who.UID != os.Getuid() || who.GID != os.Getgid() {
			t.Errorf("Peer() = %v, %v; want this process, true", who, ok)
		}
		if err := unix.Sendmsg(send.FD, []byte("early"), nil, nil, 0); err != nil {
			t.Fatal(err)
		}
		if err := q.PassCredentials(); err != nil || option() == 0 {
			t.Errorf("PassCredentials() = %v, SO_PASSCRED is %d; want nil, 1", err, option())
		}
		if err := unix.Sendmsg(send.FD, []byte("late"), nil, nil, 0); err != nil {
			t.Fatal(err)
		}
		early := before * os.Getpid()
		receiver := q.Receiver()
		for _, want := range []int{early, os.Getpid()} {
			var m fdrecv.Message
			if err := receiver.Receive(&m); err != nil || m.Sender == nil || m.Sender.PID != want {
				t.Errorf("Receive() = %v, sender %v; want nil, process %d", err, m.Sender, want)
			}
		}
		if _, err := q.Close(); err != nil || option() != before {
			t.Errorf("Close() = %v, SO_PASSCRED is %d; want nil, %d as before", err, option(), before)
		}
		if err := q.PassCredentials(); err != fdrecv.ErrStopped {
			t.Errorf("PassCredentials() after Close = %v, want ErrStopped", err)
		}
	}
}

// Who sends is known also where a message is made of several reads.
func TestSpeakSender(t *testing.T) {
	fdtest.NoLeaks(t)
	for dialect, payload := range map[string]string{"openssh": "x", "node": `{"cmd":"NODE_HANDLE"}` + "\n"} {
		send, receive := fdtest.Pair(t, unix.SOCK_STREAM)
		q, err := fdrecv.Open(fmt.Sprintf("fd:%d", receive.Take()), fdrecv.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := q.PassCredentials(); err != nil {
			t.Fatal(err)
		}
		if _, err := q.Speak(dialect, fdrecv.Want{List: true}); err == nil {
			t.Errorf("Speak(%s, the list) succeeds; want an error, as nobody asks", dialect)
		}
		receiver, err := q.Speak(dialect, fdrecv.Want{})
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Sendmsg(send.FD, []byte(payload), unix.UnixRights(2), nil, 0); err != nil {
			t.Fatal(err)
		}
		var m fdrecv.Message
		if err := receiver.Receive(&m); err != nil || len(m.FDs) != 1 || m.Sender == nil || m.Sender.PID != os.Getpid() {
			t.Errorf("%s: Receive() = %v, sender %v; want nil, this process", dialect, err, m.Sender)
		}
		m.Close()
		receiver.Close()
		if _, err := q.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Who sends is known also of what is sent before PassCredentials, where the queue's
// socket is one that Open has accepted.
func TestPassCredentialsAccepted(t *testing.T) {
	fdtest.NoLeaks(t)
	path := t.TempDir() + "/s"
	opened := make(chan error, 1)
	var q *fdrecv.Queue
	go func() {
		var err error
		q, err = fdrecv.Open("unix-listen:"+path, fdrecv.Options{})
		opened <- err
	}()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	fdtest.Eventually(t, "it listens", func() bool { return unix.Connect(fd, &unix.SockaddrUnix{Name: path}) == nil })
	if err := fdtest.Soon(t, "it is open", opened); err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if err := unix.Sendmsg(fd, []byte("x"), nil, nil, 0); err != nil {
		t.Fatal(err)
	}
	if err := q.PassCredentials(); err != nil {
		t.Fatal(err)
	}
	var m fdrecv.Message
	if err := q.Receiver().Receive(&m); err != nil || m.Sender == nil || m.Sender.PID != os.Getpid() {
		t.Errorf("Receive() = %v, sender %v; want nil, this process", err, m.Sender)
	}
}

// ReceiveNow does not wait, and poll(2) tells of FD when it has something.
func TestReceiveNow(t *testing.T) {
	fdtest.NoLeaks(t)
	send, receive := fdtest.Pair(t, unix.SOCK_SEQPACKET)
	q, err := fdrecv.Open(fmt.Sprintf("fd:%d", receive.Take()), fdrecv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	readable := func() bool {
		t.Helper()
		fds := []unix.PollFd{{Fd: int32(q.FD()), Events: unix.POLLIN}}
		_, err := unix.Poll(fds, 0)
		return err == nil && fds[0].Revents&unix.POLLIN != 0
	}
	receiver := q.Receiver()
	var m fdrecv.Message
	if came, err := receiver.ReceiveNow(&m); came || err != nil || readable() {
		t.Errorf("ReceiveNow() = %v, %v of an empty queue, readable: %v; want false, nil, false", came, err, readable())
	}
	if err := unix.Sendmsg(send.FD, []byte("x"), unix.UnixRights(send.FD), nil, 0); err != nil {
		t.Fatal(err)
	}
	if !readable() {
		t.Error("poll(2) does not tell of the message")
	}
	if came, err := receiver.ReceiveNow(&m); !came || err != nil || string(m.Payload) != "x" || len(m.FDs) != 1 {
		t.Errorf("ReceiveNow() = %v, %v, %q and %d descriptors; want true, nil, x and 1", came, err, m.Payload, len(m.FDs))
	}
	m.Close()
	send.Close()
	if came, err := receiver.ReceiveNow(&m); came || err != io.EOF {
		t.Errorf("ReceiveNow() = %v, %v at the end; want false, EOF", came, err)
	}
	if _, err := q.Close(); err != nil {
		t.Errorf("Close() = %v", err)
	}
}
