//go:build linux

package fdinfo

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// Conn is what is known of a connection.
type Conn struct {
	Local, Remote Address
	Peer          *unix.Ucred // of a Unix socket's peer, nil: unknown
}

// Connection asks the socket fd what it is. It returns false if fd is no
// connected stream or packet socket.
func Connection(fd int) (c Conn, ok bool) {
	local, ok := LocalAddress(fd)
	if !ok {
		return c, false
	}
	c.Local = local
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || kind != unix.SOCK_STREAM && (kind != unix.SOCK_SEQPACKET || !local.Unix) {
		return c, false // of UDP, say, which no variable tells of
	}
	if c.Remote, ok = PeerAddress(fd); !ok && !local.Unix {
		return c, true // reset meanwhile: the local side is still known
	}
	if local.Unix {
		c.Peer = PeerCredentials(fd)
	}
	return c, local.Unix || local.IP.IsValid()
}

// PeerCredentials returns who connected the Unix socket fd, or nil.
func PeerCredentials(fd int) *unix.Ucred {
	who, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil || who.Pid == 0 && int32(who.Uid) == -1 {
		return nil
	}
	return who
}

// AppendVars appends the UCSPI variables of the connection, as fdkit-environ(7)
// has them, each NAME=VALUE and a NUL. What is unknown is left out.
func (c *Conn) AppendVars(b []byte) []byte {
	switch {
	case c.Local.Unix:
		b = append(b, "PROTO=UNIX\x00"...)
		if c.Local.Path != "" {
			b = appendText(b, "UNIXLOCALPATH=", c.Local.Path)
		}
		if c.Remote.Path != "" {
			b = appendText(b, "UNIXREMOTEPATH=", c.Remote.Path)
		}
		if c.Peer != nil {
			b = appendNumber(b, "UNIXREMOTEEUID=", uint64(c.Peer.Uid))
			b = appendNumber(b, "UNIXREMOTEEGID=", uint64(c.Peer.Gid))
			if c.Peer.Pid > 0 { // 0: in another PID namespace
				b = appendNumber(b, "UNIXREMOTEPID=", uint64(c.Peer.Pid))
			}
		}
	case c.Local.IP.IsValid():
		b = append(b, "PROTO=TCP\x00"...)
		b = appendIP(b, "TCPLOCALIP=", c.Local)
		b = appendNumber(b, "TCPLOCALPORT=", uint64(c.Local.IP.Port()))
		if c.Remote.IP.IsValid() {
			b = appendIP(b, "TCPREMOTEIP=", c.Remote)
			b = appendNumber(b, "TCPREMOTEPORT=", uint64(c.Remote.IP.Port()))
			b = appendIP(b, "REMOTE_ADDR=", c.Remote)
			b = appendNumber(b, "REMOTE_PORT=", uint64(c.Remote.IP.Port()))
		}
	}
	return b
}

func appendText(b []byte, name, value string) []byte {
	return append(append(append(b, name...), value...), 0)
}

func appendNumber(b []byte, name string, value uint64) []byte {
	return append(strconv.AppendUint(append(b, name...), value, 10), 0)
}

func appendIP(b []byte, name string, a Address) []byte {
	return append(a.IP.Addr().AppendTo(append(b, name...)), 0)
}
