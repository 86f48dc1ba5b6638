//go:build linux

package cmd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/fdrecv"
	"fdkit/fdsend"
	"fdkit/internal/fdtest"
	"fdkit/internal/proto"
)

func dialectOf(t *testing.T, name string) *proto.Dialect {
	t.Helper()
	d, err := proto.Find(name)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// queues returns a queue to send to and the socket at its other end.
func sendingQueue(t *testing.T) (*fdsend.Queue, *fdtest.End) {
	t.Helper()
	ours, theirs := fdtest.Pair(t, unix.SOCK_STREAM)
	q, err := fdsend.Open(fmt.Sprintf("fd:%d", ours.Take()), fdsend.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = q.Close() })
	return q, theirs
}

func receivingQueue(t *testing.T) (*fdrecv.Queue, *fdtest.End) {
	t.Helper()
	ours, theirs := fdtest.Pair(t, unix.SOCK_STREAM)
	q, err := fdrecv.Open(fmt.Sprintf("fd:%d", ours.Take()), fdrecv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = q.Close() })
	return q, theirs
}

// What the sending of a dialect says comes out as listen.Serve and fdkit listen know it.
func TestDialectSink(t *testing.T) {
	fdtest.NoLeaks(t)
	for _, test := range []struct {
		what string
		says error
		gone bool // the receiver
		want error
	}{
		{"sent", nil, false, nil},
		{"sent, and the receiver has gone since", nil, true, nil},
		{"a bad answer", proto.ErrAnswer, false, proto.ErrAnswer},
		{"no answer, as the receiver has gone", proto.ErrAnswer, true, fdsend.ErrGone},
		{"the end of the answers", io.EOF, false, io.EOF},
		{"the end", io.EOF, true, fdsend.ErrGone},
		{"stopped", fdsend.ErrStopped, false, fdsend.ErrStopped},
	} {
		q, theirs := sendingQueue(t)
		if test.gone {
			theirs.Close()
		}
		var sent fdsend.Parcel
		s := dialectSink{q.Sender(), dialectOf(t, "openssh"), func(p fdsend.Parcel) error {
			sent = p
			return test.says
		}}
		if err := s.Send([]byte("FDKIT=1\x00"), 2); !errors.Is(err, test.want) || test.want == nil && err != nil {
			t.Errorf("%s: Send() = %v; want %v", test.what, err, test.want)
		}
		if sent.Payload != nil || len(sent.FDs) != 1 || sent.FDs[0] != 2 {
			t.Errorf("%s: sent %+v; want descriptor 2, and the dialect's own payload", test.what, sent)
		}
		_, _ = q.Close()
	}
}

// speakAll closes the queue, also where it is told to stop while it waits.
func TestSpeakAllStopped(t *testing.T) {
	fdtest.NoLeaks(t)
	q, theirs := sendingQueue(t)
	stop, ended := make(chan struct{}), make(chan error, 1)
	parcels := make([]fdsend.Parcel, 1000) // more than the socket takes
	for i := range parcels {
		parcels[i].FDs = []int{2}
	}
	go func() { ended <- speakAll(q, dialectOf(t, "raw"), parcels, stop) }()
	fdtest.Eventually(t, "the sender waits", func() bool { return fdtest.Blocked(unix.SYS_SENDMSG, -1) })
	close(stop)
	if err := fdtest.Soon(t, "speakAll ends", ended); !errors.Is(err, fdsend.ErrStopped) {
		t.Errorf("speakAll() = %v; want ErrStopped", err)
	}
	theirs.Close()
}

// Several goroutines share a speaker: each message is one's own.
func TestSpeakerShared(t *testing.T) {
	fdtest.NoLeaks(t)
	q, theirs := receivingQueue(t)
	s, err := speakFrom(q, dialectOf(t, "openssh"), nil)
	if err != nil {
		t.Fatal(err)
	}
	const total = 200
	var mu sync.Mutex
	seen := 0
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			var m fdrecv.Message
			for {
				if err := s.Receive(&m); err != nil {
					if err != io.EOF {
						t.Errorf("Receive() = %v; want EOF at the end", err)
					}
					return
				}
				if len(m.FDs) != 1 || len(m.Payload) != 1 || !fdtest.SameFile(m.FDs[0], theirs.FD) {
					t.Errorf("Receive() gave %+v; want one descriptor of its own", m)
				}
				mu.Lock()
				seen++
				mu.Unlock()
				m.Close()
			}
		})
	}
	for i := range total {
		if err := unix.Sendmsg(theirs.FD, []byte{byte(i)}, unix.UnixRights(theirs.FD), nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Shutdown(theirs.FD, unix.SHUT_WR); err != nil {
		t.Fatal(err)
	}
	group.Wait()
	if seen != total {
		t.Errorf("%d messages came; want %d", seen, total)
	}
	s.close()
	_, _ = q.Close()
}

// After a bad message it goes on where the dialect can, and never where it cannot.
func TestSpeakerBad(t *testing.T) {
	fdtest.NoLeaks(t)
	for _, resumes := range []bool{true, false} {
		q, theirs := receivingQueue(t)
		d := *dialectOf(t, "openssh")
		d.Resumes = resumes
		s, err := speakFrom(q, &d, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, fds := range [][]int{{2, 2}, {2}} {
			if err := unix.Sendmsg(theirs.FD, []byte{0}, unix.UnixRights(fds...), nil, 0); err != nil {
				t.Fatal(err)
			}
		}
		var m fdrecv.Message
		first := s.Receive(&m)
		if !errors.Is(first, proto.ErrAnswer) || s.lost(first) != resumes || len(m.FDs) != 0 {
			t.Errorf("Receive() = %v, lost %t; want ErrAnswer, %t", first, s.lost(first), resumes)
		}
		second := s.Receive(&m)
		if resumes && second != nil || !resumes && second != first {
			t.Errorf("then Receive() = %v with resumes %t; want the message, or the same again", second, resumes)
		}
		m.Close()
		s.close()
		_, _ = q.Close()
	}
}

// A speaker that waits is stopped by Close of its queue.
func TestSpeakerStopped(t *testing.T) {
	fdtest.NoLeaks(t)
	q, _ := receivingQueue(t)
	s, err := speakFrom(q, dialectOf(t, "raw"), nil)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 2)
	for range 2 {
		go func() {
			var m fdrecv.Message
			ended <- s.Receive(&m)
		}()
	}
	fdtest.Eventually(t, "one waits", func() bool { return fdtest.Blocked(unix.SYS_RECVMSG, -1) })
	_, _ = q.Close()
	for range 2 {
		if err := fdtest.Soon(t, "Receive ends", ended); err != fdrecv.ErrStopped {
			t.Errorf("Receive() = %v; want ErrStopped", err)
		}
	}
	s.close()
}

func TestSpeakFromOwnQueue(t *testing.T) {
	fdtest.NoLeaks(t)
	name := fmt.Sprintf("@fdkit-speak-%d", os.Getpid())
	q, err := fdrecv.Open(name, fdrecv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if _, err := speakFrom(q, dialectOf(t, "openssh"), nil); err == nil {
		t.Error("speakFrom() of a named queue succeeds in dialect openssh; want an error")
	}
}
