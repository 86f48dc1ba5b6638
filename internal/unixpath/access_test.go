//go:build linux

package unixpath

import (
	"os"
	"path/filepath"
	"testing"
)

// Who may write to the directory can put a link in the socket's place, between bind
// and chmod: what it leads to must keep its owner and mode.
func TestApplyFollowsNoLink(t *testing.T) {
	dir := t.TempDir()
	victim, link := filepath.Join(dir, "victim"), filepath.Join(dir, "link")
	if err := os.WriteFile(victim, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, victim} {
		if err := (Access{Mode: 0o666, UID: -1, GID: -1}).Apply(path); err == nil {
			t.Errorf("apply(%s) = nil, want an error", filepath.Base(path))
		}
	}
	if info, err := os.Stat(victim); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file that the link leads to has mode %v (%v), want 0600", info.Mode(), err)
	}
}
