//go:build linux

package cmd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"fdkit/internal/fdtest"
)

// units returns copies of the units in scripts/systemd, whose programs are where they
// can be found.
func units(t *testing.T) (files []string) {
	t.Helper()
	binary, err := fdkit()
	if err != nil {
		t.Fatalf("go build fdkit: %v", err)
	}
	dir := t.TempDir()
	sources, err := filepath.Glob("../scripts/systemd/*")
	if err != nil || len(sources) == 0 {
		t.Fatalf("no units in ../scripts/systemd (%v)", err)
	}
	programs := strings.NewReplacer("ExecStart=fdkit ", "ExecStart="+filepath.Join(binary, "fdkit")+" ",
		"/usr/local/libexec/fdkit-web-handler", "/bin/cat")
	for _, source := range sources {
		text, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, filepath.Base(source))
		if err := os.WriteFile(file, []byte(programs.Replace(string(text))), 0o666); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	return files
}

// TestUnits lets systemd read the units, which it can where it does not run, and
// holds the services to being confined.
func TestUnits(t *testing.T) {
	fdtest.NeedsProgram(t, "systemd-analyze")
	files := units(t)
	verify := exec.Command("systemd-analyze", append([]string{"verify", "--man=no"}, files...)...)
	if out, err := verify.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v: %v\n%s", verify, err, out)
	}
	for _, file := range files {
		if !strings.HasSuffix(file, ".service") {
			continue
		}
		// Exposure in tenths, from 0, the best, to 100.
		const limit = 10
		security := exec.Command("systemd-analyze", "security", "--offline=true", "--threshold="+strconv.Itoa(limit), file)
		if out, err := security.CombinedOutput(); err != nil {
			t.Errorf("%s has an exposure above %d tenths: %v\n%s", filepath.Base(file), limit, err, out)
		}
	}
}

// TestUnitsCommands runs the commands of the services as far as the start, for
// mistakes in their options.
func TestUnitsCommands(t *testing.T) {
	files := units(t)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^ExecStart=(\S+) (.*)$`).FindAllStringSubmatch(string(text), -1) {
			args := strings.Fields(m[2])
			// The last word is the address or the program: with another one the
			// command gets no further.
			args[len(args)-1] = map[string]string{"listen": "systemd:nosuch", "pool": "/nosuch/program"}[args[0]]
			command := exec.Command(m[1], args...)
			out, err := command.CombinedOutput()
			if command.ProcessState == nil {
				t.Fatal(err)
			}
			status := command.ProcessState.ExitCode()
			if want := map[string]int{"listen": 111, "pool": 127}[args[0]]; status != want {
				t.Errorf("%s: %q ends with status %d, want %d:\n%s", filepath.Base(file), args, status, want, out)
			}
		}
	}
}
