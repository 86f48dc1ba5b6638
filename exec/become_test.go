//go:build linux

package exec_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

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
