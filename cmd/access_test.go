//go:build linux

package cmd

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"fdkit/internal/fdtest"
	"fdkit/listen"

	"golang.org/x/sys/unix"
)

// TestAccessRules reads a file again and again, right and wrong, as SIGHUP makes it,
// with --chroot, from a directory that has no path from here by then.
func TestAccessRules(t *testing.T) {
	fdtest.NoLeaks(t)
	dir := filepath.Join(t.TempDir(), "dir")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	moved := dir + ".moved"
	if err := os.Rename(dir, moved); err != nil {
		t.Fatal(err)
	}
	a := &access{options: listen.NewRules(nil), file: filepath.Join(dir, "rules"), path: "rules", dir: fd}
	client := netip.MustParseAddr("192.0.2.1")
	for _, test := range []struct {
		text         string
		right, allow bool
	}{
		{"allow 192.0.2.1", true, true},
		{"deny all x", false, false},
		{"", false, false},
		{"\x00", false, false},
		{"allow all PATH=/", false, false},
		{"allow 192.0.2.0/24", true, true},
		{"192.0.2.1/31:deny", false, false},
		{"deny 192.0.2.1", true, false},
	} {
		if err := os.WriteFile(filepath.Join(moved, "rules"), []byte(test.text), 0o666); err != nil {
			t.Fatal(err)
		}
		rules, err := a.rules()
		if test.right != (err == nil) {
			t.Errorf("rules() of %q = %v; want no error: %t", test.text, err, test.right)
		} else if test.right && rules.Match(client, -1, -1).Allow != test.allow {
			t.Errorf("%q lets %v in: %t, want %t", test.text, client, !test.allow, test.allow)
		}
	}
	if err := os.Remove(filepath.Join(moved, "rules")); err != nil {
		t.Fatal(err)
	}
	if _, err := a.rules(); err == nil {
		t.Error("rules() of a file that is gone succeeds")
	}
}
