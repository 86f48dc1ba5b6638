//go:build linux

package peek_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
	"fdkit/internal/peek"
	"fdkit/internal/scm"
)

var types = map[string]int{"stream": unix.SOCK_STREAM, "seqpacket": unix.SOCK_SEQPACKET, "dgram": unix.SOCK_DGRAM}

func send(t *testing.T, socket int, payload string, fds ...int) {
	t.Helper()
	if err := scm.NewSender(socket, nil).Transmit([]byte(payload), fds, nil); err != nil {
		t.Fatalf("Transmit(%.20q, %d descriptors): %v", payload, len(fds), err)
	}
}

// look returns what is in the queue, each as "offset payload descriptors".
func look(t *testing.T, fd int) (seen []string, unseen int) {
	t.Helper()
	unseen, err := peek.Look(fd, func(m *peek.Message) {
		// Meanwhile others may look, who look at all processes.
		fdtest.Eventually(t, "SO_PEEK_OFF is -1 when a message is seen", func() bool { return option(t, fd) == -1 })
		seen = append(seen, fmt.Sprintf("%d %s %d", m.Offset, m.Payload, len(m.FDs)))
	})
	if err != nil {
		t.Fatalf("Look: %v", err)
	}
	return seen, unseen
}

func option(t *testing.T, fd int) int {
	t.Helper()
	offset, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF)
	if err != nil {
		t.Fatalf("getsockopt: %v", err)
	}
	return offset
}

// receiveAll receives what is there, as "payload descriptors".
func receiveAll(t *testing.T, fd int) (got []string) {
	t.Helper()
	r := scm.NewReceiverSize(fd, nil, 1<<20)
	var m scm.Message
	for {
		came, err := r.ReceiveNow(&m)
		if err != nil && err != io.EOF {
			t.Fatalf("ReceiveNow: %v", err)
		}
		if !came {
			return got
		}
		got = append(got, fmt.Sprintf("%s %d", m.Payload, len(m.FDs)))
		m.Close()
	}
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: %v; want %v", what, got, want)
	}
}

func TestLook(t *testing.T) {
	for name, typ := range types {
		for _, ended := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%v", name, ended), func(t *testing.T) {
				fdtest.NoLeaks(t)
				a, b := fdtest.Pair(t, typ)
				equal(t, "an empty queue", fmt.Sprint(look(t, b.FD)), "[] 0")
				send(t, a.FD, "plain")
				send(t, a.FD, "one", 0)
				send(t, a.FD, "three", 0, 1, 2)
				send(t, a.FD, "end")
				want := []string{"0 plain 0", "5 one 1", "8 three 3", "13 end 0"}
				received := []string{"plain 0", "one 1", "three 3", "end 0"}
				if typ == unix.SOCK_STREAM {
					want = []string{"0 plainone 1", "8 three 3", "13 end 0"}
					received = []string{"plainone 1", "three 3", "end 0"}
				}
				if ended && typ != unix.SOCK_DGRAM {
					a.Close()
				}
				for range 2 {
					seen, unseen := look(t, b.FD)
					equal(t, "seen", seen, want)
					equal(t, "unseen", unseen, 0)
				}
				equal(t, "received afterwards", receiveAll(t, b.FD), received)
			})
		}
	}
}

// A message of no bytes is passed over once it has been peeked at with an offset, which
// those may do as well who look at all processes: then it is tried again.
func TestEmptyMessages(t *testing.T) {
	for _, typ := range []int{unix.SOCK_SEQPACKET, unix.SOCK_DGRAM} {
		for _, ended := range []bool{false, true} {
			fdtest.NoLeaks(t)
			fdtest.Eventually(t, "messages of no bytes are seen once", func() bool {
				a, b := fdtest.Pair(t, typ)
				defer b.Close()
				defer a.Close()
				send(t, a.FD, "")
				send(t, a.FD, "", 0, 1)
				send(t, a.FD, "x", 0)
				send(t, a.FD, "")
				send(t, a.FD, "y")
				if ended && typ == unix.SOCK_SEQPACKET {
					a.Close()
				}
				first, left := look(t, b.FD)
				again, leftAgain := look(t, b.FD)
				return fmt.Sprint(first, left) == "[0  0 0  2 0 x 1 1  0 1 y 0] 0" &&
					fmt.Sprint(again, leftAgain) == "[0 x 1 1 y 0] 2" &&
					fmt.Sprint(receiveAll(t, b.FD)) == "[ 2 x 1 y 0]"
			})
		}
	}
}

