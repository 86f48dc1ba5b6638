//go:build linux

package cmd

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"fdkit/internal/fdtest"
	"fdkit/listen"
)

// TestAccessReload reads a file again and again, right and wrong, while rules are
// asked for.
func TestAccessReload(t *testing.T) {
	fdtest.NoLeaks(t)
	a := &access{options: listen.NewRules(nil), file: filepath.Join(t.TempDir(), "rules")}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(a.file, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	client := netip.MustParseAddr("192.0.2.1")
	write("allow 192.0.2.1")
	if _, err := a.reload(); err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan int)
	go func() {
		refused := 0
		for {
			select {
			case <-stop:
				done <- refused
				return
			default:
				if !a.rules().Match(client, -1, -1).Allow {
					refused++
				}
			}
		}
	}()
	quiet := logger{level: levelNothing}
	for _, text := range []string{"deny all x", "", "\x00", "allow all PATH=/", "allow 192.0.2.0/24", "192.0.2.1/31:deny"} {
		before := a.rules()
		write(text)
		a.reread(quiet)
		if right := text == "allow 192.0.2.0/24"; right != (a.rules() != before) {
			t.Errorf("reread of %q has changed the rules: %v, want %v", text, !right, right)
		}
	}
	if err := os.Remove(a.file); err != nil {
		t.Fatal(err)
	}
	if _, err := a.reload(); err == nil {
		t.Error("reload of a file that is gone succeeds")
	}
	close(stop)
	if refused := <-done; refused > 0 {
		t.Errorf("the client was refused %d times, want 0: every right file allows it", refused)
	}
	write("deny 192.0.2.1")
	rules, err := a.reload()
	if err != nil || rules != a.rules() || rules.Match(client, -1, -1).Allow {
		t.Errorf("reload of deny 192.0.2.1: %v; want rules in force that refuse 192.0.2.1", err)
	}
}
