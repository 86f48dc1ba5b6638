//go:build linux

package relay

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
	"fdkit/internal/proto"
	"fdkit/internal/scm"
	"fdkit/internal/unixpath"
)

func TestMain(m *testing.M) {
	fdtest.Main(m, map[string]func([]string) error{"relay": relayProgram, "client": clientProgram})
}

// relayProgram relays between two paths, until it is killed.
func relayProgram(args []string) error {
	r, err := Listen(Endpoint{Path: args[0]}, Endpoint{Path: args[1]}, unixpath.Access{Mode: 0o666, UID: -1, GID: -1}, Events{
		Opened: func(*Conn) {}, Closed: func(*Conn) {}, Ended: func(*Conn, proto.Direction) {}, Failed: func(*Conn, error) {},
		Message: func(*Conn, proto.Direction, *scm.Message) {},
		Notice:  func(err error) { _, _ = os.Stdout.WriteString(err.Error() + "\n") },
	})
	if err == nil {
		err = os.WriteFile(strings.TrimPrefix(args[0], "@")+".ready", nil, 0o666)
	}
	if err != nil {
		return err
	}
	return r.Serve()
}

// clientProgram connects, sends a byte and waits for the end.
func clientProgram(args []string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: args[0]})
	}
	if err == nil {
		_, err = unix.Write(fd, []byte("x"))
	}
	if err == nil {
		_, err = unix.Read(fd, make([]byte, 1))
	}
	return err
}

// who tells what a server learns of a client: who has connected, and who has sent.
func who(t *testing.T, target int) (connected unix.Ucred, sent scm.Credentials) {
	t.Helper()
	fd := accept(t, target)
	defer unix.Close(fd)
	peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		t.Fatal(err)
	}
	receive, err := scm.NewExactReceiver(fd)
	if err != nil {
		t.Fatal(err)
	}
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	_, _ = poll(fds)
	var m scm.Message
	if came, err := receive.Receive(&m); !came || err != nil || m.Sender == nil {
		t.Fatalf("the server receives %t, %v, %v", came, m.Sender, err)
	}
	return *peer, *m.Sender
}

// startRelay starts the relay as a program, perhaps not root's or with an abstract name. It
// returns the relay's path, and a socket that listens at the target.
func startRelay(t *testing.T, asNobody, abstract bool) (path string, relay *exec.Cmd, target int) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "relay") // which every user can reach
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path, at, ready := filepath.Join(dir, "tap"), filepath.Join(dir, "target"), filepath.Join(dir, "tap.ready")
	target = serve(t, unix.SOCK_STREAM, at)
	// What SO_PASSCRED of the listening socket is, the accepted ones inherit.
	if err := errors.Join(os.Chmod(dir, 0o777), os.Chmod(at, 0o666), scm.PassCredentials(target)); err != nil {
		t.Fatal(err)
	}
	if abstract {
		path = "@" + path
	}
	relay = fdtest.Program(t, "relay", path, at)
	if asNobody {
		fdtest.AsNobody(t, relay)
	}
	if err := relay.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = relay.Process.Kill(), relay.Wait() })
	fdtest.Eventually(t, "the relay listens", func() bool {
		_, err := os.Lstat(ready)
		return err == nil
	})
	return path, relay, target
}

// TestWho has clients and relays of two users.
func TestWho(t *testing.T) {
	fdtest.NeedsRoot(t)
	for _, c := range []struct {
		name              string
		relayNot, userNot bool // not root's
		abstract          bool // the relay's name
		uid               int  // that the server sees
		pid               bool // that of the client is seen with its message
	}{
		{name: "root for root", uid: 0, pid: true},
		{name: "root for nobody", userNot: true, uid: fdtest.Nobody, pid: true},
		{name: "nobody for nobody", relayNot: true, userNot: true, uid: fdtest.Nobody},
		{name: "nobody for root", relayNot: true, uid: fdtest.Nobody},
		{name: "an abstract name, nobody", userNot: true, abstract: true, uid: fdtest.Nobody, pid: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			fdtest.NoLeaks(t)
			path, relay, target := startRelay(t, c.relayNot, c.abstract)
			client := fdtest.Program(t, "client", path)
			if c.userNot {
				fdtest.AsNobody(t, client)
			}
			if err := client.Start(); err != nil {
				t.Fatal(err)
			}
			connected, sent := who(t, target)
			if err := client.Wait(); err != nil {
				t.Errorf("the client: %v", err)
			}
			if int(connected.Uid) != c.uid || int(connected.Gid) != c.uid || sent.UID != c.uid || sent.GID != c.uid {
				t.Errorf("connected: %+v, sent: %+v; want uid and gid %d", connected, sent, c.uid)
			}
			if int(connected.Pid) != relay.Process.Pid {
				t.Errorf("connected by process %d; want the relay, %d", connected.Pid, relay.Process.Pid)
			}
			if want := map[bool]int{true: client.Process.Pid, false: relay.Process.Pid}[c.pid]; sent.PID != want {
				t.Errorf("sent by process %d; want %d", sent.PID, want)
			}
		})
	}
}

// TestAbstract holds that an abstract name, which has no permissions, lets no other user
// in as the relay's own.
func TestAbstract(t *testing.T) {
	fdtest.NeedsRoot(t)
	path, _, target := startRelay(t, true, true)
	client := fdtest.AsNobody(t, fdtest.Program(t, "client", path))
	client.SysProcAttr.Credential.Uid = 12345
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- client.Wait() }()
	fdtest.Soon(t, "the end of the client's connection", ended)
	fds := []unix.PollFd{{Fd: int32(target), Events: unix.POLLIN}}
	if n, _ := unix.Poll(fds, 0); n > 0 {
		t.Error("user 12345 is let in")
	}
}

// TestOnOwnThread holds that only one thread becomes another user's, and that it ends.
func TestOnOwnThread(t *testing.T) {
	fdtest.NeedsRoot(t)
	onOwnThread(func() {
		if err := become(&unix.Ucred{Uid: fdtest.Nobody, Gid: fdtest.Nobody}, nil); err != nil {
			t.Error(err)
		}
		if err := become(&unix.Ucred{Uid: 12345, Gid: 12345}, nil); err == nil {
			t.Error("a thread without privileges becomes another user's")
		}
	})
	fdtest.Eventually(t, "all threads are root's", func() bool {
		statuses, _ := filepath.Glob("/proc/self/task/*/status")
		for _, file := range statuses {
			if status, err := os.ReadFile(file); err == nil && !strings.Contains(string(status), "\nUid:\t0\t0\t0\t0\n") {
				return false
			}
		}
		return len(statuses) > 0
	})
}
