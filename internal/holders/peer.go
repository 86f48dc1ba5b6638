//go:build linux

package holders

import (
	"errors"
	"strconv"

	"golang.org/x/sys/unix"

	"fdkit/internal/pidfd"
	"fdkit/internal/sockdiag"
)

// Peer is the other end of a connection.
type Peer struct {
	Inode uint64 // 0: no process can have it: it waits to be accepted, or is closed
}

// Thing returns the other end's socket.
func (p Peer) Thing() Thing { return Socket(p.Inode) }

// Socket returns the socket with that inode.
func Socket(inode uint64) Thing { return Thing{Link: "socket:[" + strconv.FormatUint(inode, 10) + "]"} }

// PeerOf returns the other end of a socket, if it is one of TCP or Unix and the other
// end is in the same network namespace; else nil.
func PeerOf(t Thing) (*Peer, error) {
	inode, ok := socketInode(t.Link)
	if !ok {
		return nil, nil
	}
	conn, err := connectFor(t)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	switch s, err := conn.UnixSocket(inode); {
	case err == nil && s.HasPeer:
		return &Peer{s.Peer}, nil
	case err == nil:
		return nil, nil
	case !errors.Is(err, sockdiag.ErrNoSocket):
		return nil, err
	}
	all, err := conn.Inet(unix.IPPROTO_TCP, false)
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		if s.Inode != inode || s.Listening {
			continue
		}
		for _, other := range all {
			if other.Local == s.Remote && other.Remote == s.Local {
				return &Peer{other.Inode}, nil
			}
		}
	}
	return nil, nil
}

// connectFor connects to the kernel for the network namespace of a socket, as far as
// that is allowed.
func connectFor(t Thing) (*sockdiag.Conn, error) {
	if t.Descriptor == nil {
		return sockdiag.Open()
	}
	if fd, err := pidfd.Get(t.Descriptor.PID, t.Descriptor.FD); err == nil {
		defer unix.Close(fd)
		if conn, err := sockdiag.OpenOf(fd); err == nil {
			return conn, nil
		}
	}
	return sockdiag.Open()
}

func socketInode(link string) (uint64, bool) {
	if len(link) < len("socket:[]") || link[:len("socket:[")] != "socket:[" {
		return 0, false
	}
	inode, err := strconv.ParseUint(link[len("socket:["):len(link)-1], 10, 64)
	return inode, err == nil
}
