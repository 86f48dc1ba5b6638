//go:build linux

package queue

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
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
	"fdkit/internal/hint"
	"fdkit/internal/interrupt"
	"fdkit/internal/scm"
	"fdkit/internal/unixpath"
)

func aPath(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "q")
}

// openDir returns a directory that everybody can use.
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

func present(t *testing.T, path string, want bool) {
	t.Helper()
	_, err := os.Lstat(path)
	if want && err != nil || !want && !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Lstat(%s) = %v, want that it is there: %v", path, err, want)
	}
}

// names returns a path and an abstract name.
func names(t *testing.T) map[string]string {
	return map[string]string{"path": aPath(t), "abstract": fmt.Sprintf("@fdkit-test-%d-%s", os.Getpid(), strings.ReplaceAll(t.Name(), "/", "-"))}
}

func TestNamed(t *testing.T) {
	for kind, name := range names(t) {
		for _, order := range []string{"sender first", "receiver first"} {
			t.Run(kind+", "+order, func(t *testing.T) {
				fdtest.NoLeaks(t)
				var s, r *side
				if order == "sender first" {
					s = openToSend(t, name, Options{})
					s.send(t, "early")
					r = openToReceive(t, name, Options{})
				} else {
					r = openToReceive(t, name, Options{})
					s = openToSend(t, name, Options{})
					s.send(t, "early")
				}
				r.receive(t, "early")
				if s.Gone() != nil {
					t.Error("Gone() of a named queue is a channel, want nil")
				}
				s.send(t, "one")
				s.send(t, "two")
				if kind == "path" {
					if info, err := os.Lstat(name); err != nil || info.Mode().Perm() != 0o600 {
						t.Errorf("the socket file has mode %v (%v), want 0600", info.Mode(), err)
					}
				}
				s.close(t, 0) // the receiver holds what is queued
				r.receive(t, "one")
				s = openToSend(t, name, Options{})
				s.send(t, "three")
				r.close(t, 0)
				if kind == "path" {
					present(t, name, true)
				}
				r = openToReceive(t, name, Options{})
				r.receive(t, "two")
				r.close(t, 0)
				s.close(t, 1) // nobody else is left for the third
				if kind == "path" {
					present(t, name, false)
				}
			})
		}
	}
}

func TestNamedRelative(t *testing.T) {
	fdtest.NoLeaks(t)
	t.Chdir(t.TempDir())
	s := openToSend(t, "q", Options{})
	r := openToReceive(t, "./q", Options{})
	s.send(t, "one")
	r.receive(t, "one")
}

func TestNamedLost(t *testing.T) {
	fdtest.NoLeaks(t)
	path := aPath(t)
	s := openToSend(t, path, Options{})
	read, write := fdtest.Pipe(t)
	for range 3 {
		if err := s.Send([]byte("x"), write.FD, write.FD); err != nil {
			t.Fatalf("Send() = %v", err)
		}
	}
	write.Close()
	s.close(t, 3)
	present(t, path, false)
	// Their descriptors were closed with them.
	if n, err := unix.Read(read.FD, make([]byte, 1)); n != 0 || err != nil {
		t.Errorf("read of a pipe whose writing end was in the queue = %d, %v; want its end", n, err)
	}
}

// The queue, what is in it and its path survive whoever made it.
func TestNamedSurvivesItsMaker(t *testing.T) {
	for _, end := range []string{"kill", "close"} {
		t.Run(end, func(t *testing.T) {
			fdtest.NoLeaks(t)
			path := aPath(t)
			maker := join(t, "send", path, nil)
			maker.ask("send one", "sent <nil>")
			second := openToReceive(t, path, Options{})
			maker.ask("send two", "sent <nil>")
			if end == "close" {
				maker.ask("close", "closed, lost 0, <nil>")
			}
			maker.kill()
			present(t, path, true)
			third := join(t, "receive", path, nil)
			third.ask("receive", "received one with 1, <nil>")
			second.close(t, 0)
			fourth := openToSend(t, path, Options{})
			fourth.send(t, "three")
			third.ask("receive", "received two with 1, <nil>")
			third.ask("receive", "received three with 1, <nil>")
			third.kill()
			fourth.close(t, 0)
			present(t, path, false)
		})
	}
}

