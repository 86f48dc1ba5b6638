//go:build linux

package fdinfo

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
)

// TestMain also runs the programs that process_test.go looks at.
func TestMain(m *testing.M) {
	fdtest.Main(m, map[string]func([]string) error{
		"hold": func([]string) error {
			fmt.Println("ready")
			_, err := io.Copy(io.Discard, os.Stdin)
			return err
		},
		"look": look,
	})
}

// closeLater returns fd, which is closed at the test's end.
func closeLater(t *testing.T, fd int, err error) int {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func system(t *testing.T, call uintptr, args ...uintptr) int {
	t.Helper()
	var a [6]uintptr
	copy(a[:], args)
	n, _, errno := unix.Syscall6(call, a[0], a[1], a[2], a[3], a[4], a[5])
	switch errno {
	case 0:
	case unix.ENOSYS, unix.EPERM, unix.EACCES: // as a container or sysctl(8) may have it
		t.Skipf("this kernel has no such descriptor, or not for us: %v", errno)
	default:
		t.Fatalf("system call %d: %v", call, errno)
	}
	return closeLater(t, int(n), nil)
}

func open(t *testing.T, path string, flags int) int {
	t.Helper()
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o600)
	return closeLater(t, fd, err)
}

func socket(t *testing.T, family, kind, protocol int) int {
	t.Helper()
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, protocol)
	if err == unix.EAFNOSUPPORT || err == unix.EPROTONOSUPPORT || err == unix.EPERM || err == unix.EACCES || err == unix.ENOPROTOOPT {
		t.Skipf("no socket of family %d, type %d, protocol %d can be made: %v", family, kind, protocol, err)
	}
	return closeLater(t, fd, err)
}

func listening(t *testing.T, fd int, address unix.Sockaddr, backlog int) int {
	t.Helper()
	if err := unix.Bind(fd, address); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, backlog); err != nil {
		t.Fatal(err)
	}
	return fd
}

