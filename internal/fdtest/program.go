//go:build linux

package fdtest

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// variable tells the test binary that it is run as a program.
const variable = "FDTEST_PROGRAM"

// Nobody is the user and group that AsNobody runs programs as.
const Nobody = 65534

// Main is for TestMain. It runs the tests or, if Program has started the test
// binary again, one of the programs; an error that it returns is told on stderr,
// and makes the exit status 1.
func Main(m *testing.M, programs map[string]func(args []string) error) {
	name, found := os.LookupEnv(variable)
	if !found {
		os.Exit(m.Run())
	}
	if err := programs[name](os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Program returns a command that runs one of the programs of Main. It is killed
// at the test's end.
func Program(t testing.TB, name string, args ...string) *exec.Cmd {
	t.Helper()
	c := exec.CommandContext(t.Context(), "/proc/self/exe", args...)
	c.Args[0] = name
	c.Env = append(os.Environ(), variable+"="+name)
	// Whatever becomes of the test, no program outlives it.
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return c
}

// AsNobody makes the command run as an unprivileged user, which only root can
// arrange.
func AsNobody(t testing.TB, c *exec.Cmd, groups ...uint32) *exec.Cmd {
	t.Helper()
	NeedsRoot(t)
	c.SysProcAttr.Credential = &syscall.Credential{Uid: Nobody, Gid: Nobody, Groups: groups}
	return c
}
