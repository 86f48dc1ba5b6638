//go:build linux

package exec_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/exec"
	"fdkit/internal/fdtest"
)

// Each place is FD>AT; the file at FD is called so.
func TestBecomeWith(t *testing.T) {
	for _, test := range []struct{ places, want string }{
		{"30>3", "open 0 1 2 3: 3=30"},
		{"30>3 31>4 32>5", "open 0 1 2 3 4 5: 3=30 4=31 5=32"},
		{"3>3 4>4", "open 0 1 2 3 4: 3=3 4=4"},
		{"3>4 4>3", "open 0 1 2 3 4: 3=4 4=3"},
		{"3>4 4>5 5>3", "open 0 1 2 3 4 5: 3=5 4=3 5=4"},
		{"5>3 3>4", "open 0 1 2 3 4: 3=5 4=3"},
		{"3>3 3>6", "open 0 1 2 3 6: 3=3 6=3"},
		{"3>4 5>4", "open 0 1 2 4: 4=5"},
		{"30>0 31>2", "open 0 1 2: 0=30 2=31"},
		{"7>40 40>7", "open 0 1 2 40 7: 40=7 7=40"},
	} {
		t.Run(test.places, func(t *testing.T) {
			c := fdtest.Program(t, "become-with", strings.Fields(test.places)...)
			var out strings.Builder
			c.Stdout = &out
			if err := c.Run(); err != nil {
				t.Errorf("%v\n%s", err, out.String())
			}
			if got := descriptors(out.String()); got != test.want {
				t.Errorf("BecomeWith %s: %q, want %q", test.places, got, test.want)
			}
		})
	}
}

var link = regexp.MustCompile(`(\d+) -> (?:/memfd:(\d+))?`)

// descriptors returns what ls -l shows of descriptors: all numbers, and those that
// are the memory files of becomeWith.
func descriptors(list string) string {
	open, files := "open", ""
	for _, m := range link.FindAllStringSubmatch(list, -1) {
		open += " " + m[1]
		if m[2] != "" {
			files += " " + m[1] + "=" + m[2]
		}
	}
	return open + ":" + files
}

// becomeWith has memory files of all numbers from 3 to 40, named after their
// numbers, and becomes a program with them at the places that its arguments give.
func becomeWith(args []string) error {
	var places []exec.Place
	for _, arg := range args {
		var p exec.Place
		if _, err := fmt.Sscanf(arg, "%d>%d", &p.FD, &p.At); err != nil {
			return err
		}
		places = append(places, p)
	}
	for n := 3; n <= 40; n++ {
		file, err := unix.MemfdCreate(fmt.Sprint(n), 0)
		if err != nil {
			return err
		}
		if kept, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", n)); err == nil && strings.HasPrefix(kept, "anon_inode:") {
			return fmt.Errorf("descriptor %d is %s already", n, kept)
		}
		if file != n {
			if err := unix.Dup2(file, n); err != nil {
				return err
			}
			_ = unix.Close(file)
		}
	}
	// No $(...) or >, which would give the shell one more descriptor.
	program, err := exec.Find("sh", "-c", "ls -l /proc/$$/fd; :")
	if err != nil {
		return err
	}
	return program.BecomeWith(places, os.Environ())
}

// The Go runtime has descriptors of its own, which it uses when it collects garbage:
// here at one of the places, with a collection sure to be due before execve.
func TestBecomeWhileCollecting(t *testing.T) {
	c := fdtest.Program(t, "become-collecting")
	c.Env = append(c.Env, "GOGC=1", "GOMEMLIMIT=1")
	out, err := c.CombinedOutput()
	if err != nil || string(out) != "became 7\n" {
		t.Errorf("BecomeWith at the place of the runtime's epoll: %v\n%s", err, out)
	}
}