func write(t *testing.T, fd int, text string) {
	t.Helper()
	if _, err := unix.Write(fd, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

// descriptors are one of each kind. line is an expression for what Line gives after
// number and access, and json one for a part of JSON.
var descriptors = []struct {
	about string
	open  func(t *testing.T) int
	line  string
	json  string
}{
	{
		"file", func(t *testing.T) int {
			fd := open(t, filepath.Join(t.TempDir(), "f"), unix.O_CREAT|unix.O_RDWR|unix.O_APPEND)
			write(t, fd, "hello")
			return fd
		},
		`rw   file            /.*/f, 5 bytes, at 5 \[cloexec append\]`, `"flags":\["append"\],"close_on_exec":true,"offset":5,"size":5,`,
	},
	{
		"file that is deleted", func(t *testing.T) int {
			path := filepath.Join(t.TempDir(), "f")
			fd := open(t, path, unix.O_CREAT|unix.O_WRONLY)
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			return fd
		},
		`w    file            /.*/f, deleted, 0 bytes, at 0 \[cloexec\]`, `/f","deleted":true,`,
	},
	{
		"file whose name says that it is deleted", func(t *testing.T) int {
			return open(t, filepath.Join(t.TempDir(), "f (deleted)"), unix.O_CREAT|unix.O_RDONLY)
		},
		`r    file            /.*/f \(deleted\), 0 bytes, at 0 \[cloexec\]`, `/f \(deleted\)","access":"r"`,
	},
	{
		"file with a hostile name", func(t *testing.T) int {
			return open(t, filepath.Join(t.TempDir(), "a\n5    rw   file \x1b[2J\xff\u202e\u009b\\\U000e0001"), unix.O_CREAT|unix.O_RDONLY)
		},
		`r    file            /.*/a\\n5    rw   file \\x1b\[2J\\xff\\u202e\\u009b\\\\\\U000e0001, 0 bytes, at 0 \[cloexec\]`,
		`/a\\n5    rw   file \\u001b\[2J\\ufffd\\u202e\\u009b\\\\\\udb40\\udc01"`,
	},
	{
		"locked file", func(t *testing.T) int {
			fd := open(t, filepath.Join(t.TempDir(), "f"), unix.O_CREAT|unix.O_RDWR)
			if err := unix.Flock(fd, unix.LOCK_EX); err != nil {
				t.Fatal(err)
			}
			return fd
		},
		`rw   file            /.*/f, 0 bytes, at 0, 1 lock \[cloexec\]`, `"locks":\["FLOCK ADVISORY WRITE \d+ \S+ 0 EOF"\]`,
	},
	{
		"directory", func(t *testing.T) int { return open(t, "/", unix.O_RDONLY|unix.O_DIRECTORY) },
		`r    directory       / \[cloexec directory\]`, `"kind":"directory","name":"/"`,
	},
	{
		"O_PATH", func(t *testing.T) int { return open(t, "/proc", unix.O_PATH) },
		`path directory       /proc \[cloexec\]`, `"access":"path"`,
	},
	{
		"symlink", func(t *testing.T) int {
			path := filepath.Join(t.TempDir(), "l")
			if err := os.Symlink("nowhere", path); err != nil {
				t.Fatal(err)
			}
			return open(t, path, unix.O_PATH|unix.O_NOFOLLOW)
		},
		`path symlink         /.*/l \[cloexec nofollow\]`, `"kind":"symlink"`,
	},
	{
		"socket file", func(t *testing.T) int {
			path := filepath.Join(t.TempDir(), "s")
			listening(t, socket(t, unix.AF_UNIX, unix.SOCK_STREAM, 0), &unix.SockaddrUnix{Name: path}, 1)
			return open(t, path, unix.O_PATH)
		},
		`path socket-file     /.*/s \[cloexec\]`, `"kind":"socket-file"`,
	},
	{
		"device", func(t *testing.T) int { return open(t, "/dev/null", unix.O_RDWR|unix.O_NONBLOCK) },
		`rw   character-device /dev/null, 1:3 \[cloexec nonblock\]`, `"node":"1:3"`,
	},
	{
		"pty master", func(t *testing.T) int { return open(t, "/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY) },
		`rw   pty-master      /dev/(pts/)?ptmx, of /dev/pts/\d+ \[cloexec\]`, `"kind":"pty-master"`,
	},
	{
		"pty", func(t *testing.T) int {
			master := open(t, "/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY)
			if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
				t.Fatal(err)
			}
			n, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
			if err != nil {
				t.Fatal(err)
			}
			return open(t, fmt.Sprintf("/dev/pts/%d", n), unix.O_RDWR|unix.O_NOCTTY)
		},
		`rw   pty             /dev/pts/\d+ \[cloexec\]`, `"node":"136:(\d+)","pty":\d+`,
	},
	{
		"pipe, read end", func(t *testing.T) int {
			r, w := fdtest.Pipe(t)
			write(t, w.FD, "hello")
			return r.FD
		},
		`r    pipe            pipe:\[\d+\], read end, 5 of 65536 bytes unread \[cloexec\]`, `"pipe":{"end":"read","unread":5,"capacity":65536}`,
	},
	{
		"pipe without a reader", func(t *testing.T) int {
			r, w := fdtest.Pipe(t)
			r.Close()
			return w.FD
		},
		`w    pipe            pipe:\[\d+\], write end, 0 of 65536 bytes unread, no reader is left \[cloexec\]`, `"alone":true`,
	},
	{
		"pipe without a writer", func(t *testing.T) int {
			r, w := fdtest.Pipe(t)
			w.Close()
			return r.FD
		},
		`r    pipe            pipe:\[\d+\], read end, 0 of 65536 bytes unread, no writer is left \[cloexec\]`, `"alone":true`,
	},
	{
		"FIFO", func(t *testing.T) int {
			path := filepath.Join(t.TempDir(), "p")
			if err := unix.Mkfifo(path, 0o600); err != nil {
				t.Fatal(err)
			}
			return open(t, path, unix.O_RDWR)
		},
		`rw   fifo            /.*/p, both ends, 0 of 65536 bytes unread \[cloexec\]`, `"kind":"fifo"`,
	},
	{
		"memfd", func(t *testing.T) int {
			fd, err := unix.MemfdCreate("na\nme", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
			closeLater(t, fd, err)
			write(t, fd, "x")
			if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_SHRINK); err != nil {
				t.Fatal(err)
			}
			return fd
		},
		`rw   memfd           na\\nme, sealed: shrink write, 1 byte, at 1 \[cloexec\]`, `"memfd":{"name":"na\\nme","seals":\["shrink","write"\]}`,
	},
	{
		"secretmem", func(t *testing.T) int { return system(t, unix.SYS_MEMFD_SECRET, unix.O_CLOEXEC) },
		`rw   secretmem       /secretmem, 0 bytes, at 0 \[cloexec\]`, `"kind":"secretmem"`,
	},
	{
		"epoll", func(t *testing.T) int {
			fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
			closeLater(t, fd, err)
			r, _ := fdtest.Pipe(t)
			event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET | unix.EPOLLEXCLUSIVE, Fd: 255}
			if err := unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, r.FD, &event); err != nil {
				t.Fatal(err)
			}
			return fd
		},
		`rw   epoll           watches \d+ \[cloexec\]`,
		`"epoll":{"watches":\[{"fd":\d+,"events":\["EPOLLIN","EPOLLEXCLUSIVE","EPOLLET"\],"data":"0xff","inode":\d+,"device":"0:\d+"}\]}`,
	},
	{
		"epoll that watches nothing", func(t *testing.T) int {
			fd, err := unix.EpollCreate1(0)
			return closeLater(t, fd, err)
		},
		`rw   epoll           watches nothing`, `"close_on_exec":false,.*"epoll":{}`,
	},
	{
		"eventfd", func(t *testing.T) int {
			fd, err := unix.Eventfd(26, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK|unix.EFD_SEMAPHORE)
			return closeLater(t, fd, err)
		},
		`rw   eventfd         count 26 \[cloexec nonblock\]`, `"eventfd":{"count":26,"semaphore":true}`,
	},
	{
		"timerfd", func(t *testing.T) int {
			fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC)
			closeLater(t, fd, err)
			spec := unix.ItimerSpec{Value: unix.Timespec{Sec: 1000}, Interval: unix.Timespec{Sec: 2, Nsec: 5e8}}
			if err := unix.TimerfdSettime(fd, 0, &spec, nil); err != nil {
				t.Fatal(err)
			}
			return fd
		},
		`rw   timerfd         CLOCK_BOOTTIME, expires in 16m\S+s, every 2.5s \[cloexec\]`, `"timerfd":{"clock":"CLOCK_BOOTTIME","left":\d+(\.\d+)?,"interval":2.5,"ticks":0}`,
	},
	{
		"timerfd that is not armed", func(t *testing.T) int {
			fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC)
			return closeLater(t, fd, err)
		},
		`rw   timerfd         CLOCK_MONOTONIC, not armed \[cloexec\]`, `"timerfd":{"clock":"CLOCK_MONOTONIC","ticks":0}`,
	},
	{
		"signalfd", func(t *testing.T) int {
			var set unix.Sigset_t
			set.Val[0] = 1<<(unix.SIGUSR1-1) | 1<<(unix.SIGTERM-1) | 1<<(34-1) | 1<<(36-1)
			fd, err := unix.Signalfd(-1, &set, unix.SFD_CLOEXEC)
			return closeLater(t, fd, err)
		},
		`rw   signalfd        SIGUSR1 SIGTERM SIGRTMIN SIGRTMIN\+2 \[cloexec\]`, `"signals":\["SIGUSR1","SIGTERM","SIGRTMIN","SIGRTMIN\+2"\]`,
	},
	{
		"inotify", func(t *testing.T) int {
			fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
			closeLater(t, fd, err)
			if _, err := unix.InotifyAddWatch(fd, t.TempDir(), unix.IN_CREATE|unix.IN_DELETE); err != nil {
				t.Fatal(err)
			}
			return fd
		},
		`r    inotify         1 watch \[cloexec\]`, `"inotify":{"watches":\[{"id":1,"inode":\d+,"device":"\d+:\d+","mask":"0x300"}\]}`,
	},
	{
		"fanotify", func(t *testing.T) int {
			fd := system(t, unix.SYS_FANOTIFY_INIT, unix.FAN_CLOEXEC|unix.FAN_REPORT_FID, 0)
			if err := unix.FanotifyMark(fd, unix.FAN_MARK_ADD, unix.FAN_CREATE, unix.AT_FDCWD, t.TempDir()); err == unix.EOPNOTSUPP || err == unix.ENODEV || err == unix.EXDEV {
				t.Skipf("files of this file system have no identifiers, fanotify_mark(2): %v", err)
			} else if err != nil {
				t.Fatal(err)
			}
			return fd
		},
		`rw   fanotify        1 mark \[cloexec\]`, `"fanotify":{"watches":\[{"inode":\d+,"device":"\d+:\d+","mask":"0x100"}\]}`,
	},
	{
		"pidfd", func(t *testing.T) int {
			fd, err := unix.PidfdOpen(os.Getpid(), 0)
			return closeLater(t, fd, err)
		},
		fmt.Sprintf(`rw   pidfd           process %d \[cloexec\]`, os.Getpid()), fmt.Sprintf(`"pidfd":{"pid":%d}`, os.Getpid()),
	},
	{
		"namespace", func(t *testing.T) int { return open(t, "/proc/self/ns/user", unix.O_RDONLY) },
		`r    namespace       user:\[\d+\] \[cloexec\]`, `"namespace":{"type":"user"}`,
	},
	{
		"io_uring", func(t *testing.T) int {
			var params [120]byte
			return system(t, unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&params)))
		},
		`rw   io_uring        anon_inode:\[io_uring\] \[cloexec\]`, `"kind":"io_uring"`,
	},
	{
		"userfaultfd", func(t *testing.T) int { return system(t, unix.SYS_USERFAULTFD, unix.O_CLOEXEC|1) },
		`r.?   userfaultfd     anon_inode:\[userfaultfd\] \[cloexec\]`, `"kind":"userfaultfd"`,
	},
	{
		"bpf", func(t *testing.T) int {
			attr := [4]uint32{2, 4, 8, 1} // an array
			return system(t, unix.SYS_BPF, 0, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
		},
		`rw   bpf             map \d+ \[cloexec\]`, `"bpf":{"object":"map","id":\d+,"type":"2"}`,
	},
	{
		"perf_event", func(t *testing.T) int {
			attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{}))}
			none := ^uintptr(0)
			return system(t, unix.SYS_PERF_EVENT_OPEN, uintptr(unsafe.Pointer(&attr)), 0, none, none, unix.PERF_FLAG_FD_CLOEXEC)
		},
		`rw   perf_event      anon_inode:\[perf_event\] \[cloexec\]`, `"kind":"perf_event"`,
	},
	{
		"something new", func(t *testing.T) int {
			handled := uint64(1)
			return system(t, unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&handled)), 8, 0)
		},
		`rw   other           anon_inode:\[?landlock-ruleset\]? \[cloexec\]`, `"kind":"other"`,
	},
}

