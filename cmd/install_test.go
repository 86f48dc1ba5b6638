//go:build linux

package cmd_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestInstall runs scripts/install in a tree that has a program of its own, and
// the repository's manual pages and completion scripts.
func TestInstall(t *testing.T) {
	tree := filepath.Join(t.TempDir(), "a tree")
	for _, dir := range []string{"scripts", "man"} {
		if err := os.MkdirAll(tree, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(absolute(t, "../"+dir), filepath.Join(tree, dir)); err != nil {
			t.Fatal(err)
		}
	}
	script := filepath.Join(tree, "scripts/install")
	dest := filepath.Join(t.TempDir(), "the dest")

	stderr := "install: cannot install bin/fdkit: it is not built\ninstall: hint: make builds it\n"
	checkInstall(t, 111, "", stderr, script, "--destdir", dest)
	if _, err := os.Stat(dest); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("with bin/fdkit missing, %s is made: %v", dest, err)
	}

	if err := os.Mkdir(filepath.Join(tree, "bin"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tree, "bin/fdkit"), []byte("program"), 0o700); err != nil {
		t.Fatal(err)
	}
	sources := map[string]string{ // by target, below the prefix
		"bin/fdkit": "bin/fdkit",
		"share/bash-completion/completions/fdkit":    "scripts/completion/fdkit.bash",
		"share/zsh/site-functions/_fdkit":            "scripts/completion/_fdkit",
		"share/fish/vendor_completions.d/fdkit.fish": "scripts/completion/fdkit.fish",
		"share/doc/fdkit/systemd/fdkit-web.socket":   "scripts/systemd/fdkit-web.socket",
		"share/man/man1/fdkit.1":                     "man/fdkit.1",
		"share/man/man7/fdkit-protocol.7":            "man/fdkit-protocol.7",
	}
	for range 2 { // the second time over the first
		out := checkInstall(t, 0, "installed", "", script, "--prefix=/usr", "--destdir", dest+"/")
		for target, source := range sources {
			target = filepath.Join(dest, "usr", target)
			got, err := os.ReadFile(target)
			want, wantErr := os.ReadFile(filepath.Join(tree, source))
			if err != nil || wantErr != nil || !bytes.Equal(got, want) {
				t.Errorf("%s is not %s: %v, %v", target, source, err, wantErr)
			}
			if !strings.Contains(out, "installed "+target+"\n") {
				t.Errorf("scripts/install says %q; want a line for %s", out, target)
			}
			mode := fs.FileMode(0o644)
			if source == "bin/fdkit" {
				mode = 0o755
			}
			if info, err := os.Stat(target); err == nil && info.Mode() != mode {
				t.Errorf("%s has mode %v; want %v", target, info.Mode(), mode)
			}
		}
		if said, are := strings.Count(out, "installed "), filesBelow(t, dest); said != len(are) {
			t.Errorf("scripts/install names %d files and has installed %q", said, are)
		}
	}

	foreign := filepath.Join(dest, "usr/bin/other")
	if err := os.WriteFile(foreign, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	checkInstall(t, 0, "removed", "", script, "--uninstall", "--prefix", "/usr", "--destdir="+dest)
	if left := filesBelow(t, dest); !slices.Equal(left, []string{foreign}) {
		t.Errorf("scripts/install --uninstall leaves %q; want %q", left, foreign)
	}
	checkInstall(t, 0, "", "", script, "--uninstall", "--prefix", "/usr", "--destdir", dest)

	checkInstall(t, 111, "", "install: cannot make directory "+foreign+"/bin: not a directory\n", script, "--prefix", foreign)
	checkInstall(t, 100, "", "install: option --prefix needs a value\n", script, "--prefix")
	checkInstall(t, 100, "", "install: the prefix \"lib\" is no absolute path\n", script, "--prefix=lib")
	checkInstall(t, 100, "", "install: there is no option --force\ninstall: hint: scripts/install --help lists the options\n", script, "--force")
	checkInstall(t, 100, "", "install: there is no use for operand /usr\ninstall: hint: a directory is given as --prefix /usr\n", script, "/usr")
	checkInstall(t, 0, "usage: ", "", script, "--help")
}

// checkInstall runs the script. What it prints must begin with stdout, and be
// empty if that is.
func checkInstall(t *testing.T, status int, stdout, stderr, script string, args ...string) string {
	t.Helper()
	command := exec.Command("sh", append([]string{script}, args...)...)
	command.Env = append(os.Environ(), "PREFIX=", "DESTDIR=")
	var out, errOut bytes.Buffer
	command.Stdout, command.Stderr = &out, &errOut
	err := command.Run()
	if command.ProcessState == nil {
		t.Fatal(err)
	}
	got := command.ProcessState.ExitCode()
	if got != status || errOut.String() != stderr || !strings.HasPrefix(out.String(), stdout) || stdout == "" && out.Len() > 0 {
		t.Fatalf("scripts/install %q: exit status %d, stderr %q, stdout %q; want %d, %q, %q",
			args, got, errOut.String(), out.String(), status, stderr, stdout)
	}
	return out.String()
}

func filesBelow(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
