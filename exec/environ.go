//go:build linux

package exec

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdinfo"
	"fdkit/internal/scm"
)

// Environ makes the environment of programs. A variable that describes the
// connection comes from the connection or is unset; it is never inherited.
type Environ struct {
	base   []*byte  // NAME=VALUE and NUL
	accept []string // further names that may come with a message; NAME or PREFIX*
	// dialect has the variables that AddDialects has added.
	dialect []dialectVar
}

// NewEnviron returns an Environ of base, a list of NAME=VALUE, less the variables
// that describe connections. The names in accept are taken from messages as
// well; a * at the end stands for anything. It refuses names that make
// programs run other code, such as PATH and LD_PRELOAD.
func NewEnviron(base []string, accept ...string) (*Environ, error) {
	for _, name := range accept {
		prefix, _ := strings.CutSuffix(name, "*")
		if prefix != "" && !scm.ValidName(prefix) || name == "" {
			return nil, fmt.Errorf("%q is no variable name", name)
		}
		if dangerous(prefix) {
			return nil, fmt.Errorf("%s is never taken from a message", name)
		}
	}
	e := &Environ{accept: accept}
	for _, v := range base {
		if name, _, _ := strings.Cut(v, "="); !e.fromMessage(name) {
			entry, err := unix.BytePtrFromString(v)
			if err != nil {
				return nil, fmt.Errorf("%q has a NUL byte in it", v)
			}
			e.base = append(e.base, entry)
		}
	}
	return e, nil
}

// For returns the environment for the connection fd that came with payload. If
// the payload has no variables, the socket itself is asked who its ends are.
func (e *Environ) For(fd int, payload []byte) []string {
	var b envBlock
	e.fill(&b, fd, payload)
	return b.strings()
}

// envBlock is an environment as execve(2) takes it.
type envBlock struct {
	entries []*byte  // each NAME=VALUE and NUL; then nil
	names   [][]byte // of those that came with the connection
	asked   []byte   // what the socket said
}

// fill makes b the environment for a connection, without a copy: its entries
// point into payload.
func (e *Environ) fill(b *envBlock, fd int, payload []byte) {
	b.entries = append(b.entries[:0], e.base...)
	if !bytes.HasPrefix(payload, []byte(scm.Begin)) {
		b.asked = append(b.asked[:0], scm.Begin...)
		if c, ok := fdinfo.Connection(fd); ok {
			b.asked = c.AppendVars(b.asked)
		}
		payload = b.asked
	}
	b.names = b.names[:0]
	for entry := range scm.Entries(payload) {
		bare := entry[:bytes.IndexByte(entry, '=')]
		name := string(bare)
		// FDKIT is the version of the payload, of no use to a program. Of two with
		// the same name the first counts.
		if name != "FDKIT" && e.fromMessage(name) && !e.inDialect(name) && !b.has(bare) {
			b.entries, b.names = append(b.entries, &entry[0]), append(b.names, bare)
		}
	}
	if e.dialect != nil {
		b.entries = e.appendDialects(b.entries, fd, payload)
	}
	b.entries = append(b.entries, nil)
}

func (b *envBlock) has(name []byte) bool {
	return slices.ContainsFunc(b.names, func(known []byte) bool { return bytes.Equal(known, name) })
}

func (b *envBlock) strings() (all []string) {
	for _, entry := range b.entries[:len(b.entries)-1] {
		all = append(all, unix.BytePtrToString(entry))
	}
	return all
}

// fromMessage tells whether a variable may come with a message.
func (e *Environ) fromMessage(name string) bool {
	return DescribesConnection(name) || !dangerous(name) && slices.ContainsFunc(e.accept, func(accepted string) bool {
		prefix, any := strings.CutSuffix(accepted, "*")
		return name == prefix || any && strings.HasPrefix(name, prefix)
	})
}

// DescribesConnection tells whether a variable of that name is one of UCSPI, CGI or
// fdkit, which come with the connection and from nowhere else.
func DescribesConnection(name string) bool {
	if dangerous(name) {
		return false
	}
	if name == "PROTO" || name == "FDKIT" {
		return true
	}
	for _, prefix := range []string{"TCP", "UNIX", "IPC", "SSL", "FDKIT_", "REMOTE_"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// dangerous tells whether whoever sets the variable chooses what code runs, what
// is trusted or how data is read. Such a name never comes from a message, even
// if the user says so.
func dangerous(name string) bool {
	switch name {
	case "PATH", "IFS", "ENV", "BASH_ENV", "SHELLOPTS", "BASHOPTS", "PS4", "CDPATH", "HOME", "SHELL",
		"SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE", "TMPDIR", "LOCPATH", "NLSPATH", "GCONV_PATH", "HOSTALIASES",
		"RES_OPTIONS", "LOCALDOMAIN", "TZDIR", "EDITOR", "PAGER", "VISUAL", "NODE_OPTIONS", "JAVA_TOOL_OPTIONS":
		return true
	}
	for _, prefix := range []string{"LD_", "BASH_FUNC_", "GLIBC_", "MALLOC_", "PERL", "PYTHON", "RUBY", "GIT_", "DYLD_"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}
