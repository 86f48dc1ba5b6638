//go:build linux

package queue

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
	"fdkit/internal/interrupt"
	"fdkit/internal/scm"
	"fdkit/internal/unixpath"
)

// foreignServer is a program that serves path.
func foreignServer(t *testing.T, typ int, path string) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unixpath.Bind(fd, path, unixpath.Access{UID: -1, GID: -1}, 8); err != nil {
		t.Fatalf("Bind(%s) = %v", path, err)
	}
	return fd
}

func foreignAccept(t *testing.T, server int) *fdtest.End {
	t.Helper()
	fd, _, err := unix.Accept4(server, unix.SOCK_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	e := &fdtest.End{FD: fd}
	t.Cleanup(e.Close)
	return e
}

// over makes a side of a foreign program's socket.
func over(t *testing.T, fd int) *side {
	t.Helper()
	calls := new(interrupt.Calls)
	return &side{nil, scm.NewSender(fd, calls), scm.NewReceiver(fd, calls)}
}

func TestForeignConnect(t *testing.T) {
	for kind, typ := range map[string]int{"unix": unix.SOCK_STREAM, "unix-seqpacket": unix.SOCK_SEQPACKET} {
		for _, path := range names(t) {
			t.Run(kind+":"+path, func(t *testing.T) {
				fdtest.NoLeaks(t)
				server := foreignServer(t, typ, path)
				s := openToSend(t, kind+":"+path, Options{})
				foreign := foreignAccept(t, server)
				s.send(t, "one")
				over(t, foreign.FD).receive(t, "one")
				foreign.Close()
				fdtest.Soon(t, "Gone is closed", s.Gone())
				s.close(t, 0)

				r := openToReceive(t, kind+":"+path, Options{})
				foreign = foreignAccept(t, server)
				over(t, foreign.FD).send(t, "two")
				foreign.Close()
				r.receive(t, "two")
				r.receiveEnd(t)
				r.close(t, 0)
			})
		}
	}
}

func TestForeignConnectWait(t *testing.T) {
	for _, kind := range []string{"unix", "unix-seqpacket", "unix-dgram"} {
		fdtest.NoLeaks(t)
		path := aPath(t)
		refused(t, OpenSend, kind+":"+path, Options{}, "no such file or directory")
		inTime(t, "waiting for a foreign program", func() {
			refused(t, OpenSend, kind+":"+path, Options{Wait: 30 * time.Millisecond}, "no such file or directory")
		})
		opened := make(chan error, 1)
		go func() {
			q, err := OpenSend(kind+":"+path, Options{Wait: time.Minute})
			if err == nil {
				_, err = q.Close()
			}
			opened <- err
		}()
		foreignServer(t, map[string]int{
			"unix": unix.SOCK_STREAM, "unix-seqpacket": unix.SOCK_SEQPACKET, "unix-dgram": unix.SOCK_DGRAM,
		}[kind], path)
		if err := fdtest.Soon(t, "the foreign program is reached", opened); err != nil {
			t.Errorf("OpenSend(%s:%s) = %v, want nil", kind, path, err)
		}
	}
}

func TestForeignListen(t *testing.T) {
	for _, test := range []struct {
		kind    string
		typ     int
		sending bool
	}{
		{"unix-listen", unix.SOCK_STREAM, false},
		{"unix-listen", unix.SOCK_STREAM, true},
		{"unix-seqpacket-listen", unix.SOCK_SEQPACKET, false},
		{"unix-seqpacket-listen", unix.SOCK_SEQPACKET, true},
	} {
		t.Run(fmt.Sprintf("%s, sending %v", test.kind, test.sending), func(t *testing.T) {
			fdtest.NoLeaks(t)
			path := aPath(t)
			spec := test.kind + ":" + path
			open := OpenReceive
			if test.sending {
				open = OpenSend
			}
			inTime(t, "waiting for a foreign program", func() {
				refused(t, open, spec, Options{Wait: 30 * time.Millisecond}, "nobody has connected in time")
			})
			present(t, path, false)
			opened := make(chan error, 1)
			var q *Queue
			go func() {
				var err error
				q, err = open(spec, Options{})
				opened <- err
			}()
			fdtest.Eventually(t, "it listens", func() bool {
				_, err := unixpath.Identify(path)
				return err == nil
			})
			var foreign *side
			fdtest.Eventually(t, "it accepts", func() bool {
				fd, err := connect(path, test.typ)
				if err != nil {
					return false
				}
				t.Cleanup(func() { _ = unix.Close(fd) })
				foreign = over(t, fd)
				return true
			})
			if err := fdtest.Soon(t, "the queue is open", opened); err != nil {
				t.Fatalf("opening %s = %v, want nil", spec, err)
			}
			present(t, path, false)
			mine := newSide(t, q)
			if test.sending {
				mine.send(t, "one")
				foreign.receive(t, "one")
			} else {
				foreign.send(t, "one")
				mine.receive(t, "one")
			}
		})
	}
}

func TestForeignDatagrams(t *testing.T) {
	fdtest.NoLeaks(t)
	path := aPath(t)
	r := openToReceive(t, "unix-dgram:"+path, Options{Mode: 0o620})
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil || st.Mode&0o777 != 0o620 {
		t.Errorf("the socket file has mode %04o (%v), want 0620", st.Mode&0o777, err)
	}
	first := openToSend(t, "unix-dgram:"+path, Options{})
	second := openToSend(t, "unix-dgram:"+path, Options{})
	first.send(t, "one")
	second.send(t, "two")
	r.receive(t, "one")
	r.receive(t, "two")
	first.close(t, 0)
	second.send(t, "three")
	r.receive(t, "three")
	refused(t, OpenReceive, "unix-dgram:"+path, Options{}, "address already in use")
	r.close(t, 0)
	present(t, path, false)
	if err := second.Send([]byte("x")); err != scm.ErrGone {
		t.Errorf("Send() without a receiver = %v, want ErrGone", err)
	}
}

func TestForeignErrors(t *testing.T) {
	fdtest.NoLeaks(t)
	path := aPath(t)
	foreignServer(t, unix.SOCK_SEQPACKET, path)
	refused(t, OpenSend, "unix:"+path, Options{}, "protocol wrong type")
	refused(t, OpenSend, "unix-listen:"+path, Options{}, "address already in use")
	refused(t, OpenSend, "unix-listen:"+filepath.Join(path, "x"), Options{}, "not a directory")
	refused(t, OpenReceive, "unix-dgram:"+filepath.Dir(path), Options{}, "exists and is not a socket")
}

// Opening ends when its Stop is closed, wherever it waits.
func TestOpenStops(t *testing.T) {
	dir := t.TempDir()
	silent := filepath.Join(dir, "silent")
	foreignServer(t, unix.SOCK_SEQPACKET, silent)
	for about, open := range map[string]func(t *testing.T, o Options) (*Queue, error){
		"a silent pipe": func(t *testing.T, o Options) (*Queue, error) {
			read, _ := fdtest.Pipe(t)
			return OpenReceive(number(read.Take()), o)
		},
		"half a line": func(t *testing.T, o Options) (*Queue, error) {
			read, write := fdtest.Pipe(t)
			_, _ = unix.Write(write.FD, []byte("fdkit-queue pid="))
			return OpenReceive(number(read.Take()), o)
		},
		"no named queue": func(t *testing.T, o Options) (*Queue, error) {
			o.Wait = time.Hour
			return OpenReceive(filepath.Join(dir, "none"), o)
		},
		"no answer": func(_ *testing.T, o Options) (*Queue, error) { return OpenSend(silent, o) },
		"nobody connects": func(_ *testing.T, o Options) (*Queue, error) {
			return OpenSend("unix-listen:"+filepath.Join(dir, "listen"), o)
		},
		"no foreign program": func(_ *testing.T, o Options) (*Queue, error) {
			o.Wait = time.Hour
			return OpenSend("unix:"+filepath.Join(dir, "none"), o)
		},
	} {
		t.Run(about, func(t *testing.T) {
			fdtest.NoLeaks(t)
			stop := make(chan struct{})
			opened := make(chan error, 1)
			go func() {
				q, err := open(t, Options{Stop: stop})
				if err == nil {
					_, _ = q.Close()
				}
				opened <- err
			}()
			close(stop)
			if err := fdtest.Soon(t, "opening ends with Stop", opened); !errors.Is(err, interrupt.ErrStopped) {
				t.Errorf("opening = %v after Stop, want ErrStopped", err)
			}
			present(t, filepath.Join(dir, "listen"), false)
		})
	}
}
