//go:build linux

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// cgroup counts the CPU time of all that runs in it, children included, also of those
// that have ended and that nobody has waited for: getrusage(2) does not know them.
type cgroup struct {
	dir string
	v2  bool
}

// newCgroup makes a cgroup below this process's own, of version 2, whose cpu.stat needs
// no controller, or else of the controller cpuacct of version 1.
func newCgroup() (*cgroup, error) {
	own, err := ownCgroups()
	if err != nil {
		return nil, err
	}
	err = errors.New("none is mounted")
	for _, g := range own {
		// Made for this run, whose number is that of the process outside.
		g.dir = filepath.Join(g.dir, fmt.Sprintf("fdkit-bench-%d", os.Getpid()))
		if err = os.Mkdir(g.dir, 0o755); err != nil {
			continue
		}
		if _, err = g.usage(); err == nil {
			return &g, nil
		}
		g.remove()
	}
	return nil, err
}

// openCgroup returns the cgroup that isolate has made.
func openCgroup() (*cgroup, error) {
	dir := os.Getenv(cgroupVar)
	if dir == "" {
		return nil, errors.New("there is no cgroup")
	}
	g := &cgroup{dir: dir}
	_, err := os.Stat(filepath.Join(dir, "cgroup.controllers"))
	g.v2 = err == nil
	_, err = g.usage()
	return g, err
}

// ownCgroups returns where this process's cgroups are in the file system, cgroups(7),
// the one to prefer first.
func ownCgroups() (all []cgroup, err error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	member, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	var old []cgroup
	for line := range strings.Lines(string(mounts)) {
		// ID PARENT DEVICE ROOT POINT OPTIONS [FIELD...] - TYPE SOURCE OPTIONS, proc(5)
		before, after, _ := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if len(left) < 5 || len(right) < 3 {
			continue
		}
		root, point := left[3], left[4]
		switch {
		case right[0] == "cgroup2":
			all = append(all, cgroup{memberPath(member, "", root, point), true})
		case right[0] == "cgroup" && hasWord(right[2], "cpuacct"):
			old = append(old, cgroup{memberPath(member, "cpuacct", root, point), false})
		}
	}
	return append(all, old...), nil
}

func hasWord(list, word string) bool {
	for one := range strings.SplitSeq(list, ",") {
		if one == word {
			return true
		}
	}
	return false
}

// memberPath returns the directory of the cgroup that a process is in, by its
// /proc/PID/cgroup, in the hierarchy of the controller, mounted from root at point.
func memberPath(member []byte, controller, root, point string) string {
	for line := range strings.Lines(string(member)) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) == 3 && hasWord(parts[1], controller) {
			if rel, err := filepath.Rel(root, parts[2]); err == nil && !strings.HasPrefix(rel, "..") {
				return filepath.Join(point, rel)
			}
		}
	}
	return point
}

// String returns the cgroup's directory.
func (g *cgroup) String() string {
	if g == nil {
		return ""
	}
	return g.dir
}

func (g *cgroup) remove() {
	if g != nil {
		_ = os.Remove(g.dir)
	}
}

// procs returns the file to which a process writes 0 to enter.
func (g *cgroup) procs() string {
	if g == nil {
		return ""
	}
	return filepath.Join(g.dir, "cgroup.procs")
}

// usage returns the CPU time that all in the cgroup have used so far.
func (g *cgroup) usage() (time.Duration, error) {
	if !g.v2 {
		text, err := os.ReadFile(filepath.Join(g.dir, "cpuacct.usage"))
		if err != nil {
			return 0, err
		}
		ns, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		return time.Duration(ns), err
	}
	text, err := os.ReadFile(filepath.Join(g.dir, "cpu.stat"))
	if err != nil {
		return 0, err
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "usage_usec "); ok {
			us, err := strconv.ParseInt(value, 10, 64)
			return time.Duration(us) * time.Microsecond, err
		}
	}
	return 0, fmt.Errorf("%s/cpu.stat has no usage_usec", g.dir)
}
