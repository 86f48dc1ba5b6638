//go:build linux

package listen_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
	"fdkit/listen"
)

// keptOf returns copies of what others listen with.
func keptOf(t *testing.T, others ...*listen.Listener) *listen.Kept {
	t.Helper()
	kept := &listen.Kept{}
	for _, l := range others {
		dev, ino := l.File()
		kept.Add(fdtest.Dup(t, l.FD()).Take(), dev, ino)
	}
	t.Cleanup(func() { kept.Close(func(int) bool { return true }) })
	return kept
}

// accepting listens, and makes an Acceptor of that.
func accepting(t *testing.T, address string, o listen.Options) (*listen.Listener, *listen.Acceptor, error) {
	t.Helper()
	a, err := listen.ParseAddress(address)
	if err != nil {
		t.Fatal(err)
	}
	ls, err := listen.Listen(a, o)
	if err != nil {
		return nil, nil, err
	}
	acceptor, err := listen.NewAcceptor(ls, listen.Policy{}, listen.Events{})
	if err != nil {
		return nil, nil, err
	}
	t.Cleanup(acceptor.Close)
	return ls[0], acceptor, nil
}

func TestKept(t *testing.T) {
	dir := t.TempDir()
	for _, test := range []struct {
		old, address string // %d is the port of old
		o            listen.Options
		same         bool
		err          error // where it is not taken and cannot be bound
	}{
		{"127.0.0.1:0", "127.0.0.1:%d", listen.Options{}, true, nil},
		{"127.0.0.1:0", "localhost:%d", listen.Options{}, true, nil},
		{"127.0.0.1:0", "127.0.0.2:%d", listen.Options{}, false, nil},
		{"127.0.0.1:0", "127.0.0.1:0", listen.Options{}, false, nil},
		{"127.0.0.1:0", ":%d", listen.Options{}, false, unix.EADDRINUSE},
		{":0", ":%d", listen.Options{}, true, nil},
		{":0", ":%d", listen.Options{V6Only: true}, false, unix.EADDRINUSE},
		{"tcp4:127.0.0.1:0", "tcp:127.0.0.1:%d", listen.Options{}, true, nil},
		{"unix:" + dir + "/a", "unix:" + dir + "/../" + filepath.Base(dir) + "/a", listen.Options{}, true, nil},
		{"unix:" + dir + "/b", "unix:" + dir + "/c", listen.Options{}, false, nil},
		{"unix:@fdkit-test-kept-%d", "unix:@fdkit-test-kept-%d", listen.Options{}, true, nil},
	} {
		t.Run(test.old+" "+test.address, func(t *testing.T) {
			fdtest.NoLeaks(t)
			fill := func(text string, n int) string {
				if slices.Contains([]byte(text), '%') {
					return fmt.Sprintf(text, n)
				}
				return text
			}
			old := on(t, fill(test.old, os.Getpid()))
			n := int(old.Port())
			if n == 0 {
				n = os.Getpid()
			}
			o := test.o
			o.Kept = keptOf(t, old)
			l, _, err := accepting(t, fill(test.address, n), o)
			if test.err != nil {
				if !errors.Is(err, test.err) {
					t.Errorf("Listen(%s) = %v, want %v", test.address, err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatalf("Listen(%s) = %v, want nil", test.address, err)
			}
			if got := fdtest.SameFile(l.FD(), old.FD()); got != test.same {
				t.Errorf("Listen(%s) has the socket of %v: %v, want %v", test.address, old, got, test.same)
			}
		})
	}
}

// A socket that was taken has the options of its new owner, and none of those it had.
func TestKeptOptions(t *testing.T) {
	fdtest.NoLeaks(t)
	get := func(l *listen.Listener, level, name int) int {
		t.Helper()
		value, err := unix.GetsockoptInt(l.FD(), level, name)
		if err != nil {
			t.Fatalf("getsockopt(%d, %d) = %v", level, name, err)
		}
		return value
	}
	type option struct{ level, name int }
	all := []option{
		{unix.SOL_TCP, unix.TCP_NODELAY},
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE},
		{unix.SOL_TCP, unix.TCP_KEEPIDLE},
		{unix.SOL_TCP, unix.TCP_KEEPINTVL},
		{unix.SOL_TCP, unix.TCP_KEEPCNT},
		{unix.SOL_TCP, unix.TCP_DEFER_ACCEPT},
		{unix.SOL_TCP, unix.TCP_FASTOPEN},
		{unix.SOL_SOCKET, unix.SO_RCVBUF},
		{unix.SOL_SOCKET, unix.SO_SNDBUF},
	}
	many := listen.Options{
		NoDelay: true, KeepAlive: true, KeepAliveIdle: 11 * time.Second, KeepAliveInterval: 5 * time.Second, KeepAliveCount: 3,
		DeferAccept: time.Second, FastOpen: 9, RecvBuffer: 20000, SendBuffer: 20000,
	}
	fresh, _, err := accepting(t, "127.0.0.1:0", listen.Options{})
	if err != nil {
		t.Fatal(err)
	}
	old, _, err := accepting(t, "127.0.0.1:0", many)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range all {
		if get(fresh, o.level, o.name) == get(old, o.level, o.name) {
			t.Errorf("option %v is the same with and without being asked for", o)
		}
	}
	plain, _, err := accepting(t, old.String(), listen.Options{Kept: keptOf(t, old), KeepAlive: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range all {
		want := get(fresh, o.level, o.name)
		if o.name == unix.SO_KEEPALIVE && o.level == unix.SOL_SOCKET {
			want = 1
		}
		if got := get(plain, o.level, o.name); got != want {
			t.Errorf("option %v of a socket that was taken is %d, want %d", o, got, want)
		}
	}
	many.Kept = keptOf(t, old)
	again, _, err := accepting(t, old.String(), many)
	if err != nil {
		t.Fatal(err)
	}
	if got := get(again, unix.SOL_TCP, unix.TCP_KEEPIDLE); got != 11 {
		t.Errorf("TCP_KEEPIDLE of a socket that was taken is %d, want 11", got)
	}
}

// Who fails before it has begun leaves the other's file; who owns it removes it.
func TestKeptFile(t *testing.T) {
	fdtest.NoLeaks(t)
	path := filepath.Join(t.TempDir(), "s")
	old := on(t, "unix:"+path)
	exists := func(want bool) {
		t.Helper()
		if _, err := os.Lstat(path); (err == nil) != want {
			t.Errorf("Lstat(%s) = %v, want that it exists: %v", path, err, want)
		}
	}
	_, failing, err := accepting(t, "unix:"+path, listen.Options{Kept: keptOf(t, old)})
	if err != nil {
		t.Fatal(err)
	}
	failing.Close()
	exists(true)
	l, acceptor, err := accepting(t, "unix:"+path, listen.Options{Kept: keptOf(t, old), SocketMode: 0o640})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the file has mode %v, %v; want 0640", info.Mode(), err)
	}
	l.Own()
	_ = unix.Close(old.Take())
	exists(true)
	acceptor.Close()
	exists(false)

	// What no address is for is closed with its file, but if another process has it.
	for _, taken := range []bool{true, false} {
		other := on(t, "unix:"+path)
		kept := keptOf(t, other)
		_ = unix.Close(other.Take())
		addresses := kept.Close(func(int) bool { return taken })
		exists(taken)
		if want := map[bool]int{true: 0, false: 1}[taken]; len(addresses) != want {
			t.Errorf("Close() = %q, want %d", addresses, want)
		}
	}
}

// What is no listening socket of this user's or root's is closed at once.
func TestKeptAdd(t *testing.T) {
	fdtest.NoLeaks(t)
	var kept listen.Kept
	end, _ := fdtest.Pair(t, unix.SOCK_STREAM)
	kept.Add(end.Take(), 0, 0)
	if got := kept.Close(func(int) bool { return false }); got != nil {
		t.Errorf("Close() = %q, want none", got)
	}
}

// Leave leaves the sockets to others: their files, and O_NONBLOCK.
func TestAcceptorLeave(t *testing.T) {
	fdtest.NoLeaks(t)
	path := filepath.Join(t.TempDir(), "s")
	ls := []*listen.Listener{on(t, "unix:"+path), on(t, "127.0.0.1:0")} // two are polled
	copied := fdtest.Dup(t, ls[0].FD())
	acceptor, err := listen.NewAcceptor(ls, listen.Policy{}, listen.Events{})
	if err != nil {
		t.Fatal(err)
	}
	acceptor.Leave()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("Lstat(%s) = %v, want nil", path, err)
	}
	if flags, err := unix.FcntlInt(uintptr(copied.FD), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
		t.Errorf("fcntl(F_GETFL) = %#x, %v; want O_NONBLOCK as it was", flags, err)
	}
	if err := acceptor.Accept(&listen.Conn{}); !errors.Is(err, listen.ErrStopped) {
		t.Errorf("Accept() = %v, want %v", err, listen.ErrStopped)
	}
}
