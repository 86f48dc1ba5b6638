//go:build linux

package interrupt_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
	"fdkit/internal/interrupt"
)

func TestMain(m *testing.M) {
	fdtest.Main(m, map[string]func([]string) error{"blocked": blocked})
}

// call makes a blocking call again until it succeeds or is stopped.
func call(c *interrupt.Calls, once func() error) error {
	if err := c.Enter(); err != nil {
		return err
	}
	defer c.Exit()
	for {
		err := once()
		if err != unix.EINTR {
			return err
		}
		if c.Stopped() {
			return interrupt.ErrStopped
		}
	}
}

// blocking are calls that sleep for ever.
var blocking = []struct {
	name string
	nr   uintptr
	call func(t *testing.T, c *interrupt.Calls) func() error
}{
	{"recvmsg", unix.SYS_RECVMSG, func(t *testing.T, c *interrupt.Calls) func() error {
		a, _ := fdtest.Pair(t, unix.SOCK_SEQPACKET)
		return func() error {
			return call(c, func() error {
				_, _, _, _, err := unix.Recvmsg(a.FD, make([]byte, 1), nil, 0)
				return err
			})
		}
	}},
	{"sendmsg", unix.SYS_SENDMSG, func(t *testing.T, c *interrupt.Calls) func() error {
		a, _ := fdtest.Pair(t, unix.SOCK_SEQPACKET)
		for unix.Sendmsg(a.FD, []byte("x"), nil, nil, unix.MSG_DONTWAIT) == nil {
		}
		return func() error {
			return call(c, func() error { return unix.Sendmsg(a.FD, []byte("x"), nil, nil, 0) })
		}
	}},
	{"accept4", unix.SYS_ACCEPT4, func(t *testing.T, c *interrupt.Calls) func() error {
		fd := listening(t)
		return func() error {
			return call(c, func() error {
				_, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
				return err
			})
		}
	}},
	{"poll", unix.SYS_PPOLL, func(t *testing.T, c *interrupt.Calls) func() error {
		r, _ := fdtest.Pipe(t)
		return func() error {
			if err := c.Enter(); err != nil {
				return err
			}
			defer c.Exit()
			return c.Poll(r.FD, unix.POLLIN)
		}
	}},
}

func listening(t *testing.T) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("socket: %v", err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrUnix{}); err != nil { // a name of the kernel's choice
		t.Fatalf("bind: %v", err)
	}
	if err := unix.Listen(fd, 8); err != nil {
		t.Fatalf("listen: %v", err)
	}
	return fd
}

// stops tests that Stop ends each blocking call, with two goroutines in it.
func stops(t *testing.T) {
	for _, b := range blocking {
		t.Run(b.name, func(t *testing.T) {
			fdtest.NoLeaks(t)
			var c interrupt.Calls
			t.Cleanup(c.Stop)
			once := b.call(t, &c)
			ended := make(chan error, 2)
			for range 2 {
				go func() { ended <- once() }()
			}
			fdtest.Eventually(t, "a thread sleeps in "+b.name, func() bool { return fdtest.Blocked(b.nr, -1) })
			c.Stop()
			for range 2 {
				if err := fdtest.Soon(t, b.name+" ends", ended); err != interrupt.ErrStopped {
					t.Errorf("%s = %v after Stop, want ErrStopped", b.name, err)
				}
			}
			if err := once(); err != interrupt.ErrStopped {
				t.Errorf("a further %s = %v, want ErrStopped", b.name, err)
			}
			if !c.Stopped() {
				t.Error("Stopped() = false after Stop, want true")
			}
			c.Stop() // again: nothing to do
		})
	}
}

func TestStop(t *testing.T) { stops(t) }

// Programs that use this package as a library do what they like with signals.
func TestStopWhateverBecameOfTheSignals(t *testing.T) {
	var c interrupt.Calls
	if err := c.Enter(); err != nil {
		t.Fatalf("Enter() = %v, want nil", err)
	}
	c.Exit()
	all := make(chan os.Signal, 1)
	t.Cleanup(func() { signal.Stop(all) })
	t.Run("Notify", func(t *testing.T) {
		signal.Notify(all)
		stops(t)
	})
	t.Run("Notify of this signal", func(t *testing.T) {
		signal.Notify(all, interrupt.Signal)
		signal.Stop(all)
		stops(t)
	})
	t.Run("Reset", func(t *testing.T) {
		signal.Reset()
		stops(t)
	})
	t.Run("Ignore", func(t *testing.T) {
		signal.Ignore(interrupt.Signal)
		stops(t)
	})
}

