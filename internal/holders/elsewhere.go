//go:build linux

package holders

import (
	"cmp"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// elsewhere looks for files that a process holds without a descriptor.
func (s *search) elsewhere(pid int, dir string) (failed error) {
	isExecutable := map[int]bool{}
	for name, place := range map[string]Place{"exe": Executable, "cwd": Directory, "root": Root} {
		link, err := os.Readlink(dir + "/" + name)
		if err != nil {
			failed = cmp.Or(failed, serious(err))
			continue
		}
		for _, i := range s.are(link, dir+"/"+name) {
			s.wanted[i].holders = append(s.wanted[i].holders, Holder{PID: pid, Place: place})
			isExecutable[i] = isExecutable[i] || place == Executable
		}
	}
	text, err := os.ReadFile(dir + "/maps")
	if err != nil {
		return cmp.Or(failed, serious(err))
	}
	access := map[int]string{} // of all parts together
	for line := range strings.Lines(string(text)) {
		m, ok := parseMapping(line)
		if !ok {
			continue
		}
		for _, i := range s.areMapped(m, dir) {
			access[i] += m.access
		}
	}
	for i, letters := range access {
		if isExecutable[i] {
			continue // and so it is mapped
		}
		all := ""
		for _, letter := range []string{"r", "w", "x"} {
			if strings.Contains(letters, letter) {
				all += letter
			}
		}
		s.wanted[i].holders = append(s.wanted[i].holders, Holder{PID: pid, Place: Mapped, Access: all})
	}
	return failed
}

// mapping is a line of /proc/PID/maps that is of a file.
type mapping struct {
	addresses string
	access    string // letters of r, w, x: w only if what is written goes to the file
	file      string // device, inode and path, as they are in the line
	dev, ino  uint64
}

// parseMapping parses a line, proc_pid_maps(5):
//
//	7f5c8a000000-7f5c8a021000 rw-s 00000000 fd:01 12345      /var/lib/a file (deleted)
func parseMapping(line string) (m mapping, ok bool) {
	fields := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 5)
	if len(fields) < 5 || len(fields[1]) != 4 {
		return m, false
	}
	major, minor, _ := strings.Cut(fields[3], ":")
	inode, _, _ := strings.Cut(fields[4], " ")
	high, err1 := strconv.ParseUint(major, 16, 32)
	low, err2 := strconv.ParseUint(minor, 16, 32)
	ino, err3 := strconv.ParseUint(inode, 10, 64)
	if err1 != nil || err2 != nil || err3 != nil || ino == 0 {
		return m, false
	}
	m = mapping{addresses: fields[0], file: fields[3] + " " + fields[4], dev: mkdev(high, low), ino: ino}
	for i, letter := range "rwx" {
		if fields[1][i] == byte(letter) && (letter != 'w' || fields[1][3] == 's') {
			m.access += string(letter)
		}
	}
	return m, true
}

// areMapped returns which of the wanted things are mapped. Some file systems, such as
// overlayfs and btrfs, have another device or inode in maps than in stat(2); root can
// ask for the latter.
func (s *search) areMapped(m mapping, dir string) []int {
	which, known := s.mapped[m.file]
	if !known {
		which = s.byInode[[2]uint64{m.dev, m.ino}]
		if f, err := stat(dir + "/map_files/" + m.addresses); err == nil {
			which = s.byInode[[2]uint64{mkdev(uint64(f.Dev_major), uint64(f.Dev_minor)), f.Ino}]
		}
		s.mapped[m.file] = which
	}
	return which
}

func mkdev(major, minor uint64) uint64 { return unix.Mkdev(uint32(major), uint32(minor)) }
