//go:build linux

package unixpath_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
	"fdkit/internal/hint"
	"fdkit/internal/unixpath"
)

func TestMain(m *testing.M) {
	fdtest.Main(m, map[string]func([]string) error{"bind": func(args []string) error {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		return unixpath.Bind(fd, args[0], anyone, 8)
	}})
}

var anyone = unixpath.Access{UID: -1, GID: -1}

func socket(t *testing.T, typ int) *fdtest.End {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("socket: %v", err)
	}
	e := &fdtest.End{FD: fd}
	t.Cleanup(e.Close)
	return e
}

// bound returns a socket that is bound to path.
func bound(t *testing.T, typ int, path string) *fdtest.End {
	t.Helper()
	s := socket(t, typ)
	if err := unixpath.Bind(s.FD, path, anyone, 8); err != nil {
		t.Fatalf("Bind(%q) = %v, want nil", path, err)
	}
	return s
}

// reachable fails the test if a client cannot connect to path.
func reachable(t *testing.T, typ int, path string) {
	t.Helper()
	if err := unix.Connect(socket(t, typ).FD, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Errorf("connect(%q) = %v, want nil", path, err)
	}
}

func write(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestCheck(t *testing.T) {
	for _, test := range []struct{ path, want string }{
		{"/run/a.sock", ""},
		{"a", ""},
		{"@name", ""},
		{strings.Repeat("x", unixpath.MaxLen), ""},
		{"@" + strings.Repeat("x", unixpath.MaxLen-1), ""},
		{"", "the path is empty"},
		{"@", "the path is empty"},
		{"a\x00b", "NUL"},
		{strings.Repeat("x", unixpath.MaxLen+1), "the path has 108 bytes, a socket address holds 107"},
	} {
		err := unixpath.Check(test.path)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("Check(%q) = %v, want an error that says %q", test.path, err, test.want)
		}
	}
	if err := unixpath.Check(strings.Repeat("x", 200)); hint.Of(err) == "" {
		t.Errorf("Check of 200 bytes = %v without a hint, want one", err)
	}
}

var types = map[string]int{"stream": unix.SOCK_STREAM, "seqpacket": unix.SOCK_SEQPACKET, "dgram": unix.SOCK_DGRAM}

func TestBind(t *testing.T) {
	for name, typ := range types {
		t.Run(name, func(t *testing.T) {
			fdtest.NoLeaks(t)
			path := filepath.Join(t.TempDir(), "s")
			first := bound(t, typ, path)
			reachable(t, typ, path)
			for other, typ := range types {
				err := unixpath.Bind(socket(t, typ).FD, path, anyone, 8)
				if !errors.Is(err, unixpath.ErrLive) {
					t.Errorf("Bind of a %s socket where a %s one lives = %v, want ErrLive", other, name, err)
				}
			}
			reachable(t, typ, path)
			first.Close() // as if its holder was killed: the file is left
			if _, err := os.Lstat(path); err != nil {
				t.Fatalf("the socket file is gone: %v", err)
			}
			bound(t, typ, path)
			reachable(t, typ, path)
		})
	}
}

func TestBindLongestPath(t *testing.T) {
	for _, path := range []string{
		strings.Repeat("x", unixpath.MaxLen),
		"@fdkit" + strings.Repeat("x", unixpath.MaxLen-len("@fdkit")),
	} {
		t.Chdir(t.TempDir())
		bound(t, unix.SOCK_STREAM, path)
		reachable(t, unix.SOCK_STREAM, path)
	}
}

func TestBindAbstract(t *testing.T) {
	fdtest.NoLeaks(t)
	dir := t.TempDir()
	t.Chdir(dir)
	name := fmt.Sprintf("@fdkit-test-%d", os.Getpid())
	first := bound(t, unix.SOCK_SEQPACKET, name)
	reachable(t, unix.SOCK_SEQPACKET, name)
	if err := unixpath.Bind(socket(t, unix.SOCK_SEQPACKET).FD, name, anyone, 8); !errors.Is(err, unixpath.ErrLive) {
		t.Errorf("Bind of a name in use = %v, want ErrLive", err)
	}
	first.Close()
	bound(t, unix.SOCK_SEQPACKET, name)
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("an abstract name left files: %v, %v", entries, err)
	}
}

