//go:build linux

package doctor

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
	"fdkit/internal/scm"
)

func TestMain(m *testing.M) {
	fdtest.Main(m, map[string]func([]string) error{"flying": flying})
}

// lonely is a user that nobody else is: what is in flight of nobody's is others' too.
const lonely = 61234

// The count is the kernel's: as the user's own process, and as root for that user.
func TestMeasureInFlight(t *testing.T) {
	fdtest.NeedsRoot(t)
	fdtest.NoLeaks(t)
	for _, limit := range []string{"400", "600"} { // less than are in flight, and more
		c := fdtest.Program(t, "flying", limit)
		c.SysProcAttr.Credential = &syscall.Credential{Uid: lonely, Gid: lonely}
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("with a limit of %s: %v\n%s", limit, err, out)
		}
	}
	if f, err := measureInFlight(lonely); err != nil || f.n != 0 || f.more {
		t.Errorf("measureInFlight(%d) = %+v, %v; want 0", lonely, f, err)
	}
	if f, err := measureInFlight(os.Getuid()); err != nil || !f.exempt {
		t.Errorf("measureInFlight(%d) = %+v, %v; want root exempt", os.Getuid(), f, err)
	}
	if caps, user := effective(t), unix.Getuid(); caps == 0 || user != 0 {
		t.Errorf("capabilities are %x and the user %d after it; want those of root", caps, user)
	}
}

func effective(t *testing.T) uint32 {
	t.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		t.Fatal(err)
	}
	return sets[0].Effective & (1<<unix.CAP_SYS_RESOURCE | 1<<unix.CAP_SYS_ADMIN)
}

// flying has 500 descriptors in flight, and counts them with a limit.
func flying(args []string) error {
	limit, err := strconv.ParseUint(args[0], 10, 32)
	if err != nil {
		return err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	const n = 500
	fds := make([]int, n/2)
	for i := range fds {
		fds[i] = 2
	}
	for range 2 {
		if _, err := scm.NewSender(pair[0], nil).Try([]byte{0}, fds, nil, 0); err != nil {
			return err
		}
	}
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: limit}, nil); err != nil {
		return err
	}
	want := flight{n: n}
	if limit < n {
		want = flight{n: limit, more: true}
	}
	if f, err := measureInFlight(os.Getuid()); err != nil || f != want {
		return fmt.Errorf("measureInFlight() = %+v, %w; want %+v", f, err, want)
	}
	if _, err := measureInFlight(0); !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("measureInFlight(0) = %w; want EPERM", err)
	}
	return nil
}
