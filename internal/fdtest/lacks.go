//go:build linux

package fdtest

import (
	"os"
	"os/exec"
	"testing"
)

// Lacks skips the test for want of something; in CI, where nothing may be left out
// unseen, it fails.
func Lacks(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// NeedsRoot is for tests of what only root can do.
func NeedsRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Lacks(t, "only root can run this test")
	}
}

// NeedsProgram is for tests that run a program which a machine may lack.
func NeedsProgram(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			Lacks(t, "%s is not installed; scripts/install-test-programs has it", name)
		}
	}
}
