//go:build linux

package torture_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
	"fdkit/internal/interrupt"
	"fdkit/internal/queue"
	"fdkit/internal/scm"
	"fdkit/internal/torture"
)

func TestMain(m *testing.M) {
	fdtest.Main(m, map[string]func([]string) error{"receiver": receiver, "sender": sender})
}

// receiver serves the socket, each connection in a goroutine: it answers ok to the first
// message. In one thing it is broken.
func receiver(args []string) error {
	path, broken := args[0], args[1]
	door, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(door, &unix.SockaddrUnix{Name: path})
	}
	if err == nil {
		err = unix.Listen(door, 128)
	}
	for err == nil {
		var conn int
		if conn, _, err = unix.Accept4(door, unix.SOCK_CLOEXEC); err != nil {
			break
		}
		if broken == "hangs on slow" {
			serve(conn, broken)
		} else {
			go serve(conn, broken)
		}
	}
	return err
}

func serve(fd int, broken string) {
	defer unix.Close(fd)
	var calls interrupt.Calls
	var m scm.Message
	r := scm.NewReceiver(fd, &calls)
	if broken == "ignores truncation" {
		// As it is received without scm: what fits is there, and is forgotten.
		control := make([]byte, unix.CmsgSpace(4*16))
		n, used, flags, _, err := unix.Recvmsg(fd, make([]byte, 100), control, unix.MSG_CMSG_CLOEXEC)
		if err != nil || n == 0 {
			return
		}
		fds := parse(control[:used])
		if flags&unix.MSG_CTRUNC == 0 {
			closeAll(fds)
		}
		_, _ = unix.Write(fd, []byte("ok"))
		return
	}
	if broken == "hangs on slow" {
		for len(m.Payload) == 0 || m.Payload[0] != 0 && m.Payload[len(m.Payload)-1] != '\n' {
			if r.Receive(&m) != nil {
				return
			}
			m.Close()
		}
	} else if r.Receive(&m) != nil {
		return
	}
	switch {
	case broken == "leaks the second" && len(m.FDs) > 1:
		m.FDs = append(m.FDs[:1], m.FDs[2:]...)
	case broken == "crashes on many" && len(m.FDs) > 100:
		_ = unix.Kill(os.Getpid(), unix.SIGSEGV)
		os.Exit(2)
	case broken == "keeps the connection" && len(m.FDs) == 0:
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	}
	m.Close()
	_, _ = unix.Write(fd, []byte("ok"))
}

func parse(control []byte) (fds []int) {
	messages, _ := unix.ParseSocketControlMessage(control)
	for _, m := range messages {
		some, _ := unix.ParseUnixRights(&m)
		fds = append(fds, some...)
	}
	return fds
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// sender sends one descriptor to its standard output.
func sender(args []string) error {
	if args[0] == "crashes" {
		defer func() { _ = unix.Kill(os.Getpid(), unix.SIGKILL); time.Sleep(time.Second) }()
	}
	var calls interrupt.Calls
	if err := scm.NewSender(1, &calls).Send([]byte("here"), 2); err != nil && args[0] != "crashes" {
		return err
	}
	return nil
}

// tortured returns the results of all cases, by name.
func tortured(t *testing.T, e *torture.Endpoint, o torture.Options) map[string]torture.Result {
	t.Helper()
	o.Seed, o.Rounds = 1, max(o.Rounds, 1)
	if o.Timeout == 0 {
		o.Timeout = 500 * time.Millisecond
	}
	o.Wait = 2 * time.Second // what a crash costs
	results := map[string]torture.Result{}
	if err := torture.Run(e, o, func(r torture.Result) { results[r.Case] = r }); err != nil {
		t.Fatalf("Run: %v", err)
	}
	return results
}

// faults returns the cases in which there is one, with the verdict.
func faults(results map[string]torture.Result) (found []string) {
	for name, r := range results {
		if r.Verdict.Fault() {
			found = append(found, fmt.Sprintf("%s %s", r.Verdict, name))
		}
	}
	slices.Sort(found)
	return found
}

// TestReceivers holds that the fault of each broken receiver is found, in the cases that
// show it and in no other.
func TestReceivers(t *testing.T) {
	for broken, want := range map[string][]string{
		"in nothing":           nil,
		"leaks the second":     {"leaked many", "leaked spread", "leaked two"},
		"crashes on many":      {"crashed many"},
		"ignores truncation":   {"leaked many"},
		"hangs on slow":        {"hung slow-writer"},
		"keeps the connection": {"hung no-descriptor", "hung credentials", "hung split-last", "hung split-middle"},
	} {
		t.Run(strings.ReplaceAll(broken, " ", "-"), func(t *testing.T) {
			fdtest.NoLeaks(t)
			path := filepath.Join(t.TempDir(), "socket")
			program := fdtest.Program(t, "receiver", path, broken)
			if err := program.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = program.Wait() }()
			defer func() { _ = program.Process.Kill() }()
			e, err := torture.Open("unix:"+path, queue.Options{})
			if err != nil {
				t.Fatal(err)
			}
			results := tortured(t, e, torture.Options{})
			slices.Sort(want)
			if got := faults(results); !slices.Equal(got, want) {
				t.Errorf("receiver that is broken: %s: faults %q; want %q", broken, got, want)
				for _, one := range got {
					t.Logf("%+v", results[strings.Fields(one)[1]])
				}
			}
		})
	}
}

// TestSenders does the same for programs that are started, and send.
func TestSenders(t *testing.T) {
	t.Setenv("FDTEST_PROGRAM", "sender")
	t.Setenv("GORACE", "atexit_sleep_ms=0") // it is a second for each process otherwise
	for broken, all := range map[string]bool{"in nothing": false, "crashes": true} {
		fdtest.NoLeaks(t)
		e := torture.Program("/proc/self/exe", []string{"sender", broken}, unix.SOCK_STREAM)
		results := tortured(t, e, torture.Options{Sender: true})
		for name, r := range results {
			if want := all && r.Verdict != torture.Skipped; (r.Verdict == torture.Crashed) != want || !all && r.Verdict.Fault() {
				t.Errorf("sender that is broken: %s: case %s: %+v", broken, name, r)
			}
		}
	}
}

// TestStop holds that a run ends at once.
func TestStop(t *testing.T) {
	fdtest.NoLeaks(t)
	path := filepath.Join(t.TempDir(), "socket")
	e, err := torture.Open("unix-listen:"+path, queue.Options{})
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- torture.Run(e, torture.Options{Rounds: 1, Timeout: time.Minute, Wait: time.Hour, Stop: stop}, func(torture.Result) {})
	}()
	close(stop)
	if err := fdtest.Soon(t, "the end of Run", ended); !errors.Is(err, torture.ErrStopped) {
		t.Errorf("Run = %v; want ErrStopped", err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Errorf("%s is left behind", path)
	}
}
