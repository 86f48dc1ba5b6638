//go:build linux

package sockdiag

import (
	"bytes"
	"encoding/binary"
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Unix is a Unix socket.
type Unix struct {
	Type                 int    // SOCK_STREAM, SOCK_DGRAM or SOCK_SEQPACKET
	Name                 string // a path, an abstract name with @ for each NUL, or "" if it has none
	Dev, Ino             uint64 // of the file that it is bound to; 0 if there is none
	Listening, Connected bool
	Inode                uint64 // 0: no process can have it, as it is not accepted yet, or closed
	HasPeer              bool
	Peer                 uint64 // the inode of the other end, as Inode
}

// unixRequest is struct unix_diag_req, linux/unix_diag.h.
type unixRequest struct {
	family uint8
	_      [3]uint8 // sdiag_protocol, pad
	states uint32
	inode  uint32
	show   uint32
	cookie [2]uint32
}

// unixAnswer is struct unix_diag_msg.
type unixAnswer struct {
	family, kind, state, pad uint8
	inode                    uint32
	cookie                   [2]uint32
}

const (
	showName, showVFS, showPeer = 1, 2, 4 // UDIAG_SHOW_...
	attrName, attrVFS, attrPeer = 0, 1, 2 // UNIX_DIAG_...
	established                 = 1       // TCP_ESTABLISHED: SS_CONNECTED, of Unix sockets too
)

// Unix returns all Unix sockets.
func (c *Conn) Unix() (all []Unix, err error) {
	request := unixRequest{family: unix.AF_UNIX, states: ^uint32(0), show: showName | showVFS | showPeer}
	err = ask(c, request, true, func(data []byte) {
		if s, ok := parseUnix(data); ok {
			all = append(all, s)
		}
	})
	return all, err
}

// UnixSocket returns the Unix socket that has the inode. It is ErrNoSocket if none has.
func (c *Conn) UnixSocket(inode uint64) (s Unix, err error) {
	request := unixRequest{family: unix.AF_UNIX, states: ^uint32(0), inode: uint32(inode), show: showName | showVFS | showPeer}
	request.cookie = [2]uint32{^uint32(0), ^uint32(0)} // INET_DIAG_NOCOOKIE: whichever it has
	ok := false
	err = ask(c, request, false, func(data []byte) { s, ok = parseUnix(data) })
	if errors.Is(err, unix.ENOENT) || err == nil && !ok {
		err = ErrNoSocket
	}
	return s, err
}

func parseUnix(data []byte) (s Unix, ok bool) {
	var a unixAnswer
	size := int(unsafe.Sizeof(a))
	if len(data) < size {
		return s, false
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&a)), size), data)
	s = Unix{Type: int(a.kind), Listening: a.state == listen, Connected: a.state == established, Inode: uint64(a.inode)}
	attributes(data[size:], func(kind uint16, value []byte) {
		switch {
		case kind == attrName && len(value) > 0 && value[0] == 0:
			s.Name = string(bytes.ReplaceAll(value, []byte{0}, []byte("@"))) // as fdinfo has it
		case kind == attrName:
			s.Name = string(bytes.TrimRight(value, "\x00"))
		case kind == attrVFS && len(value) >= 8: // struct unix_diag_vfs
			s.Ino = uint64(binary.NativeEndian.Uint32(value))
			s.Dev = userDevice(binary.NativeEndian.Uint32(value[4:]))
		case kind == attrPeer && len(value) >= 4:
			s.HasPeer, s.Peer = true, uint64(binary.NativeEndian.Uint32(value))
		}
	})
	return s, true
}

// userDevice turns a device number as the kernel has it, MKDEV() in
// include/linux/kdev_t.h, into that of stat(2).
func userDevice(dev uint32) uint64 { return unix.Mkdev(dev>>20, dev&(1<<20-1)) }
