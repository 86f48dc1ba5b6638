//go:build linux

package holders

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
)

func TestMain(m *testing.M) {
	fdtest.Main(m, map[string]func([]string) error{"hold": hold, "find": find})
}

// hold is a program that has what it was given until its stdin ends. An argument is a
// directory to go to, or a file to map.
func hold(args []string) error {
	for _, arg := range args {
		if info, err := os.Stat(arg); err == nil && info.IsDir() {
			if err := os.Chdir(arg); err != nil {
				return err
			}
			continue
		}
		f, err := os.OpenFile(arg, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		if _, err := unix.Mmap(int(f.Fd()), 0, 1, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
			return err
		}
		f.Close()
	}
	fmt.Println("ready")
	_, err := os.Stdin.Read(make([]byte, 1))
	if err != nil && err.Error() == "EOF" {
		err = nil
	}
	return err
}

// find is a program that looks for its descriptor 3, and says how many processes it could
// not look at.
func find([]string) error {
	t, err := OfDescriptor(Descriptor{os.Getpid(), 3})
	if err != nil {
		return err
	}
	found, err := Find([]Thing{t}, nil)
	if err != nil {
		return err
	}
	fmt.Println(len(found.Holders[0]), found.Processes > 0)
	return nil
}

// holder starts hold with the descriptors from 3 on.
func holder(t *testing.T, fds []int, args ...string) *exec.Cmd {
	t.Helper()
	return start(t, fdtest.Program(t, "hold", args...), fds)
}

func start(t *testing.T, c *exec.Cmd, fds []int) *exec.Cmd {
	t.Helper()
	for _, fd := range fds {
		c.ExtraFiles = append(c.ExtraFiles, os.NewFile(uintptr(fdtest.Dup(t, fd).Take()), "held"))
	}
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
	for _, f := range c.ExtraFiles {
		f.Close()
	}
	t.Cleanup(func() {
		stdin.Close()
		_ = c.Wait()
	})
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the program says %q, %v", line, err)
	}
	return c
}

func thing(t *testing.T, pid, fd int) Thing {
	t.Helper()
	th, err := OfDescriptor(Descriptor{pid, fd})
	if err != nil {
		t.Fatalf("OfDescriptor(%d:%d) = %v", pid, fd, err)
	}
	return th
}

// held returns, in words, how the processes hold the thing. They are called a, b, ...; others
// are left out.
func held(t *testing.T, th Thing, processes ...*exec.Cmd) string {
	t.Helper()
	found, err := Find([]Thing{th}, nil)
	if err != nil {
		t.Fatalf("Find(%+v) = %v", th, err)
	}
	return words(found.Holders[0], processes...)
}

func words(holders []Holder, processes ...*exec.Cmd) string {
	var lines []string
	for _, h := range holders {
		i := slices.IndexFunc(processes, func(c *exec.Cmd) bool { return c.Process.Pid == h.PID })
		if i < 0 {
			continue
		}
		line := fmt.Sprintf("%c %s", 'a'+i, h.Place)
		if h.Place == AtDescriptor || h.Place == InFlight {
			line += fmt.Sprintf(" %d %s #%d", h.FD, h.Access, h.Description)
		} else if h.Access != "" {
			line += " " + h.Access
		}
		lines = append(lines, line)
	}
	slices.Sort(lines) // by letter, not by PID
	return strings.Join(lines, ", ")
}

func want(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("holders are %q; want %q", got, want)
	}
}