func becomeCollecting([]string) error {
	time.AfterFunc(time.Hour, func() {}).Stop() // lets the runtime open its descriptors
	var places []exec.Place
	for at := 3; at < 20; at++ {
		link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", at))
		if err == nil && strings.HasPrefix(link, "anon_inode:[event") {
			places = append(places, exec.Place{FD: 2, At: at})
		}
	}
	if places == nil {
		return errors.New("the runtime has no descriptors")
	}
	program, err := exec.Find("sh", "-c", `echo "became $(echo "$LAST")"`)
	if err != nil {
		return err
	}
	var env []string
	for i := range 20000 { // some 500 kB of pointers and strings, with which a collection begins
		env = append(env, fmt.Sprintf("V%d=%d", i, i))
	}
	return program.BecomeWith(places, append(env, "LAST=7", "PATH="+os.Getenv("PATH")))
}

// When execve fails in the end, the error can be told, whatever the runtime does.
func TestBecomeFails(t *testing.T) {
	for _, places := range []string{"low", "high"} { // high: where the runtime's may be
		c := fdtest.Program(t, "become-failing", filepath.Join(t.TempDir(), "program"), places)
		c.Env = append(c.Env, "GOGC=1")
		out, err := c.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "become-failing: cannot run") || strings.Count(string(out), "\n") != 1 {
			t.Errorf("BecomeWith of what is no program, at %s places: %v, %q; want its error", places, err, out)
		}
	}
}

// A program gets an empty signal mask, whether others of this process's goroutines and
// threads are there or not, and what they write meanwhile does not go to the connection.
func TestBecomeAmongOthers(t *testing.T) {
	for _, others := range []string{"alone", "masked", "writing"} {
		c := fdtest.Program(t, "become-among", others)
		out, err := c.CombinedOutput()
		if err != nil || string(out) != "SigBlk:\t0000000000000000\n" {
			t.Errorf("BecomeWith, %s: %v, %q; want an empty signal mask", others, err, out)
		}
	}
}

func becomeAmong(args []string) error {
	switch args[0] {
	case "masked":
		runtime.LockOSThread()
		full := unix.Sigset_t{Val: [16]uint64{1 << (unix.SIGUSR1 - 1)}}
		if err := unix.PthreadSigmask(unix.SIG_BLOCK, &full, nil); err != nil {
			return err
		}
	case "writing":
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		out, err := unix.Dup(1) // the connection, in whose place there is another file
		if err != nil {
			return err
		}
		if err := unix.Dup2(int(null.Fd()), 1); err != nil {
			return err
		}
		begun := make(chan bool)
		go func() {
			for n := 0; ; n++ {
				_, _ = unix.Write(1, []byte("not for the connection\n"))
				if n == 0 {
					close(begun)
				}
			}
		}()
		<-begun
		return becomeStatus(out)
	}
	return becomeStatus(1)
}

func becomeStatus(out int) error {
	program, err := exec.Find("grep", "SigBlk", "/proc/self/status")
	if err != nil {
		return err
	}
	return program.BecomeWith([]exec.Place{{FD: 0, At: 0}, {FD: out, At: 1}}, os.Environ())
}

func becomeFailing(args []string) error {
	time.AfterFunc(time.Hour, func() {}).Stop()
	if err := os.WriteFile(args[0], []byte("no first line"), 0o777); err != nil {
		return err
	}
	program, err := exec.Find(args[0])
	if err != nil {
		return err
	}
	var places []exec.Place
	first, last := 0, 1
	if args[1] == "high" {
		first, last = 3, 9
	}
	for at := first; at <= last; at++ {
		places = append(places, exec.Place{FD: 2, At: at})
	}
	look := func() (links []string) {
		for fd := range 40 {
			link, _ := os.Readlink(fmt.Sprintf("/proc/thread-self/fd/%d", fd))
			links = append(links, link)
		}
		return links
	}
	before := look()
	err = program.BecomeWith(places, os.Environ())
	if after := look(); !slices.Equal(after, before) {
		return fmt.Errorf("the descriptors were %q and are %q", before, after)
	}
	var garbage [][]byte
	for range 10000 {
		garbage = append(garbage, make([]byte, 10000))
		runtime.Gosched()
	}
	runtime.KeepAlive(garbage)
	time.Sleep(time.Millisecond)
	return err
}
