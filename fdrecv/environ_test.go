//go:build linux

package fdrecv_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/fdrecv"
	"fdkit/internal/fdtest"
)

func TestMain(m *testing.M) {
	fdtest.Main(m, map[string]func(args []string) error{"inherits": inherits})
}

// inherits opens the queue that it was started with, writes to the connection what has come
// with it, and what a program that it starts inherits.
func inherits(args []string) error {
	for _, v := range args {
		name, value, _ := strings.Cut(v, "=")
		if value == "self" {
			value = fmt.Sprint(os.Getpid())
		}
		os.Setenv(name, value)
	}
	q, err := fdrecv.OpenEnviron(fdrecv.Options{})
	if err != nil {
		return err
	}
	l := fdrecv.Listener(q)
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	note, _ := conn.(*fdrecv.Conn).Var("FDKIT_NOTE")
	fmt.Fprintln(conn, l.Addr(), note)
	file, err := conn.(*fdrecv.Conn).NetConn().(*net.UnixConn).File()
	if err != nil {
		return err
	}
	child := exec.Command("sh", "-c", "env | grep -E '^(LISTEN_|FDKIT_)'; for n in 3 4; do test ! -e /proc/$$/fd/$n || echo has $n; done")
	child.Stdout = file
	return errors.Join(child.Run(), file.Close(), conn.Close(), l.Close())
}

// A queue comes as the pool passes it, as systemd does, and as stdin, and is not inherited
// any further.
func TestOpenEnviron(t *testing.T) {
	fdtest.NoLeaks(t)
	for _, test := range []struct {
		at   int // where the queue is
		env  string
		want string
	}{
		{0, "", "stdin hello\n"},
		{0, "FDKIT_QUEUE_FD=0", "fd:0 hello\n"},
		{4, "FDKIT_QUEUE_FD=4 LISTEN_PID=self LISTEN_FDS=1", "fd:4 hello\n"},
		{3, "LISTEN_PID=self LISTEN_FDS=1", "fd:3 hello\n"},
		{3, "LISTEN_PID=self LISTEN_FDS=1 LISTEN_FDNAMES=connection", "fd:3 hello\n"},
		{4, "LISTEN_PID=self LISTEN_FDS=2 LISTEN_FDNAMES=admin:queue", "fd:4 hello\n"},
		{0, "LISTEN_PID=1 LISTEN_FDS=1", "stdin hello\n"},
		{0, "FDKIT_QUEUE_FD=-1", `FDKIT_QUEUE_FD is "-1"`},
		{0, "FDKIT_QUEUE_FD=", `FDKIT_QUEUE_FD is ""`},
		{0, "FDKIT_QUEUE_FD=99", "not open"},
		{3, "LISTEN_PID=self LISTEN_FDS=x", `LISTEN_FDS is "x"`},
		{3, "LISTEN_PID=self LISTEN_FDS=2 LISTEN_FDNAMES=a:b", "named queue"},
	} {
		send, receive := fdtest.Pair(t, unix.SOCK_SEQPACKET)
		client, server := fdtest.Pair(t, unix.SOCK_STREAM)
		give(t, send, []string{"FDKIT_NOTE=hello"}, server)
		queue := os.NewFile(uintptr(receive.Take()), "queue")
		null, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		program := fdtest.Program(t, "inherits", strings.Fields(test.env)...)
		program.Env = append(program.Env, "GORACE=atexit_sleep_ms=0")
		switch test.at {
		case 0:
			program.Stdin = queue
		case 3:
			program.ExtraFiles = []*os.File{queue}
		case 4:
			program.ExtraFiles = []*os.File{null, queue}
		}
		out, _ := program.CombinedOutput()
		queue.Close()
		null.Close()
		send.Close() // and with it the connection, if the program has not received it
		answer := make([]byte, 4096)
		var got string
		for n := 1; n > 0; {
			if n, err = unix.Read(client.FD, answer); err != nil {
				t.Fatal(err)
			}
			got += string(answer[:n])
		}
		got += string(out)
		want := test.want
		if test.at == 4 && strings.HasPrefix(test.env, "FDKIT") {
			want += "has 3\n" // which is not passed but left open
		}
		if strings.Contains(want, "\n") && got != want || !strings.Contains(got, want) {
			t.Errorf("with %q: got %q, want %q", test.env, got, want)
		}
	}
}