// A process may be started with the signal blocked.
func TestStopWithTheSignalBlocked(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	set := unix.Sigset_t{}
	set.Val[0] = 1 << (interrupt.Signal - 1)
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &set, nil); err != nil {
		t.Fatalf("pthread_sigmask: %v", err)
	}
	defer func() { _ = unix.PthreadSigmask(unix.SIG_UNBLOCK, &set, nil) }()
	if out, err := fdtest.Program(t, "blocked").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func blocked([]string) error {
	var mask unix.Sigset_t
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, nil, &mask); err != nil || mask.Val[0]>>(interrupt.Signal-1)&1 == 0 {
		return fmt.Errorf("the mask is %#x (%w), want signal %d in it", mask.Val[0], err, interrupt.Signal)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET, 0)
	if err != nil {
		return os.NewSyscallError("socketpair", err)
	}
	var c interrupt.Calls
	ended := make(chan error, 1)
	go func() {
		ended <- call(&c, func() error {
			_, _, _, _, err := unix.Recvmsg(fds[0], make([]byte, 1), nil, 0)
			return err
		})
	}()
	for !fdtest.Blocked(unix.SYS_RECVMSG, fds[0]) {
		runtime.Gosched()
	}
	c.Stop()
	if err := <-ended; err != interrupt.ErrStopped {
		return fmt.Errorf("recvmsg = %w after Stop, want ErrStopped", err)
	}
	return nil
}

func TestStopOfNothing(t *testing.T) {
	var c interrupt.Calls
	c.Stop()
	if err := c.Enter(); err != interrupt.ErrStopped {
		t.Errorf("Enter() after Stop = %v, want ErrStopped", err)
	}
}

func TestPoll(t *testing.T) {
	fdtest.NoLeaks(t)
	for name, c := range map[string]*interrupt.Calls{"Calls": {}, "nil": nil} {
		r, w := fdtest.Pipe(t)
		if err := c.Enter(); err != nil {
			t.Fatalf("%s: Enter() = %v, want nil", name, err)
		}
		if err := c.Poll(w.FD, unix.POLLOUT); err != nil {
			t.Errorf("%s: Poll of an empty pipe for POLLOUT = %v, want nil", name, err)
		}
		if ready, err := c.Wait(r.FD, unix.POLLIN, time.Millisecond); ready || err != nil {
			t.Errorf("%s: Wait for what does not come = %v, %v, want false, nil", name, ready, err)
		}
		r.Close()
		if err := c.Poll(w.FD, 0); err != nil {
			t.Errorf("%s: Poll of a pipe without a reader for nothing = %v, want nil", name, err)
		}
		c.Exit()
		if c.Stopped() {
			t.Errorf("%s: Stopped() = true without Stop", name)
		}
	}
}

// Goroutines come and go while Stop is called: none is left in a call, and Stop
// does not wait for ever.
func TestEnterWhileStopping(t *testing.T) {
	fdtest.NoLeaks(t)
	r, _ := fdtest.Pipe(t)
	for range 20 {
		var c interrupt.Calls
		var group sync.WaitGroup
		var inside, entered atomic.Int64
		begin := make(chan struct{})
		for i := range 50 {
			group.Go(func() {
				<-begin
				for c.Enter() == nil {
					inside.Add(1)
					entered.Add(1)
					if i%2 == 0 {
						_ = c.Poll(r.FD, unix.POLLIN) // sleeps until Stop
					}
					inside.Add(-1)
					c.Exit()
				}
			})
		}
		stopped := make(chan int64, 2)
		for range 2 {
			go func() {
				<-begin
				for entered.Load() < rand.Int64N(100) {
				}
				c.Stop()
				stopped <- inside.Load()
			}()
		}
		close(begin)
		for range 2 {
			if n := fdtest.Soon(t, "Stop returns", stopped); n != 0 {
				t.Errorf("Stop returned with %d goroutines in a call, want 0", n)
			}
		}
		group.Wait()
	}
}

// Stop comes at any moment: each message is received by a call that says so, or is
// still in the queue.
func TestStopLosesNothing(t *testing.T) {
	fdtest.NoLeaks(t)
	for round := range 60 {
		a, b := fdtest.Pair(t, unix.SOCK_SEQPACKET)
		var c interrupt.Calls
		var group sync.WaitGroup
		var received sync.Map
		var count atomic.Int64
		take := func(flags int) error {
			var payload [8]byte
			n, _, _, _, err := unix.Recvmsg(b.FD, payload[:], nil, flags)
			if err == nil && n == len(payload) {
				number := binary.NativeEndian.Uint64(payload[:])
				if _, twice := received.LoadOrStore(number, nil); twice {
					return fmt.Errorf("message %d came twice", number)
				}
				count.Add(1)
			}
			return err
		}
		for range 4 {
			group.Go(func() {
				for {
					if err := call(&c, func() error { return take(0) }); err == interrupt.ErrStopped {
						return
					} else if err != nil {
						t.Errorf("recvmsg: %v", err)
						return
					}
				}
			})
		}
		var sent uint64
		var sending interrupt.Calls
		group.Go(func() {
			for {
				err := call(&sending, func() error {
					return unix.Sendmsg(a.FD, binary.NativeEndian.AppendUint64(nil, sent), nil, nil, unix.MSG_NOSIGNAL)
				})
				if err != nil {
					return
				}
				sent++
			}
		})
		moment := rand.Int64N(200)
		fdtest.Eventually(t, "messages are received", func() bool { return count.Load() >= moment })
		c.Stop()
		sending.Stop()
		group.Wait()
		byCalls := count.Load()
		for take(unix.MSG_DONTWAIT) == nil {
		}
		if uint64(count.Load()) != sent {
			t.Fatalf("round %d: %d messages sent, %d received before Stop and %d found in the queue after it; want all",
				round, sent, byCalls, count.Load()-byCalls)
		}
		a.Close()
		b.Close()
	}
}