// Every kind of thing is told from others of its kind, and of a file the open file
// descriptions are.
func TestFindKinds(t *testing.T) {
	fdtest.NoLeaks(t)
	path := filepath.Join(t.TempDir(), "a b\nc")
	open := func(flags int) int {
		fd, err := unix.Open(path, flags|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	made := func(fd int, err error) int {
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	r, w := fdtest.Pipe(t)
	_, otherPipe := fdtest.Pipe(t)
	x, y := fdtest.Pair(t, unix.SOCK_STREAM)
	eventfd := func() int { return made(unix.Eventfd(0, unix.EFD_CLOEXEC)) }
	event := eventfd()
	memory := made(unix.MemfdCreate("m", unix.MFD_CLOEXEC))
	file := open(unix.O_RDWR)
	for _, test := range []struct {
		about string
		fd    int
		a, b  []int // of two processes, from 3 on
		want  string
	}{
		{"a file", file, []int{file, open(unix.O_RDONLY)}, []int{file}, "a descriptor 3 rw #1, a descriptor 4 r #2, b descriptor 3 rw #1"},
		{"a file by path", file, []int{open(unix.O_PATH)}, nil, "a descriptor 3 path #2"},
		{"a pipe", w.FD, []int{r.FD, otherPipe.FD}, []int{w.FD}, "a descriptor 3 r #2, b descriptor 3 w #1"},
		{"a socket", x.FD, []int{x.FD, y.FD}, []int{y.FD}, "a descriptor 3 rw #1"},
		{"an anonymous inode", event, []int{eventfd(), event, event}, []int{eventfd()}, "a descriptor 4 rw #1, a descriptor 5 rw #1"},
		{"a memfd", memory, []int{memory}, nil, "a descriptor 3 rw #1"},
	} {
		t.Run(test.about, func(t *testing.T) {
			a, b := holder(t, test.a), holder(t, test.b)
			want(t, held(t, thing(t, os.Getpid(), test.fd), a, b), test.want)
		})
	}
}

// A thing of another process is found there too, and numbers do not depend on PIDs.
func TestFindOfProcess(t *testing.T) {
	r, _ := fdtest.Pipe(t)
	a := holder(t, []int{r.FD})
	b := holder(t, []int{r.FD})
	want(t, held(t, thing(t, b.Process.Pid, 3), a, b), "a descriptor 3 r #1, b descriptor 3 r #1")
	// Without a descriptor the first one's description is number 1.
	want(t, held(t, Thing{Link: thing(t, b.Process.Pid, 3).Link}, a, b), "a descriptor 3 r #1, b descriptor 3 r #1")
}

func TestFindElsewhere(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "mapped file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := holder(t, nil, dir, file)
	of := func(path string) Thing {
		th, err := OfFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return th
	}
	want(t, held(t, of(file), a), "a mmap rw")
	want(t, held(t, of(dir), a), "a cwd")
	want(t, held(t, of("/proc/self/exe"), a), "a exe")
	if got := held(t, of("/"), a); !strings.Contains(got, "a root") {
		t.Errorf("holders of / are %q; want the root directory", got)
	}
	// Removed, it is the same file.
	th := of(file)
	os.Remove(file)
	want(t, held(t, th, a), "a mmap rw")
}

// What is in a message is found, at any depth, and the messages stay.
func TestFindInFlight(t *testing.T) {
	for name, typ := range map[string]int{"stream": unix.SOCK_STREAM, "seqpacket": unix.SOCK_SEQPACKET, "dgram": unix.SOCK_DGRAM} {
		t.Run(name, func(t *testing.T) {
			fdtest.NoLeaks(t)
			in, out := fdtest.Pair(t, typ)
			r, w := fdtest.Pipe(t)
			e, _ := unix.Eventfd(0, unix.EFD_CLOEXEC)
			defer unix.Close(e)
			inner, outer := fdtest.Pair(t, unix.SOCK_SEQPACKET)
			send(t, inner.FD, "deep", w.FD)
			send(t, in.FD, "first", e)
			send(t, in.FD, "no descriptor")
			send(t, in.FD, "last", r.FD, outer.FD)
			a := holder(t, []int{out.FD})
			pipe, event := thing(t, os.Getpid(), r.FD), thing(t, os.Getpid(), e)
			out.Close()
			outer.Close()
			for range 2 {
				want(t, held(t, pipe, a), "a in-flight 3 r #1, a in-flight 3 w #2")
				want(t, held(t, event, a), "a in-flight 3 rw #1")
			}
		})
	}
}

func send(t *testing.T, fd int, payload string, fds ...int) {
	t.Helper()
	if err := unix.Sendmsg(fd, []byte(payload), rights(fds), nil, unix.MSG_NOSIGNAL); err != nil {
		t.Fatal(err)
	}
}

func rights(fds []int) []byte {
	if len(fds) == 0 {
		return nil
	}
	return unix.UnixRights(fds...)
}

// Queues of connections that nobody has accepted cannot be looked into, and that is said.
func TestFindNotAccepted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, _ := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	c, _ := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	defer unix.Close(l)
	defer unix.Close(c)
	if err := unix.Bind(l, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(l, 1); err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(c, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	r, _ := fdtest.Pipe(t)
	send(t, c, "x", r.FD)
	a := holder(t, []int{l})
	look := search{queues: map[string][]Descriptor{}}
	look.queue(thing(t, os.Getpid(), l).Link, Descriptor{a.Process.Pid, 3})
	if look.inFlight(nil); look.found.Queues != 1 {
		t.Errorf("%d queues are not seen; want 1", look.found.Queues)
	}
}

// Without rights what may not be seen is counted.
func TestFindAsNobody(t *testing.T) {
	r, _ := fdtest.Pipe(t)
	holder(t, []int{r.FD})
	c := fdtest.AsNobody(t, fdtest.Program(t, "find"))
	f := os.NewFile(uintptr(fdtest.Dup(t, r.FD).Take()), "held")
	defer f.Close()
	c.ExtraFiles = []*os.File{f}
	if out, err := c.CombinedOutput(); string(out) != "0 true\n" {
		t.Errorf("as nobody, it finds %q, %v; want none, and that some could not be looked at", out, err)
	}
}

// Processes that come and go do no harm.
func TestFindWhileProcessesEnd(t *testing.T) {
	fdtest.NoLeaks(t)
	r, _ := fdtest.Pipe(t)
	a := holder(t, []int{r.FD})
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				_ = exec.Command("true").Run()
			}
		}
	}()
	for range 30 {
		want(t, held(t, thing(t, os.Getpid(), r.FD), a), "a descriptor 3 r #1")
	}
	close(stop)
	<-done
}

// With no room for copies, nothing is wrong but that queues may not be seen.
func TestFindFewFiles(t *testing.T) {
	fdtest.NoLeaks(t)
	in, out := fdtest.Pair(t, unix.SOCK_SEQPACKET)
	r, _ := fdtest.Pipe(t)
	send(t, in.FD, "one", r.FD, r.FD, r.FD)
	a := holder(t, []int{out.FD, r.FD})
	th := thing(t, os.Getpid(), r.FD)
	restore := fdtest.FewFiles(t, 0)
	if found, err := Find([]Thing{th}, nil); !errors.Is(err, unix.EMFILE) {
		t.Errorf("Find = %+v, %v; want that there are too many open files", found, err)
	}
	restore()
	restore = fdtest.FewFiles(t, 3) // a directory of /proc, and two more
	found, err := Find([]Thing{th}, nil)
	restore()
	if err != nil || found.Queues == 0 {
		t.Errorf("Find = %v, and %d queues are not seen; want at least one", err, found.Queues)
	}
	want(t, words(found.Holders[0], a), "a descriptor 4 r #1")
}

func TestFindStops(t *testing.T) {
	stop := make(chan struct{})
	close(stop)
	r, _ := fdtest.Pipe(t)
	a := holder(t, []int{r.FD})
	found, err := Find([]Thing{thing(t, os.Getpid(), r.FD)}, stop)
	if err != nil {
		t.Fatal(err)
	}
	want(t, words(found.Holders[0], a), "")
}

// lsof and fuser find the same processes.
func TestFindAsOthersDo(t *testing.T) {
	fdtest.NeedsProgram(t, "lsof", "fuser")
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	x, _ := fdtest.Pair(t, unix.SOCK_STREAM)
	r, w := fdtest.Pipe(t)
	holder(t, []int{int(file.Fd()), x.FD, r.FD})
	holder(t, []int{int(file.Fd()), w.FD}, file.Name())
	self := strconv.Itoa(os.Getpid())
	for name, fd := range map[string]int{"file": int(file.Fd()), "socket": x.FD, "pipe": r.FD} {
		th := thing(t, os.Getpid(), fd)
		found, err := Find([]Thing{th}, nil)
		if err != nil {
			t.Fatal(err)
		}
		ours := map[string]bool{}
		for _, h := range found.Holders[0] {
			ours[strconv.Itoa(h.PID)] = true
		}
		got := sorted(ours)
		inode := strings.TrimSuffix(th.Link[strings.Index(th.Link, "[")+1:], "]")
		if th.Link == "" {
			inode = strconv.FormatUint(th.Ino, 10)
		}
		list, _ := exec.Command("lsof", "-w", "-F", "pi").Output()
		theirs, pid := map[string]bool{}, ""
		for line := range strings.Lines(string(list)) {
			switch line = strings.TrimSpace(line); {
			case line[0] == 'p':
				pid = line[1:]
			case line == "i"+inode && pid != self:
				theirs[pid] = true
			}
		}
		if want := sorted(theirs); len(got) == 0 || got != want {
			t.Errorf("of a %s, Find has the processes %s, lsof %s", name, got, want)
		}
		if name == "file" {
			out, _ := exec.Command("fuser", file.Name()).Output()
			fields := slices.DeleteFunc(strings.Fields(string(out)), func(pid string) bool { return pid == self })
			slices.Sort(fields)
			if want := strings.Join(fields, " "); got != want {
				t.Errorf("of a file, Find has the processes %s, fuser %s", got, want)
			}
		}
	}
}

func sorted(set map[string]bool) string {
	var all []string
	for pid := range set {
		all = append(all, pid)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func TestOfDescriptorErrors(t *testing.T) {
	if _, err := OfDescriptor(Descriptor{os.Getpid(), 1 << 19}); err == nil || err.Error() != "it is not open" {
		t.Errorf("OfDescriptor of a number that is not open = %v", err)
	}
	if _, err := OfFile("/nowhere"); !os.IsNotExist(err) {
		t.Errorf("OfFile(/nowhere) = %v; want that it is not there", err)
	}
}

func FuzzMapping(f *testing.F) {
	f.Add("7f5c8a000000-7f5c8a021000 rw-s 00000000 fd:01 12345      /var/lib/a file (deleted)\n")
	f.Add("7f5c8a000000-7f5c8a021000 r-xp 00000000 00:00 0 \n")
	f.Add("55d0-55d1 ---p 0 103:2 7 \n")
	f.Fuzz(func(t *testing.T, line string) {
		m, ok := parseMapping(line)
		if ok && (m.ino == 0 || strings.Trim(m.access, "rwx") != "" || strings.Contains(m.addresses, " ")) {
			t.Errorf("parseMapping(%q) = %+v", line, m)
		}
	})
}

func TestMapping(t *testing.T) {
	m, ok := parseMapping("7f5c8a000000-7f5c8a021000 rw-s 00000000 fd:01 12345      /var/lib/a file (deleted)\n")
	if !ok || m.access != "rw" || m.ino != 12345 || m.dev != unix.Mkdev(0xfd, 1) || m.addresses != "7f5c8a000000-7f5c8a021000" {
		t.Errorf("parseMapping = %+v, %t", m, ok)
	}
	if m, ok = parseMapping("7f5c8a000000-7f5c8a021000 rw-p 00000000 fd:01 12345 /x\n"); !ok || m.access != "r" {
		t.Errorf("parseMapping of a private mapping = %+v, %t; want that what is written does not go to the file", m, ok)
	}
}