// All have been killed: the file is stale, and the next one makes the queue anew.
func TestNamedStale(t *testing.T) {
	fdtest.NoLeaks(t)
	path := aPath(t)
	maker := join(t, "receive", path, nil)
	maker.kill()
	present(t, path, true)
	inTime(t, "waiting for somebody to make the queue", func() {
		refused(t, OpenReceive, path, Options{Wait: 30 * time.Millisecond}, "nobody has made the queue")
	})
	s := openToSend(t, path, Options{})
	r := join(t, "receive", path, nil)
	s.send(t, "one")
	r.ask("receive", "received one with 1, <nil>")
	r.ask("close", "closed, lost 0, <nil>")
	s.close(t, 0)
	present(t, path, false)
}

// One that was stale in one's own hands is not removed from under the next.
func TestNamedCloseOfReplacedPath(t *testing.T) {
	fdtest.NoLeaks(t)
	path := aPath(t)
	old := openToSend(t, path, Options{})
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	r := openToReceive(t, path, Options{})
	old.close(t, 0)
	s := openToSend(t, path, Options{})
	s.send(t, "one")
	r.receive(t, "one")
}

func TestNamedRefused(t *testing.T) {
	fdtest.NoLeaks(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	foreign := func(name string, typ int) {
		fd, err := unix.Socket(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		if err := unixpath.Bind(fd, filepath.Join(dir, name), unixpath.Access{UID: -1, GID: -1}, 8); err != nil {
			t.Fatal(err)
		}
	}
	foreign("stream", unix.SOCK_STREAM)
	foreign("silent", unix.SOCK_SEQPACKET)
	for _, test := range []struct{ name, want, hint string }{
		{"file", "exists and is not a socket", ""},
		{".", "exists and is not a socket", ""},
		{"no/such/directory", "no such file or directory", ""},
		{"stream", "another program serves this path", "unix:" + dir + "/stream"},
		{"silent", "nobody answers there", "kill -CONT"},
	} {
		path := filepath.Join(dir, test.name)
		wait := Options{}
		if test.name == "silent" {
			wait.Wait = 100 * time.Millisecond
		}
		inTime(t, "opening "+test.name, func() {
			refused(t, OpenSend, path, wait, "cannot open queue "+path+": ")
			q, err := OpenReceive(path, wait)
			if err == nil {
				_, _ = q.Close()
			}
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(hint.Of(err), test.hint) {
				t.Errorf("OpenReceive(%s) = %v with hint %q, want an error that says %q, with hint %q", test.name, err, hint.Of(err), test.want, test.hint)
			}
		})
	}
	if text, err := os.ReadFile(filepath.Join(dir, "file")); string(text) != "precious" {
		t.Errorf("the file now has %q (%v), want it untouched", text, err)
	}
}

// answering is a foreign program that answers whoever comes.
func answering(t *testing.T, reply string, fds ...int) string {
	t.Helper()
	path := aPath(t)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unixpath.Bind(fd, path, unixpath.Access{UID: -1, GID: -1}, 8); err != nil {
		t.Fatal(err)
	}
	d := &door{answer: func(int, []byte) ([]byte, []int, func()) { return []byte(reply), fds, nil }}
	d.open(fd)
	t.Cleanup(func() {
		d.shut()
		_ = unix.Close(fd)
	})
	return path
}

func TestNamedForeignAnswers(t *testing.T) {
	grant := scm.Begin + attachedVar + "=\x00" + fdNamesVar + "=" + namedFDNames + "\x00"
	for _, test := range []struct {
		about, reply, want string
		fds                []int
	}{
		{"nonsense", "hello", "who answers there is no fdkit command", nil},
		{"nonsense with descriptors", "hello", "who answers there is no fdkit command", []int{2, 2, 2, 2}},
		{"too few descriptors", grant, "who answers there is no fdkit command", []int{2, 2, 2}},
		{"too many descriptors", grant, "who answers there is no fdkit command", []int{2, 2, 2, 2, 2}},
		{"a refusal", scm.Begin + refusedVar + "=not you\x00", "refused: not you", nil},
		{"a refusal with descriptors", scm.Begin + refusedVar + "=not you\x00", "refused: not you", []int{2, 2}},
	} {
		t.Run(test.about, func(t *testing.T) {
			fdtest.NoLeaks(t)
			path := answering(t, test.reply, test.fds...)
			refused(t, OpenSend, path, Options{Wait: 20 * time.Second}, test.want)
		})
	}
}

// Many come at once to a path where nothing is: they all have the same queue.
func TestNamedAllAtOnce(t *testing.T) {
	for kind, name := range names(t) {
		for _, stale := range []bool{false, true} {
			if stale && kind == "abstract" {
				continue // such a name is never stale
			}
			t.Run(fmt.Sprintf("%s, stale %v", kind, stale), func(t *testing.T) {
				fdtest.NoLeaks(t)
				if stale {
					join(t, "receive", name, nil).kill()
				}
				const many = 20
				queues := make([]*Queue, many)
				var group sync.WaitGroup
				begin := make(chan struct{})
				for i := range many {
					group.Go(func() {
						<-begin
						var err error
						open := []func(string, Options) (*Queue, error){OpenSend, OpenReceive}[i%2]
						if queues[i], err = open(name, Options{}); err != nil {
							t.Errorf("opening %s, number %d = %v, want nil", name, i, err)
						}
					})
				}
				close(begin)
				group.Wait()
				for i, q := range queues {
					if q != nil && queues[i%2] != nil && !fdtest.SameFile(q.FD, queues[i%2].FD) {
						t.Errorf("number %d has another queue than number %d", i, i%2)
					}
				}
				var lost atomic.Int64
				for _, q := range queues {
					if q != nil {
						group.Go(func() {
							n, err := q.Close()
							if lost.Add(int64(n)); err != nil {
								t.Errorf("Close() = %v", err)
							}
						})
					}
				}
				group.Wait()
				if kind == "path" {
					present(t, name, false)
				}
				if lost.Load() != 0 {
					t.Errorf("%d messages were lost, want 0", lost.Load())
				}
			})
		}
	}
}

// Senders and receivers come and go; all that was sent is received, or said to be
// lost.
func TestNamedChurn(t *testing.T) {
	fdtest.NoLeaks(t)
	path := aPath(t)
	var sent, received, lost atomic.Int64
	leave := func(q *Queue) {
		n, err := q.Close()
		if lost.Add(int64(n)); err != nil {
			t.Errorf("Close() = %v", err)
		}
	}
	var senders, receivers sync.WaitGroup
	stop := make(chan struct{})
	for range 3 {
		receivers.Go(func() {
			for last := false; !last; {
				q, err := OpenReceive(path, Options{})
				if err != nil {
					t.Errorf("OpenReceive() = %v", err)
					return
				}
				r := scm.NewReceiver(q.FD, &q.Calls)
				var m scm.Message
				for range 5 {
					came, err := r.ReceiveNow(&m)
					if err != nil {
						t.Errorf("ReceiveNow() = %v", err)
					}
					if came {
						received.Add(1)
						m.Close()
					}
				}
				leave(q)
				select {
				case <-stop:
					last = true
				default:
				}
			}
		})
		senders.Go(func() {
			for range 20 {
				q, err := OpenSend(path, Options{})
				if err != nil {
					t.Errorf("OpenSend() = %v", err)
					return
				}
				s := scm.NewSender(q.FD, &q.Calls)
				for range 3 {
					if err := s.Send([]byte("x"), 2); err != nil {
						t.Errorf("Send() = %v", err)
					}
					sent.Add(1)
				}
				leave(q)
			}
		})
	}
	senders.Wait()
	close(stop)
	receivers.Wait()
	present(t, path, false)
	if sent.Load() != received.Load()+lost.Load() {
		t.Errorf("%d messages sent, %d received, %d said to be lost; want the sum", sent.Load(), received.Load(), lost.Load())
	}
}

func TestPolicy(t *testing.T) {
	a, _ := fdtest.Pair(t, unix.SOCK_SEQPACKET) // its peer, this process, may have further groups
	for _, test := range []struct {
		mode         fs.FileMode
		uid, gid     int // of the queue
		byUID, byGID uint32
		want         bool
	}{
		{mode: 0o600, uid: 1000, gid: 100, byUID: 1000, byGID: 100, want: true},
		{mode: 0o600, uid: 1000, gid: 100, byUID: 1001, byGID: 100, want: false},
		{mode: 0o600, uid: 1000, gid: 100, byUID: 1001, byGID: 101, want: false},
		{mode: 0o600, uid: 1000, gid: 100, byUID: 0, byGID: 0, want: true},
		{mode: 0o000, uid: 1000, gid: 100, byUID: 0, byGID: 0, want: true},
		{mode: 0o000, uid: 1000, gid: 100, byUID: 1000, byGID: 100, want: false},
		{mode: 0o400, uid: 1000, gid: 100, byUID: 1000, byGID: 100, want: false},
		{mode: 0o660, uid: 1000, gid: 100, byUID: 1001, byGID: 100, want: true},
		{mode: 0o640, uid: 1000, gid: 100, byUID: 1001, byGID: 100, want: false},
		{mode: 0o660, uid: 1000, gid: 100, byUID: 1001, byGID: 101, want: false},
		{mode: 0o666, uid: 1000, gid: 100, byUID: 1001, byGID: 101, want: true},
		{mode: 0o602, uid: 1000, gid: 100, byUID: 1001, byGID: 101, want: true},
		{mode: 0o602, uid: 1000, gid: 100, byUID: 1001, byGID: 100, want: false}, // as for files: the group's bits alone
		{mode: 0o066, uid: 1000, gid: 100, byUID: 1000, byGID: 100, want: false}, // and the owner's
		{mode: 0o755, uid: 1000, gid: 100, byUID: 1001, byGID: 100, want: false},
	} {
		p := policy{mode: test.mode, uid: test.uid, gid: test.gid}
		if got := p.admits(a.FD, &unix.Ucred{Uid: test.byUID, Gid: test.byGID}); got != test.want {
			t.Errorf("a queue with mode %04o, uid %d, gid %d admits uid %d, gid %d: %v, want %v",
				test.mode, test.uid, test.gid, test.byUID, test.byGID, got, test.want)
		}
	}
}

// What another user may.
func TestNamedOtherUser(t *testing.T) {
	fdtest.NeedsRoot(t)
	group, user := 4242, fdtest.Nobody
	for _, test := range []struct {
		about  string
		o      Options
		groups []uint32
		path   string // what the other one is told, "open" if nothing stands against it
		name   string // for an abstract name
	}{
		{"0600", Options{}, nil, "permission denied", "refused: uid 65534 may not attach"},
		{"0660", Options{Mode: 0o660}, nil, "permission denied", "refused: uid 65534 may not attach"},
		{"0666", Options{Mode: 0o666}, nil, "open", "open"},
		{"0660, its group", Options{Mode: 0o660, GID: &group}, []uint32{1, 4242}, "open", "open"},
		{"0660, another group", Options{Mode: 0o660, GID: &group}, []uint32{1, 4241}, "permission denied", "refused: uid 65534 may not attach"},
		{"0600, its own", Options{UID: &user}, nil, "open", "open"},
	} {
		for kind, want := range map[string]string{"path": test.path, "abstract": test.name} {
			t.Run(test.about+", "+kind, func(t *testing.T) {
				fdtest.NoLeaks(t)
				name := filepath.Join(openDir(t), "q")
				if kind == "abstract" {
					name = names(t)["abstract"]
				}
				s := openToSend(t, name, test.o)
				other, line := start(t, "receive", name, asNobody(t, test.groups...))
				if want != "open" {
					if !strings.HasPrefix(line, "error: ") || !strings.Contains(line, want) {
						t.Errorf("the other user is told %q, want an error that says %q", line, want)
					}
					return
				}
				if line != "open" {
					t.Fatalf("the other user is told %q, want %q", line, "open")
				}
				s.send(t, "one")
				other.ask("receive", "received one with 1, <nil>")
				// The other one can go on alone, and lets us in again.
				s.send(t, "two")
				s.close(t, 0)
				r := openToReceive(t, name, Options{UID: &user})
				r.receive(t, "two")
			})
		}
	}
}

// A queue that another user has made is not trusted unless one says so.
func TestNamedMadeByAnotherUser(t *testing.T) {
	fdtest.NoLeaks(t)
	name := filepath.Join(openDir(t), "q")
	join(t, "send", name, asNobody(t)).ask("send one", "sent <nil>")
	_, err := OpenReceive(name, Options{})
	if err == nil || !strings.Contains(err.Error(), "it was made by uid 65534") || !strings.Contains(hint.Of(err), "--owner 65534") {
		t.Errorf("OpenReceive() = %v with hint %q, want an error that names uid 65534, with a hint to --owner", err, hint.Of(err))
	}
	user := fdtest.Nobody
	openToReceive(t, name, Options{UID: &user}).receive(t, "one")
}

func stop(t *testing.T, p *participant) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	stat := fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid)
	fdtest.Eventually(t, "the participant is stopped", func() bool {
		text, err := os.ReadFile(stat)
		_, after, _ := strings.Cut(string(text), ") ")
		return err == nil && strings.HasPrefix(after, "T")
	})
}

