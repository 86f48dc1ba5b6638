//go:build linux

package exec_test

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/exec"
	"fdkit/internal/fdtest"
)

// A program that fails at once slows the pool down, but only if no client can have
// made it fail.
func TestFailsAtOnce(t *testing.T) {
	tcp := func(t *testing.T) (client, server *fdtest.End) { return fdtest.TCPPair(t) }
	local := func(t *testing.T) (client, server *fdtest.End) { return fdtest.Pair(t, unix.SOCK_STREAM) }
	nothing := func(*testing.T, *fdtest.End) {}
	speak := func(t *testing.T, client *fdtest.End) { write(t, client, "hello\nhello\n") }
	half := func(_ *testing.T, client *fdtest.End) { _ = unix.Shutdown(client.FD, unix.SHUT_WR) }
	speakHalf := func(t *testing.T, client *fdtest.End) { speak(t, client); half(t, client) }
	leave := func(_ *testing.T, client *fdtest.End) { client.Close() }
	reset := func(_ *testing.T, client *fdtest.End) { client.Reset() }
	for _, test := range []struct {
		about, script string
		pair          func(t *testing.T) (client, server *fdtest.End)
		client        func(t *testing.T, client *fdtest.End)
		want          string // in the trouble; "": none
	}{
		{"exit 1 and a line", "exit 1", tcp, speak, "(exit 1, the last 5 times): waiting 100ms before the next start"},
		{"exit 1, a line and the end", "exit 1", tcp, speakHalf, "(exit 1,"},
		{"a signal", "kill -KILL $$", tcp, speak, "(SIGKILL,"},
		{"SIGPIPE", "kill -PIPE $$", tcp, nothing, ""},
		{"SIGTERM", "kill -TERM $$", tcp, nothing, ""},
		{"exit 0", "exit 0", tcp, nothing, ""},
		{"it reads", "read x; exit 1", tcp, speak, ""},
		{"it reads all", "cat >/dev/null; exit 1", tcp, speakHalf, ""},
		{"it reads nothing but the end", "cat >/dev/null; exit 1", tcp, half, ""},
		{"it writes", "echo no; exit 1", tcp, nothing, ""},
		{"the client closes", "exit 1", tcp, leave, ""},
		{"the client resets", "cat; exit 1", tcp, reset, ""},
		{"Unix", "exit 1", local, speak, "(exit 1,"},
		{"Unix: it has read", "read x; exit 1", local, speak, ""},
		{"Unix: the client closes", "cat; exit 1", local, leave, ""},
	} {
		t.Run(test.about, func(t *testing.T) {
			l := runLimited(t, 1, sh(t, test.script), nil)
			for range 8 {
				client, server := test.pair(t)
				test.client(t, client)
				l.pass(t, server)
			}
			l.finish(t, nil)
			if got := strings.Join(l.troubles, "\n"); !strings.Contains(got, test.want) || (test.want == "") != (got == "") {
				t.Errorf("the troubles are %q, want %q", got, test.want)
			}
		})
	}
}

// The pause ends as soon as a program does not fail at once, and with Stop.
func TestFailsAtOnceAndRecovers(t *testing.T) {
	broken := t.TempDir() + "/broken"
	file(t, broken, "", 0o644)
	l := runLimited(t, 5, sh(t, `test ! -e `+broken+` || exit 1; exec cat`), nil)
	// On a busy machine a failure may take too long to be one at once, and what counts is
	// how many come in a row.
	fdtest.Eventually(t, "the pause is told", func() bool {
		client, server := fdtest.TCPPair(t)
		write(t, client, "hello") // so that it counts, however long the program takes
		l.pass(t, server)
		all(t, client)
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.troubles) == 1
	})
	if err := unix.Unlink(broken); err != nil {
		t.Fatal(err)
	}
	client := l.tcp(t)
	write(t, client, "hello")
	expect(t, client, "hello")
	// This one runs on, and lets the others through.
	l.wait(t, "the recovery is told", func() bool { return len(l.troubles) == 2 })
	client.Close()
	l.finish(t, nil)
	if want := "sh does not fail at once any more"; l.troubles[1] != want {
		t.Errorf("the troubles are %q, want %q last", l.troubles, want)
	}
}

func TestStopEndsPause(t *testing.T) {
	l := runLimited(t, 5, sh(t, "exit 1"), nil)
	for range 13 { // 100 ms to 6.4 s
		client, server := fdtest.TCPPair(t)
		write(t, client, "hello")
		select {
		case l.source <- received{connection: exec.Connection{FDs: []int{server.Take()}}}:
			all(t, client)
			continue
		case <-time.After(time.Second):
			unix.Close(server.FD)
		}
		break
	}
	begin := time.Now()
	l.Stop()
	l.finish(t, nil)
	if took := time.Since(begin); took > time.Second {
		t.Errorf("Run returns %v after Stop, want it at once", took)
	}
}