func TestMany(t *testing.T) {
	for name, typ := range types {
		t.Run(name, func(t *testing.T) {
			fdtest.NoLeaks(t)
			a, b := fdtest.Pair(t, typ)
			fds := make([]int, scm.MaxFDs)
			n := 100
			if typ == unix.SOCK_DGRAM {
				n = 8 // net.unix.max_dgram_qlen is 10 where it is least
			}
			var want []string
			for i := range n {
				send(t, a.FD, fmt.Sprintf("%03d", i), fds...)
				want = append(want, fmt.Sprintf("%d %03d %d", 3*i, i, len(fds)))
			}
			seen, unseen := look(t, b.FD)
			equal(t, "seen", seen, want)
			equal(t, "unseen", unseen, 0)
			equal(t, "received", len(receiveAll(t, b.FD)), n)
		})
	}
}

func TestLarge(t *testing.T) {
	for name, typ := range types {
		t.Run(name, func(t *testing.T) {
			fdtest.NoLeaks(t)
			a, b := fdtest.Pair(t, typ)
			long := strings.Repeat("x", 100_000)
			send(t, a.FD, long, 0, 1)
			send(t, a.FD, "end", 2)
			var sizes, descriptors, kept []int
			unseen, err := peek.Look(b.FD, func(m *peek.Message) {
				sizes, descriptors, kept = append(sizes, m.Size), append(descriptors, len(m.FDs)), append(kept, len(m.Payload))
			})
			if err != nil {
				t.Fatal(err)
			}
			total := 0
			for _, size := range sizes {
				total += size
			}
			equal(t, "bytes", total, len(long)+3)
			equal(t, "unseen", unseen, 0)
			if typ != unix.SOCK_STREAM {
				equal(t, "sizes", sizes, []int{len(long), 3})
				equal(t, "descriptors", descriptors, []int{2, 1})
				equal(t, "kept", kept, []int{peek.Kept, 3})
			}
		})
	}
}

func TestSender(t *testing.T) {
	a, b := fdtest.Pair(t, unix.SOCK_SEQPACKET)
	if err := scm.PassCredentials(b.FD); err != nil {
		t.Fatal(err)
	}
	send(t, a.FD, "x")
	var got *scm.Credentials
	if _, err := peek.Look(b.FD, func(m *peek.Message) { got = m.Sender }); err != nil {
		t.Fatal(err)
	}
	equal(t, "sender", *got, scm.Credentials{PID: os.Getpid(), UID: os.Getuid(), GID: os.Getgid()})
}

// What is another's is not touched.
func TestUntouched(t *testing.T) {
	fdtest.NoLeaks(t)
	never := func(m *peek.Message) { t.Errorf("message %q is seen", m.Payload) }
	a, b := fdtest.Pair(t, unix.SOCK_SEQPACKET)
	send(t, a.FD, "x", 0)
	if err := unix.SetsockoptInt(b.FD, unix.SOL_SOCKET, unix.SO_PEEK_OFF, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := peek.Look(b.FD, never); err != peek.ErrPeeked {
		t.Errorf("Look where SO_PEEK_OFF is 0: %v; want ErrPeeked", err)
	}
	equal(t, "SO_PEEK_OFF", option(t, b.FD), 0)
	equal(t, "received", receiveAll(t, b.FD), []string{"x 1"})

	// An error that waits: the other end is closed with something unread.
	a, b = fdtest.Pair(t, unix.SOCK_SEQPACKET)
	send(t, a.FD, "x", 0)
	send(t, b.FD, "unread")
	a.Close()
	if _, err := peek.Look(b.FD, never); err != peek.ErrError {
		t.Errorf("Look where an error waits: %v; want ErrError", err)
	}
	if _, err := unix.Read(b.FD, make([]byte, 10)); err != unix.ECONNRESET {
		t.Errorf("read afterwards: %v; want %v", err, unix.ECONNRESET)
	}
	a, b = fdtest.Pair(t, unix.SOCK_STREAM)
	send(t, a.FD, "x", 0)
	send(t, b.FD, "unread")
	a.Close()
	seen, _ := look(t, b.FD)
	equal(t, "a stream with an error that waits", seen, []string{"0 x 1"})
	b2 := make([]byte, 10)
	if n, err := unix.Read(b.FD, b2); n != 1 || err != nil {
		t.Errorf("read afterwards: %d, %v; want 1 byte", n, err)
	}
	if _, err := unix.Read(b.FD, b2); err != unix.ECONNRESET {
		t.Errorf("read at the end: %v; want %v", err, unix.ECONNRESET)
	}
}

// A receiver that sleeps is not woken and loses nothing.
func TestSleepingReceiver(t *testing.T) {
	for name, typ := range types {
		t.Run(name, func(t *testing.T) {
			a, b := fdtest.Pair(t, typ)
			got := make(chan string, 1)
			go func() {
				buf := make([]byte, 10)
				n, err := unix.Read(b.FD, buf)
				got <- fmt.Sprint(string(buf[:max(n, 0)]), err)
			}()
			fdtest.Eventually(t, "the receiver sleeps", func() bool { return fdtest.Blocked(unix.SYS_READ, b.FD) })
			equal(t, "seen", fmt.Sprint(look(t, b.FD)), "[] 0")
			if !fdtest.Blocked(unix.SYS_READ, b.FD) {
				t.Error("the receiver was woken")
			}
			send(t, a.FD, "x")
			equal(t, "received", fdtest.Soon(t, "what was sent", got), "x<nil>")
		})
	}
}

// What does not fit is looked at in turns; what cannot be copied is said.
func TestFewFiles(t *testing.T) {
	for name, typ := range types {
		t.Run(name, func(t *testing.T) {
			fdtest.NoLeaks(t)
			a, b := fdtest.Pair(t, typ)
			for _, payload := range []string{"a", "b", "c"} {
				send(t, a.FD, payload, 0, 1, 2, 0, 1, 2)
			}
			send(t, a.FD, "d", make([]int, 40)...)
			send(t, a.FD, "e", 1)
			restore := fdtest.FewFiles(t, 20) // some for what looks, and so for two messages
			var seen []string
			unseen, err := peek.Look(b.FD, func(m *peek.Message) {
				seen = append(seen, fmt.Sprintf("%d %s %v", m.Offset, m.Payload, m.Short))
				if m.Short == (len(m.FDs) == 1 || len(m.FDs) == 6) || len(m.FDs) == 0 {
					t.Errorf("message %s is short: %v, and has %d descriptors", m.Payload, m.Short, len(m.FDs))
				}
			})
			restore()
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "seen", seen, []string{"0 a false", "1 b false", "2 c false", "3 d true", "4 e false"})
			if unseen < 20 || unseen >= 40 {
				t.Errorf("%d of 40 unseen; want those that do not fit", unseen)
			}
			restore = fdtest.FewFiles(t, 3)
			_, err = peek.Look(b.FD, func(*peek.Message) {})
			restore()
			if !errors.Is(err, unix.EMFILE) {
				t.Errorf("Look without descriptors: %v; want %v", err, unix.EMFILE)
			}
			fdtest.Eventually(t, "SO_PEEK_OFF is -1 again", func() bool { return option(t, b.FD) == -1 })
			equal(t, "received", len(receiveAll(t, b.FD)), 5)
		})
	}
}

