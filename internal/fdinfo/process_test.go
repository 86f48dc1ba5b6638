//go:build linux

package fdinfo

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
)

// look is a program: "look connect PATH" connects to a Unix socket and ends; "look
// PID FD" describes.
func look(args []string) error {
	if args[0] == "connect" {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		return unix.Connect(fd, &unix.SockaddrUnix{Name: args[1]})
	}
	pid, _ := strconv.Atoi(args[0])
	fd, _ := strconv.Atoi(args[1])
	p, err := Open(pid)
	if err != nil {
		return err
	}
	defer p.Close()
	_, err = p.List()
	d, err2 := p.Describe(fd)
	fmt.Println(errors.Is(err, fs.ErrPermission), errors.Is(err2, fs.ErrPermission), d.Kind)
	return nil
}

// holder starts a process that has the descriptor as its 3.
func holder(t *testing.T, fd int) *exec.Cmd {
	t.Helper()
	c := fdtest.Program(t, "hold")
	c.ExtraFiles = []*os.File{os.NewFile(uintptr(fdtest.Dup(t, fd).Take()), "held")}
	stdin, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	c.ExtraFiles[0].Close()
	t.Cleanup(func() {
		stdin.Close()
		_ = c.Wait()
	})
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the program says %q, %v", line, err)
	}
	return c
}

func opened(t *testing.T, pid int) *Process {
	t.Helper()
	p, err := Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// Another process's descriptor is described as an own one is, but that it is inherited.
func TestProcessDescribe(t *testing.T) {
	for _, test := range descriptors {
		t.Run(test.about, func(t *testing.T) {
			fdtest.NoLeaks(t)
			fd := test.open(t)
			p := opened(t, holder(t, fd).Process.Pid)
			before, _ := list(unix.AT_FDCWD, "/proc/self/fd")
			d, err := p.Describe(3)
			if err != nil {
				t.Fatalf("Describe(3) = %v; want no error", err)
			}
			after, _ := list(unix.AT_FDCWD, "/proc/self/fd")
			if fmt.Sprint(before) != fmt.Sprint(after) {
				t.Errorf("the open descriptors were %v and are %v", before, after)
			}
			if d.CloseOnExec {
				t.Error("CloseOnExec is true; want that of the other process, which has inherited the descriptor")
			}
			line := strings.NewReplacer(` \[cloexec\]`, "", `\[cloexec `, `\[`).Replace(test.line)
			check(t, d, line, strings.Replace(test.json, `"close_on_exec":true`, `"close_on_exec":false`, 1))
		})
	}
}

func TestProcessList(t *testing.T) {
	fdtest.NoLeaks(t)
	r, _ := fdtest.Pipe(t)
	p := opened(t, holder(t, r.FD).Process.Pid)
	got, err := p.List()
	if err != nil || len(got) < 4 || fmt.Sprint(got[:4]) != "[0 1 2 3]" {
		t.Errorf("List() = %v, %v; want 0, 1, 2, 3 and perhaps others", got, err)
	}
	if d, err := p.Describe(1 << 20); err != ErrNotOpen {
		t.Errorf("Describe(%d) = %+v, %v; want ErrNotOpen", 1<<20, d, err)
	}
}

func TestProcessEnds(t *testing.T) {
	fdtest.NoLeaks(t)
	r, _ := fdtest.Pipe(t)
	c := holder(t, r.FD)
	p := opened(t, c.Process.Pid)
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait()
	if fds, err := p.List(); err != ErrEnded {
		t.Errorf("List() = %v, %v; want ErrEnded", fds, err)
	}
	if d, err := p.Describe(3); err != ErrEnded {
		t.Errorf("Describe(3) = %+v, %v; want ErrEnded", d, err)
	}
	if p, err := Open(c.Process.Pid); err == nil {
		p.Close()
		t.Errorf("Open succeeds; want an error, as there is no such process any more")
	}
}

func TestProcessOfAnother(t *testing.T) {
	fdtest.NeedsRoot(t)
	c := fdtest.AsNobody(t, fdtest.Program(t, "look", strconv.Itoa(os.Getpid()), "0"))
	out, err := c.CombinedOutput()
	if string(out) != "true true \n" || err != nil {
		t.Errorf("nobody looks at root's process: %q, %v; want both to fail for want of permission", out, err)
	}
}

// withoutCopies returns a process of which no copies may be taken, as Yama and other
// security modules have it.
func withoutCopies(t *testing.T, pid int) *Process {
	p := opened(t, pid)
	_ = unix.Close(p.pidfd)
	p.pidfd, p.noPidfd = -1, os.NewSyscallError("pidfd_getfd", unix.EPERM)
	return p
}

func TestProcessWithoutCopies(t *testing.T) {
	const less = `, no more may be seen \(pidfd_getfd: operation not permitted\)`
	path := t.TempDir() + "/s"
	for _, test := range []struct {
		about, line, json string
		open              func(t *testing.T) int
	}{
		{
			"TCP", `rw   tcp             127.0.0.1:\d+->127.0.0.1:\d+ established, 5 bytes unread` + less, `"partial":"pidfd_getfd: operation not permitted"`,
			func(t *testing.T) int {
				client, server := fdtest.TCPPair(t)
				write(t, client.FD, "hello")
				fdtest.Eventually(t, "data has come", func() bool { return *ioctl(server.FD, unix.SIOCINQ) == 5 })
				return server.FD
			},
		},
		{
			"TCP over IPv6, listening", `rw   tcp6            listening at \[::1\]:\d+` + less, `"state":"listening"`,
			func(t *testing.T) int {
				fd := socket(t, unix.AF_INET6, unix.SOCK_STREAM, 0)
				return listening(t, fd, &unix.SockaddrInet6{Addr: [16]byte{15: 1}}, 7)
			},
		},
		{
			"UDP", `rw   udp             127.0.0.1:\d+` + less, `"type":"dgram"`,
			func(t *testing.T) int {
				fd := socket(t, unix.AF_INET, unix.SOCK_DGRAM, 0)
				if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: loopback}); err != nil {
					t.Fatal(err)
				}
				return fd
			},
		},
		{
			"Unix", `rw   unix-seqpacket  listening at unix:/.*/s` + less, `"listening":true`,
			func(t *testing.T) int {
				return listening(t, socket(t, unix.AF_UNIX, unix.SOCK_SEQPACKET, 0), &unix.SockaddrUnix{Name: path}, 7)
			},
		},
		{
			"netlink", `rw   netlink         no more may be seen \(pidfd_getfd: operation not permitted\)`, `"family":"netlink"`,
			func(t *testing.T) int { return socket(t, unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE) },
		},
		{
			"pipe", `r    pipe            pipe:\[\d+\], read end` + less, `"pipe":{"end":"read"}`,
			func(t *testing.T) int {
				r, _ := fdtest.Pipe(t)
				return r.FD
			},
		},
		{
			"memfd", `rw   memfd           m, 0 bytes, at 0` + less, `"memfd":{"name":"m"}`,
			func(t *testing.T) int {
				fd, err := unix.MemfdCreate("m", unix.MFD_CLOEXEC)
				return closeLater(t, fd, err)
			},
		},
		{
			"file, of which no copy is needed", `r    character-device /dev/null, 1:3`, `"node":"1:3"}`,
			func(t *testing.T) int { return open(t, "/dev/null", unix.O_RDONLY) },
		},
	} {
		t.Run(test.about, func(t *testing.T) {
			fdtest.NoLeaks(t)
			p := withoutCopies(t, holder(t, test.open(t)).Process.Pid)
			d, err := p.Describe(3)
			if err != nil {
				t.Fatalf("Describe(3) = %v; want no error", err)
			}
			check(t, d, test.line, test.json)
		})
	}
}

