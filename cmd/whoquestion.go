//go:build linux

package cmd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdinfo"
	"fdkit/internal/holders"
	"fdkit/internal/sockdiag"
)

var inodeLink = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^(socket|pipe):\[([0-9]+)\]$`) })

// parseQuestion parses an operand of fdkit who. Its errors are those of wrong usage.
func parseQuestion(operand string) (question, error) {
	q := question{operand: operand}
	pid, fd, colon := strings.Cut(operand, ":")
	number, isNumber := parseNumber(pid)
	descriptor, isDescriptor := parseDescriptor(fd)
	own, isOwn := parseDescriptor(operand)
	switch {
	case inodeLink().MatchString(operand):
		q.things = func() ([]subject, error) { return inodes(operand), nil }
	case isOwn && inherited(own):
		q.things = func() ([]subject, error) { return ofOwn(own) }
	case isNumber && !colon:
		q.asInode = true
		q.things = func() ([]subject, error) { return inodes("socket:["+pid+"]", "pipe:["+pid+"]"), nil }
	case isOwn:
		return q, usagef("descriptor %s is not open", operand)
	case colon && isNumber && isDescriptor && number > 0 && number < 1<<31:
		q.things = func() ([]subject, error) { return ofProcess(int(number), descriptor) }
	case isPath(operand):
		q.things = func() ([]subject, error) { return ofPath(operand) }
	case colon, strings.HasPrefix(operand, "@"):
		at, err := parseLocalAddress(operand)
		q.things = func() ([]subject, error) { return listeners(at) }
		return q, err
	default:
		if _, err := os.Lstat(operand); err != nil {
			return q, usageHint("a descriptor is FD or PID:FD, a socket or pipe also its INODE, an address :PORT or unix:PATH, a file ./NAME",
				"%q is no descriptor, file, inode or address", operand)
		}
		q.things = func() ([]subject, error) { return ofPath(operand) }
	}
	return q, nil
}

func parseNumber(text string) (uint64, bool) {
	n, err := strconv.ParseUint(text, 10, 63)
	return n, err == nil
}

// inodes are the sockets or pipes that have these links in /proc/PID/fd.
func inodes(links ...string) (all []subject) {
	for _, link := range links {
		what := fdinfo.Description{FD: -1, Kind: fdinfo.Pipe, Name: link}
		m := inodeLink().FindStringSubmatch(link)
		what.Inode, _ = strconv.ParseUint(m[2], 10, 64)
		if m[1] == "socket" {
			what.Kind = fdinfo.Socket
		}
		all = append(all, subject{holders.Thing{Link: link}, what, len(links) > 1})
	}
	return all
}

func ofOwn(fd int) ([]subject, error) {
	what, err := fdinfo.Describe(fd)
	if err != nil {
		return nil, err
	}
	return ofDescriptor(what, holders.Descriptor{PID: os.Getpid(), FD: fd})
}

func ofProcess(pid, fd int) ([]subject, error) {
	p, err := fdinfo.Open(pid)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	what, err := p.Describe(fd)
	if err != nil {
		return nil, err
	}
	return ofDescriptor(what, holders.Descriptor{PID: pid, FD: fd})
}

func ofDescriptor(what fdinfo.Description, d holders.Descriptor) ([]subject, error) {
	thing, err := holders.OfDescriptor(d)
	return []subject{{thing, what, false}}, err
}

// ofPath is a file or, of a Unix socket, what is bound to it.
func ofPath(path string) ([]subject, error) {
	// Nobody is told of it, and nothing waits: open(2), O_PATH.
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	defer unix.Close(fd)
	what, err := fdinfo.Describe(fd)
	if err != nil {
		return nil, err
	}
	thing, err := holders.OfFile("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return nil, err
	}
	if what.Kind == fdinfo.SocketFile {
		return boundUnix(func(s sockdiag.Unix) bool { return s.Dev == thing.Dev && s.Ino == thing.Ino })
	}
	what.FD, what.Access, what.CloseOnExec = -1, "", false // those of this look
	return []subject{{thing, what, false}}, nil
}

// listeners are the sockets at an address: those that are bound to just that one or, if
// there are none, to all.
func listeners(at localAddress) ([]subject, error) {
	if at.protocol == "unix" {
		if !strings.HasPrefix(at.path, "@") {
			subjects, err := ofPath(at.path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil, nil // and so nobody listens there
			}
			return subjects, err
		}
		return boundUnix(func(s sockdiag.Unix) bool { return s.Name == at.path })
	}
	conn, err := sockdiag.Open()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	protocol := map[string]int{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP}[at.protocol]
	all, err := conn.Inet(protocol, true)
	if err != nil {
		return nil, err
	}
	found := map[fit][]subject{}
	for _, s := range all {
		f := at.of(s.Local, s.OnlyIPv6)
		info := &fdinfo.SocketInfo{Family: "inet", Type: "stream", Protocol: at.protocol, Listening: s.Listening, Local: s.Local.String()}
		if s.Family == unix.AF_INET6 {
			info.Family = "inet6"
		}
		if at.protocol == "udp" {
			info.Type = "dgram"
		}
		found[f] = append(found[f], ofSocket(s.Inode, info))
	}
	if found[fits] != nil {
		return found[fits], nil
	}
	return found[fitsAll], nil
}

// boundUnix are the Unix sockets that clients of a name reach: not those of the
// connections, which have the same name.
func boundUnix(is func(sockdiag.Unix) bool) (all []subject, err error) {
	conn, err := sockdiag.Open()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	sockets, err := conn.Unix()
	for _, s := range sockets {
		if is(s) && (s.Type == unix.SOCK_DGRAM || !s.Connected) {
			kind := map[int]string{unix.SOCK_STREAM: "stream", unix.SOCK_DGRAM: "dgram", unix.SOCK_SEQPACKET: "seqpacket"}[s.Type]
			info := &fdinfo.SocketInfo{Family: "unix", Type: kind, Listening: s.Listening, Local: "unix:" + s.Name}
			all = append(all, ofSocket(s.Inode, info))
		}
	}
	return all, err
}

func ofSocket(inode uint64, info *fdinfo.SocketInfo) subject {
	thing := holders.Socket(inode)
	return subject{Thing: thing, what: fdinfo.Description{FD: -1, Kind: fdinfo.Socket, Name: thing.Link, Inode: inode, Socket: info}}
}
