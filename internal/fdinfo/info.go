//go:build linux

package fdinfo

import (
	"iter"
	"strconv"
	"strings"
)

// info is the text of /proc/PID/fdinfo/FD, proc_pid_fdinfo(5).
type info struct {
	flags uint64
	lines []infoLine
}

type infoLine struct{ name, value string }

// parseInfo parses the text. Every kind of file adds lines of its own after pos,
// flags, mnt_id and ino, and what is in them may come from the process: the first
// line of a name counts.
func parseInfo(text []byte) (i info) {
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok {
			i.lines = append(i.lines, infoLine{name, strings.TrimSpace(value)})
		}
	}
	i.flags, _ = strconv.ParseUint(i.first("flags"), 8, 64)
	return i
}

// first returns the value of the first line of that name, or "".
func (i info) first(name string) string {
	for value := range i.all(name) {
		return value
	}
	return ""
}

// all returns the values of all lines of that name.
func (i info) all(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, line := range i.lines {
			if line.name == name && !yield(line.value) {
				return
			}
		}
	}
}

// number returns the value of the first line of that name if it is a decimal number.
func (i info) number(name string) (n int64, ok bool) {
	n, err := strconv.ParseInt(i.first(name), 10, 64)
	return n, err == nil
}

// pairs returns what a line such as "3 events: 19 data: ff" or "1 ino:3c4a3" has by
// name; the value before the first name has the name "".
func pairs(line string) map[string]string {
	found := map[string]string{}
	name := ""
	for _, word := range strings.Fields(line) {
		before, after, named := strings.Cut(word, ":")
		if named {
			if name = before; after == "" {
				continue
			}
			word = after
		}
		if _, twice := found[name]; !twice {
			found[name] = word
		}
	}
	return found
}

// bits returns the names of the bits that are set; what has no name is given as a
// hexadecimal number.
func bits(value uint64, names []bitName) (set []string) {
	for _, b := range names {
		if value&b.bit != 0 {
			set = append(set, b.name)
			value &^= b.bit
		}
	}
	if value != 0 {
		set = append(set, "0x"+strconv.FormatUint(value, 16))
	}
	return set
}

type bitName struct {
	bit  uint64
	name string
}