// A participant that hangs does not keep others out.
func TestNamedHungParticipant(t *testing.T) {
	fdtest.NoLeaks(t)
	path := aPath(t)
	hung := join(t, "send", path, nil)
	live := openToSend(t, path, Options{})
	stop(t, hung)
	for i := range 3 {
		inTime(t, "attaching beside a participant that hangs", func() {
			r := openToReceive(t, path, Options{})
			live.send(t, fmt.Sprint(i))
			r.receive(t, fmt.Sprint(i))
			r.close(t, 0)
		})
	}
}

func TestNamedAllHung(t *testing.T) {
	fdtest.NoLeaks(t)
	path := aPath(t)
	hung := join(t, "send", path, nil)
	hung.ask("send one", "sent <nil>")
	stop(t, hung)
	inTime(t, "waiting for a participant that hangs", func() {
		refused(t, OpenReceive, path, Options{Wait: 100 * time.Millisecond}, "nobody answers there")
	})
	type result struct {
		q   *Queue
		err error
	}
	opened := make(chan result, 1)
	noticed := make(chan string, 10)
	go func() {
		q, err := OpenReceive(path, Options{Notice: func(text string) { noticed <- text }})
		opened <- result{q, err}
	}()
	if text := fdtest.Soon(t, "the notice", noticed); !strings.Contains(text, "nobody answers there") {
		t.Errorf("the notice is %q, want one that says %q", text, "nobody answers there")
	}
	if err := hung.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	got := fdtest.Soon(t, "the queue is open", opened)
	if got.err != nil {
		t.Fatalf("OpenReceive() = %v, want nil", got.err)
	}
	newSide(t, got.q).receive(t, "one")
	if len(noticed) > 0 {
		t.Errorf("there is a second notice, %q; want one only", <-noticed)
	}
}

