//go:build linux

package cmd_test

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
)

// TestRecvExecAtOnce: what waits in an inherited socket is looked at before recv-exec waits
// itself, and is the same to it.
func TestRecvExecAtOnce(t *testing.T) {
	fdtest.NoLeaks(t)
	dir, err := fdkit()
	if err != nil {
		t.Fatalf("go build fdkit: %v", err)
	}
	const without = "fdkit recv-exec: a message came without a descriptor\n"
	for _, test := range []struct {
		name          string
		before, after int // messages without a descriptor, before the start and after the first is said
		comes         bool
		status        int
	}{
		{"nothing, and the end", 0, 0, false, 1},
		{"a message without a descriptor, and the end", 1, 0, false, 1},
		{"two, and one with a descriptor", 2, 0, true, 0},
		{"one, and later one more and one with a descriptor", 1, 1, true, 0},
	} {
		queue, sender := fdtest.Pair(t, unix.SOCK_SEQPACKET)
		connection, peer := fdtest.Pair(t, unix.SOCK_STREAM)
		send := func(n int, rights []byte) {
			for range n {
				if err := unix.Sendmsg(sender.FD, []byte("x"), rights, nil, 0); err != nil {
					t.Fatal(err)
				}
			}
		}
		end := func() {
			send(test.after, nil)
			if test.comes {
				send(1, unix.UnixRights(connection.FD))
			}
			connection.Close()
			sender.Close()
		}
		send(test.before, nil)
		if test.after == 0 {
			end()
		}
		stdin := os.NewFile(uintptr(queue.Take()), "queue")
		run := exec.Command(filepath.Join(dir, "fdkit"), "recv-exec", "echo", "served")
		run.Stdin = stdin
		said, err := run.StderrPipe()
		if err == nil {
			err = run.Start()
		}
		_ = stdin.Close()
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(said)
		for i := range test.before + test.after {
			if line, _ := lines.ReadString('\n'); line != without {
				t.Errorf("recv-exec with %s says %q; want %q", test.name, line, without)
			}
			if i == 0 && test.after > 0 {
				end()
			}
		}
		if line, _ := lines.ReadString('\n'); line != "" {
			t.Errorf("recv-exec with %s says %q as well; want no more", test.name, line)
		}
		status := 0
		if failed, ok := errors.AsType[*exec.ExitError](run.Wait()); ok {
			status = failed.ExitCode()
		}
		var answer [16]byte
		n, _ := unix.Read(peer.FD, answer[:]) // ends, as nobody has the connection any more
		want := ""
		if test.comes {
			want = "served\n"
		}
		if got := string(answer[:max(n, 0)]); got != want || status != test.status {
			t.Errorf("recv-exec with %s: the client gets %q, the status is %d; want %q, %d", test.name, got, status, want, test.status)
		}
		peer.Close()
	}
}