func TestBindRefuses(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "file"))
	if err := os.Symlink(filepath.Join(dir, "file"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		path string
		want error
	}{
		{"file", unixpath.ErrNotSocket},
		{"link", unixpath.ErrNotSocket},
		{"fifo", unixpath.ErrNotSocket},
		{".", unixpath.ErrNotSocket},
		{"no/such/directory", fs.ErrNotExist},
		{"file/s", unix.ENOTDIR},
	} {
		fdtest.NoLeaks(t)
		path := filepath.Join(dir, test.path)
		if err := unixpath.Bind(socket(t, unix.SOCK_STREAM).FD, path, anyone, 8); !errors.Is(err, test.want) {
			t.Errorf("Bind(%q) = %v, want %q", test.path, err, test.want)
		}
	}
	if text, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(text) != "precious" {
		t.Errorf("the file now has %q (%v), want it untouched", text, err)
	}
}

// A socket whose mode does not let us connect may be live: it is no stale one.
func TestBindOfAnotherUsersSocket(t *testing.T) {
	dir := openDir(t)
	path := filepath.Join(dir, "s")
	s := socket(t, unix.SOCK_STREAM)
	if err := unixpath.Bind(s.FD, path, unixpath.Access{Mode: 0o600, UID: -1, GID: -1}, 8); err != nil {
		t.Fatalf("Bind() = %v", err)
	}
	before, _ := unixpath.Identify(path)
	out, err := fdtest.AsNobody(t, fdtest.Program(t, "bind", path)).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "permission denied") {
		t.Errorf("Bind as another user = %v: %s; want an error that says permission denied", err, out)
	}
	if after, err := unixpath.Identify(path); after != before {
		t.Errorf("the socket file is now %v (%v), want %v", after, err, before)
	}
}

// openDir returns a directory in which everybody may make files.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "fdkit-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestMode(t *testing.T) {
	old := syscall.Umask(0)
	t.Cleanup(func() { syscall.Umask(old) })
	for _, umask := range []int{0, 0o022, 0o077, 0o777} {
		for _, mode := range []fs.FileMode{0o600, 0o660, 0o666, 0o622, 0o777, 0o200, 0} {
			want := mode
			if mode == 0 {
				want = 0o777 &^ fs.FileMode(umask)
			}
			path := filepath.Join(t.TempDir(), "s")
			s := socket(t, unix.SOCK_STREAM)
			syscall.Umask(umask)
			err := unixpath.Bind(s.FD, path, unixpath.Access{Mode: mode, UID: -1, GID: -1}, 8)
			syscall.Umask(old)
			if err != nil {
				t.Fatalf("Bind() = %v", err)
			}
			if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != want {
				t.Errorf("Bind with mode %04o and umask %03o makes %v (%v), want %04o", mode, umask, info.Mode(), err, want)
			}
		}
	}
}

func TestOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	s := socket(t, unix.SOCK_STREAM)
	err := unixpath.Bind(s.FD, path, unixpath.Access{Mode: 0o660, UID: fdtest.Nobody, GID: 4242}, 8)
	if os.Geteuid() != 0 {
		if _, statErr := os.Lstat(path); !errors.Is(err, fs.ErrPermission) || statErr == nil {
			t.Errorf("Bind for another owner = %v, want permission denied and no file", err)
		}
		return
	}
	if err != nil {
		t.Fatalf("Bind() = %v", err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil || st.Uid != fdtest.Nobody || st.Gid != 4242 || st.Mode&0o777 != 0o660 {
		t.Errorf("the file has uid %d, gid %d, mode %04o (%v); want %d, 4242, 0660", st.Uid, st.Gid, st.Mode&0o777, err, fdtest.Nobody)
	}
}

func TestConcurrentBinders(t *testing.T) {
	const binders, rounds = 20, 30
	for name, stale := range map[string]bool{"fresh": false, "stale": true} {
		t.Run(name, func(t *testing.T) {
			fdtest.NoLeaks(t)
			for range rounds {
				path := filepath.Join(t.TempDir(), "s")
				if stale {
					bound(t, unix.SOCK_STREAM, path).Close()
				}
				var group sync.WaitGroup
				var won atomic.Int32
				begin := make(chan struct{})
				for range binders {
					s := socket(t, unix.SOCK_STREAM)
					group.Go(func() {
						<-begin
						switch err := unixpath.Bind(s.FD, path, anyone, binders); {
						case err == nil:
							won.Add(1)
						case !errors.Is(err, unixpath.ErrLive):
							t.Errorf("Bind() = %v, want nil or ErrLive", err)
						}
					})
				}
				close(begin)
				group.Wait()
				if won.Load() != 1 {
					t.Fatalf("%d of %d binders have won, want 1", won.Load(), binders)
				}
				reachable(t, unix.SOCK_STREAM, path)
			}
		})
	}
}

func TestProbe(t *testing.T) {
	fdtest.NoLeaks(t)
	dir := t.TempDir()
	asking := socket(t, unix.SOCK_STREAM)
	bound(t, unix.SOCK_STREAM, filepath.Join(dir, "live"))
	bound(t, unix.SOCK_DGRAM, filepath.Join(dir, "other"))
	bound(t, unix.SOCK_STREAM, filepath.Join(dir, "stale")).Close()
	write(t, filepath.Join(dir, "file"))
	full := socket(t, unix.SOCK_STREAM)
	if err := unixpath.Bind(full.FD, filepath.Join(dir, "full"), anyone, 0); err != nil {
		t.Fatal(err)
	}
	reachable(t, unix.SOCK_STREAM, filepath.Join(dir, "full")) // its backlog is full now
	for name, want := range map[string]error{
		"live": nil, "other": nil, "full": nil, "stale": unixpath.ErrStale, "file": unixpath.ErrNotSocket, "none": fs.ErrNotExist,
	} {
		if err := unixpath.Probe(filepath.Join(dir, name), asking.FD); !errors.Is(err, want) {
			t.Errorf("Probe(%q) = %v, want %v", name, err, want)
		}
	}
}

func TestRemove(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	first := bound(t, unix.SOCK_STREAM, path)
	id, err := unixpath.Identify(path)
	if err != nil {
		t.Fatalf("Identify() = %v", err)
	}
	// Kept, so that its inode is not given to the next file.
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	bound(t, unix.SOCK_STREAM, path)
	unixpath.Remove(path, id)
	reachable(t, unix.SOCK_STREAM, path)
	unixpath.Remove(path+".old", id)
	if _, err := os.Lstat(path + ".old"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Lstat after Remove of the same file = %v, want that it does not exist", err)
	}
	unixpath.Remove(path+".old", id) // nothing there: no harm
	first.Close()
}

func TestLock(t *testing.T) {
	fdtest.NoLeaks(t)
	path := filepath.Join(t.TempDir(), "s")
	unlock, err := unixpath.Lock(path)
	if err != nil {
		t.Fatalf("Lock() = %v", err)
	}
	bind := make(chan error, 1)
	s := socket(t, unix.SOCK_STREAM)
	go func() { bind <- unixpath.Bind(s.FD, path, anyone, 8) }()
	fdtest.Eventually(t, "Bind waits for the lock", func() bool { return fdtest.Inside("time.Sleep", "unixpath.Lock", "unixpath.Bind") })
	if _, err := os.Lstat(path); err == nil {
		t.Error("Bind made the file while another holds the lock")
	}
	unlock()
	if err := fdtest.Soon(t, "Bind returns", bind); err != nil {
		t.Errorf("Bind() = %v, want nil", err)
	}
	if _, err := unixpath.Lock(filepath.Join(path, "x", "s")); err == nil {
		t.Error("Lock in a directory that is none = nil, want an error")
	}
}
