//go:build linux

package exec_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/exec"
	"fdkit/internal/hint"
)

// file writes an executable file.
func file(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	file(t, "script", "#!/bin/sh\nexit 0\n", 0o755)
	for _, name := range []string{"script", "./script", dir + "/script", "sh", "/bin/sh"} {
		p, err := exec.Find(name, "a", "b")
		if err != nil {
			t.Errorf("Find(%q) = %v, want nil", name, err)
			continue
		}
		if !slices.Equal(p.Args, []string{name, "a", "b"}) {
			t.Errorf("Find(%q).Args = %q, want the name as it was given, a and b", name, p.Args)
		}
		if err := unix.Access(p.Path, unix.X_OK); err != nil {
			t.Errorf("Find(%q).Path = %q, which cannot be executed: %v", name, p.Path, err)
		}
	}
	t.Setenv("PATH", ".")
	if _, err := exec.Find("script"); err != nil {
		t.Errorf("Find(script) with PATH=. = %v, want nil: the user wants it", err)
	}
}

func TestFindErrors(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv("PATH", "/usr/bin:/bin")
	file(t, "plain", "hello", 0o644)
	file(t, "here", "#!/bin/sh\n", 0o755)
	file(t, "lost", "#!/no/such/interpreter\n", 0o755)
	if err := os.Mkdir("dir", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name     string
		notFound bool
		want     string
		hint     string
	}{
		{"no-such-program", true, "not found in PATH", ""},
		{"./no-such-program", true, "no such file or directory", ""},
		{"no/such/program", true, "no such file or directory", ""},
		{"here", true, "not found in PATH", "./here"},
		{"./lost", true, "no such file or directory", "interpreter"},
		{"./plain", false, "permission denied", "chmod +x"},
		{"./dir", false, "is a directory", ""},
		{"/", false, "is a directory", ""},
		{".", false, "is a directory", ""},
		{"./plain/x", false, "not a directory", ""},
	} {
		_, err := exec.Find(test.name)
		e, ok := errors.AsType[*exec.NotRunnableError](err)
		if !ok || e.NotFound != test.notFound || e.Name != test.name {
			t.Errorf("Find(%q) = %#v, want a NotRunnableError with NotFound %v", test.name, err, test.notFound)
			continue
		}
		if want := "cannot run " + test.name + ": " + test.want; !strings.HasPrefix(err.Error(), want) {
			t.Errorf("Find(%q) = %q, want one that begins %q", test.name, err, want)
		}
		if got := hint.Of(err); !strings.Contains(got, test.hint) || test.hint == "" && got != "" {
			t.Errorf("Find(%q) has the hint %q, want one that says %q", test.name, got, test.hint)
		}
	}
}