// While one sends and one receives, each message is seen at most once, in order, without
// a hole, and whole; and the receiver gets all of them.
func TestConcurrently(t *testing.T) {
	for name, typ := range types {
		t.Run(name, func(t *testing.T) {
			fdtest.NoLeaks(t)
			a, b := fdtest.Pair(t, typ)
			const n = 20_000
			var received atomic.Int64
			done := make(chan error, 2)
			go func() {
				s := scm.NewSender(a.FD, nil)
				for i := range n {
					if err := s.Transmit(fmt.Appendf(nil, "%05d", i), []int{0}, nil); err != nil {
						done <- err
						return
					}
				}
				done <- nil
			}()
			go func() {
				r := scm.NewReceiver(b.FD, nil)
				var m scm.Message
				for i := range n {
					err := r.Receive(&m)
					if want := fmt.Appendf(nil, "%05d", i); err == nil && (!bytes.Equal(m.Payload, want) || len(m.FDs) != 1) {
						err = fmt.Errorf("received %q with %d descriptors; want %q", m.Payload, len(m.FDs), want)
					}
					m.Close()
					if err != nil {
						done <- err
						return
					}
					received.Add(1)
				}
				done <- nil
			}()
			looks, found := 0, 0
			for received.Load() < n && !t.Failed() {
				last := -1
				_, err := peek.Look(b.FD, func(m *peek.Message) {
					var i int
					if _, err := fmt.Sscanf(string(m.Payload), "%05d", &i); err != nil || m.Size != 5 || len(m.FDs) != 1 {
						t.Errorf("seen %q, %d bytes with %d descriptors", m.Payload, m.Size, len(m.FDs))
					}
					if last >= 0 && i != last+1 {
						t.Errorf("after message %d message %d is seen", last, i)
					}
					last = i
					found++
				})
				if err == peek.ErrPeeked {
					continue // somebody looks at all processes
				}
				if err != nil {
					t.Fatal(err)
				}
				looks++
			}
			for range 2 {
				if err := fdtest.Soon(t, "the end", done); err != nil {
					t.Error(err)
				}
			}
			t.Logf("%d looks, %d messages seen", looks, found)
		})
	}
}

func TestNoSocket(t *testing.T) {
	read, _ := fdtest.Pipe(t)
	for _, fd := range []int{read.FD, 9999} {
		if _, err := peek.Look(fd, func(*peek.Message) { t.Error("seen") }); err == nil {
			t.Errorf("Look(%d) succeeds; want an error", fd)
		}
	}
}
