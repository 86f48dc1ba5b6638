//go:build linux

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// process is one of a contestant's.
type process struct {
	pid     int
	name    string // comm, proc(5)
	rss     int64  // bytes
	pss     int64  // bytes: of pages that several share, each has its part
	private int64  // bytes: of no file, and shared with nobody
}

// processes returns all processes but this one, by pid: they are those of the server
// that runs.
func processes() (all []process, err error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid == os.Getpid() {
			continue
		}
		p, err := processOf(pid)
		if err != nil {
			continue // it has ended
		}
		all = append(all, p)
	}
	return all, nil
}

func processOf(pid int) (p process, err error) {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return p, err
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return p, err
	}
	p = process{pid: pid, name: strings.TrimSuffix(string(name), "\n")}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) != 3 || fields[2] != "kB" {
			continue
		}
		kib, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			return p, err
		}
		switch fields[0] {
		case "Pss:":
			p.pss = kib << 10
		case "Private_Dirty:":
			p.private = kib << 10
		case "Rss:":
			p.rss = kib << 10
		}
	}
	return p, nil
}

// pss returns the memory of all processes of the server that runs, in bytes.
func pss() (sum int64, err error) {
	all, err := processes()
	for _, p := range all {
		sum += p.pss
	}
	return sum, err
}