// While a process opens and closes, what is told is right or an error.
func TestProcessChanges(t *testing.T) {
	fdtest.NoLeaks(t)
	p := opened(t, os.Getpid())
	r, w := fdtest.Pipe(t)
	a, _ := fdtest.Pair(t, unix.SOCK_STREAM)
	number := fdtest.Dup(t, r.FD).FD
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				_ = unix.Dup3([]int{r.FD, w.FD, a.FD}[i%3], number, unix.O_CLOEXEC)
			}
		}
	}()
	for range 300 {
		d, err := p.Describe(number)
		switch {
		case err == errChanged:
		case err != nil:
			t.Errorf("Describe() = %v; want none or %v", err, errChanged)
		case (d.Kind == Socket) != (d.Socket != nil), (d.Kind == Pipe) != (d.Pipe != nil),
			d.Kind == Socket && (!strings.HasPrefix(d.Name, "socket:[") || d.Socket.Type != "stream"),
			d.Kind == Pipe && !strings.HasPrefix(d.Name, "pipe:["):
			t.Errorf("Describe() = %s; want a pipe or a socket, and no mixture", d.JSON())
		}
	}
	close(stop)
	<-done
}

func TestNoProcess(t *testing.T) {
	if p, err := Open(1 << 30); err != ErrNoProcess {
		t.Errorf("Open(%d) = %v, %v; want ErrNoProcess", 1<<30, p, err)
	}
}
