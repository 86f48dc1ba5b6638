//go:build linux

package main

import (
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// circumstances is what figures depend on: it stands before each table.
func (b *bench) circumstances() []string {
	var name unix.Utsname
	_ = unix.Uname(&name)
	return []string{
		"Command: `" + strings.Join(append([]string{"bench"}, os.Args[1:]...), " ") + "`",
		"Date: " + time.Now().UTC().Format("2006-01-02 15:04 MST"),
		"Kernel: Linux " + unix.ByteSliceToString(name.Release[:]) + " " + unix.ByteSliceToString(name.Machine[:]),
		"CPU: " + strconv.Itoa(runtime.NumCPU()) + " of " + cpuModel(),
		"fdkit: " + firstLine(b.fdkit, "--version") + ", built with " + firstLine("go", "version", "-m", b.fdkit),
		"C: " + firstLine("gcc", "--version"),
	}
}

func cpuModel() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// firstLine returns what a command says first of itself.
func firstLine(command ...string) string {
	out, err := exec.Command(command[0], command[1:]...).Output()
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimPrefix(strings.TrimSpace(line), command[len(command)-1]+": ")
}

// packageVersion returns the version of an installed Debian package, or "".
func packageVersion(name string) string {
	out, err := exec.Command("dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", name).Output()
	version, installed := strings.CutPrefix(strings.TrimSpace(string(out)), "installed ")
	if err == nil && installed {
		return version
	}
	// Of openbsd-inetd only the program is installed, see scripts/install-test-programs.
	out, _ = exec.Command("apt-cache", "--no-all-versions", "show", name).Output()
	for line := range strings.Lines(string(out)) {
		if version, ok := strings.CutPrefix(line, "Version: "); ok {
			return strings.TrimSpace(version)
		}
	}
	return ""
}