func TestNamedWait(t *testing.T) {
	kinds := names(t)
	kinds["stale path"] = aPath(t)
	for kind, name := range kinds {
		t.Run(kind, func(t *testing.T) {
			fdtest.NoLeaks(t)
			if kind == "stale path" {
				join(t, "send", name, nil).kill()
			}
			inTime(t, "waiting for somebody to make the queue", func() {
				refused(t, OpenReceive, name, Options{Wait: 30 * time.Millisecond}, "nobody has made the queue")
			})
			if kind == "path" {
				present(t, name, false)
			}
			opened := make(chan error, 1)
			var r *Queue
			go func() {
				var err error
				r, err = OpenReceive(name, Options{Wait: time.Minute})
				opened <- err
			}()
			s := openToSend(t, name, Options{})
			s.send(t, "one")
			if err := fdtest.Soon(t, "the receiver has its queue", opened); err != nil {
				t.Fatalf("OpenReceive() = %v, want nil", err)
			}
			newSide(t, r).receive(t, "one")
		})
	}
}

func TestNamedModeAndOwner(t *testing.T) {
	path := aPath(t)
	o := Options{Mode: 0o660}
	group := os.Getegid()
	if os.Geteuid() == 0 {
		group = 4242
	}
	o.GID = &group
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	openToSend(t, path, o)
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil || st.Mode&0o777 != 0o660 || int(st.Gid) != group || int(st.Uid) != os.Geteuid() {
		t.Errorf("the socket file has mode %04o, uid %d, gid %d (%v); want 0660, %d, %d", st.Mode&0o777, st.Uid, st.Gid, err, os.Geteuid(), group)
	}
}

// Probes and others that say nothing, or too much, do not disturb the queue.
func TestNamedNuisances(t *testing.T) {
	fdtest.NoLeaks(t)
	path := aPath(t)
	s := openToSend(t, path, Options{})
	for range 10 {
		conn, err := connectSeqpacket(path)
		if err != nil {
			t.Fatal(err)
		}
		_ = unix.Close(conn)
	}
	for _, request := range []string{"hello", scm.Begin, scm.Begin + "X=y\x00", strings.Repeat("x", 3000)} {
		conn, err := connectSeqpacket(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Sendmsg(conn, []byte(request), unix.UnixRights(2, 2, 2), nil, 0); err != nil {
			t.Fatal(err)
		}
		reply, fds, err := receiveWithin(new(interrupt.Calls), conn, fdtest.Limit)
		if reason, _ := scm.Var(reply, refusedVar); err != nil || len(fds) != 0 || reason == "" {
			t.Errorf("the request %.20q is answered with %q, %d descriptors, %v; want a refusal", request, reply, len(fds), err)
		}
		_ = unix.Close(conn)
	}
	r := openToReceive(t, path, Options{})
	s.send(t, "one")
	r.receive(t, "one")
}
