//go:build linux

package relay

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"fdkit/internal/hint"
	"fdkit/internal/unixpath"
)

// Endpoint is where a Unix socket listens, or is to listen.
type Endpoint struct {
	Path string // or @NAME, an abstract one
	Type int    // SOCK_STREAM, SOCK_SEQPACKET or SOCK_DGRAM; 0: that of the other side
}

// types are those of sockets, by what stands before a path.
var types = map[string]int{"unix": unix.SOCK_STREAM, "unix-seqpacket": unix.SOCK_SEQPACKET, "unix-dgram": unix.SOCK_DGRAM}

// TypeName returns what stands before a path for sockets of that type.
func TypeName(typ int) string {
	for name, t := range types {
		if t == typ {
			return name
		}
	}
	return fmt.Sprintf("type %d", typ)
}

// ParseEndpoint parses PATH, @NAME, unix:PATH, unix-seqpacket:PATH and unix-dgram:PATH.
func ParseEndpoint(text string) (e Endpoint, err error) {
	e.Path = text
	kind, path, prefixed := strings.Cut(text, ":")
	if typ, known := types[kind]; prefixed && known {
		e = Endpoint{Path: path, Type: typ}
	} else if prefixed && !strings.ContainsAny(kind, "/@.") {
		return e, hint.Wrap(fmt.Errorf("there is no kind of socket %q", kind),
			"a socket is /PATH, ./PATH, @NAME, unix:PATH, unix-seqpacket:PATH or unix-dgram:PATH")
	}
	return e, unixpath.Check(e.Path)
}

// TypeOf tells the type of the socket that somebody has bound to path. Only one of type
// SOCK_SEQPACKET gets to see a connection by that, which ends at once: of another type
// the kernel refuses it, EPROTOTYPE in unix_find_bsd() of net/unix/af_unix.c, and a
// datagram socket is not told.
func TypeOf(path string) (int, error) {
	for _, typ := range []int{unix.SOCK_DGRAM, unix.SOCK_SEQPACKET} {
		fd, err := unix.Socket(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return 0, os.NewSyscallError("socket", err)
		}
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		_ = unix.Close(fd)
		switch {
		case err == unix.EPROTOTYPE:
		case err == nil, typ == unix.SOCK_SEQPACKET && err == unix.EAGAIN, // its backlog is full
			err == unix.EPERM: // a datagram socket that is connected to another one
			return typ, nil
		default:
			return 0, os.NewSyscallError("connect", err)
		}
	}
	return unix.SOCK_STREAM, nil
}

// settle gives both endpoints their type, and tells whether somebody serves the target.
func settle(listen, target *Endpoint) (served bool, err error) {
	if info, err := os.Lstat(target.Path); err == nil && info.Mode().Type() != fs.ModeSocket && !unixpath.Abstract(target.Path) {
		return false, fmt.Errorf("cannot relay to %s: %w", target.Path, unixpath.ErrNotSocket)
	}
	found, err := TypeOf(target.Path)
	absent := errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED)
	for _, typ := range []int{target.Type, listen.Type} {
		switch {
		case typ == 0:
		case err == nil && typ != found:
			return false, fmt.Errorf("cannot relay to %s: it is a socket of another type, %s", target.Path, TypeName(found))
		default:
			found, err = typ, nil
		}
	}
	if absent && err != nil {
		err = hint.Wrap(err, "start the program that serves it first, or say of what type it will be: unix:"+target.Path)
	}
	if err != nil {
		return false, fmt.Errorf("cannot find out the type of %s: %w", target.Path, err)
	}
	listen.Type, target.Type = found, found
	return !absent, nil
}