// check compares what a description is rendered as.
func check(t *testing.T, d Description, line, part string) {
	t.Helper()
	number := fmt.Sprint(d.FD)
	if d.PID != 0 {
		number = fmt.Sprintf("%d:%d", d.PID, d.FD)
	}
	if got := d.Line(); !regexp.MustCompile(`^` + number + ` +` + line + `$`).MatchString(got) {
		t.Errorf("Line() = %q\nwant %s", got, line)
	}
	got := d.JSON()
	if !regexp.MustCompile(part).Match(got) || !json.Valid(got) {
		t.Errorf("JSON() = %s\nwant in it %s", got, part)
	}
	for _, text := range []string{d.Line(), string(got)} {
		if Printable(strings.ReplaceAll(text, `\`, "")) != strings.ReplaceAll(text, `\`, "") {
			t.Errorf("%q is not printable", text)
		}
	}
	for line := range strings.Lines(d.Verbose("\t")) {
		if !regexp.MustCompile(`^\t[a-z_.]+: .+\n$`).MatchString(line) {
			t.Errorf("Verbose() has the line %q; want NAME: VALUE", line)
		}
	}
	if !strings.Contains(d.Verbose(""), "kind: "+string(d.Kind)+"\n") {
		t.Errorf("Verbose() = %q; want the kind %s", d.Verbose(""), d.Kind)
	}
}

func TestDescribe(t *testing.T) {
	for _, test := range descriptors {
		t.Run(test.about, func(t *testing.T) {
			fd := test.open(t)
			before, err := list(unix.AT_FDCWD, "/proc/self/fd")
			if err != nil {
				t.Fatal(err)
			}
			d, err := Describe(fd)
			if err != nil {
				t.Fatalf("Describe() = %v; want no error", err)
			}
			check(t, d, test.line, test.json)
			if d.Partial != "" {
				t.Errorf("Partial = %q; want it to be empty", d.Partial)
			}
			after, _ := list(unix.AT_FDCWD, "/proc/self/fd")
			if fmt.Sprint(before) != fmt.Sprint(after) {
				t.Errorf("the open descriptors were %v and are %v", before, after)
			}
		})
	}
}

func TestDescribeNone(t *testing.T) {
	for _, fd := range []int{-1, 1 << 20} {
		if d, err := Describe(fd); err != ErrNotOpen {
			t.Errorf("Describe(%d) = %+v, %v; want ErrNotOpen", fd, d, err)
		}
	}
}

// What is described is not changed: its offset, what is unread in it, an error that
// waits.
func TestDescribeChangesNothing(t *testing.T) {
	fdtest.NoLeaks(t)
	f := open(t, "/etc/passwd", unix.O_RDONLY)
	if _, err := unix.Seek(f, 7, 0); err != nil {
		t.Fatal(err)
	}
	client, server := fdtest.TCPPair(t)
	write(t, client.FD, "hello")
	fdtest.Eventually(t, "data has come", func() bool { return *ioctl(server.FD, unix.SIOCINQ) == 5 })
	for range 2 {
		if d, err := Describe(f); err != nil || d.Offset == nil || *d.Offset != 7 {
			t.Fatalf("Describe() = %+v, %v; want the offset 7", d, err)
		}
		if d, err := Describe(server.FD); err != nil || *d.Socket.Unread != 5 {
			t.Fatalf("Describe() = %+v, %v; want 5 bytes unread", d, err)
		}
	}
	client.Reset()
	for range 2 {
		fdtest.Eventually(t, "the reset has come", func() bool {
			d, err := Describe(server.FD)
			return err == nil && d.Socket.Failed
		})
	}
	if n, err := unix.GetsockoptInt(server.FD, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || unix.Errno(n) != unix.ECONNRESET {
		t.Errorf("SO_ERROR = %v, %v after Describe; want ECONNRESET still to be there", unix.Errno(n), err)
	}
}

func TestInherited(t *testing.T) {
	kept := open(t, "/dev/null", unix.O_RDONLY)
	if _, err := unix.FcntlInt(uintptr(kept), unix.F_SETFD, 0); err != nil {
		t.Fatal(err)
	}
	own := open(t, "/dev/null", unix.O_RDONLY)
	got, err := Inherited()
	if text := " " + strings.Trim(fmt.Sprint(got), "[]") + " "; err != nil ||
		!strings.Contains(text, fmt.Sprintf(" %d ", kept)) || strings.Contains(text, fmt.Sprintf(" %d ", own)) {
		t.Errorf("Inherited() = %v, %v; want %d and not %d", got, err, kept, own)
	}
}
