package scm

import (
	"bytes"
	"iter"
	"strings"
)

// Begin is what an fdkit payload begins with: the variable FDKIT, whose value
// is the version of the format.
const Begin = "FDKIT=1\x00"

// AppendVar appends one variable to a payload. A NUL would end the value
// early and let it smuggle in another variable, so the value ends before it.
func AppendVar(payload []byte, name, value string) []byte {
	value, _, _ = strings.Cut(value, "\x00")
	payload = append(payload, name...)
	payload = append(payload, '=')
	payload = append(payload, value...)
	return append(payload, 0)
}

// Vars yields the variables of a payload in order, each as name and value. A
// payload that does not begin with Begin has none: it is a foreign sender's. An
// unterminated end is what truncation leaves and is passed over, and so is
// whatever is no variable.
func Vars(payload []byte) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for entry := range Entries(payload) {
			name, value, _ := strings.Cut(string(entry[:len(entry)-1]), "=")
			if !yield(name, value) {
				return
			}
		}
	}
}

// Entries yields the variables of a payload as they stand in it, each NAME=VALUE
// and a NUL.
func Entries(payload []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		rest, ours := bytes.CutPrefix(payload, []byte(Begin))
		for ours {
			end := bytes.IndexByte(rest, 0)
			if end < 0 {
				return
			}
			entry := rest[:end+1]
			rest = rest[end+1:]
			name, _, ok := bytes.Cut(entry, []byte("="))
			if ok && ValidName(string(name)) && !yield(entry) {
				return
			}
		}
	}
}

// Var returns the value of the first variable of that name.
func Var(payload []byte, name string) (string, bool) {
	for n, v := range Vars(payload) {
		if n == name {
			return v, true
		}
	}
	return "", false
}

// ValidName tells whether name is a variable name as the shell has it (POSIX
// XBD 3.216): letters, digits and underscores, not beginning with a digit.
func ValidName(name string) bool {
	for i, c := range []byte(name) {
		letter := c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}
