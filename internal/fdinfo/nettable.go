//go:build linux

package fdinfo

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// socketFromOutside tells what /proc knows of a socket that cannot be asked itself: the
// tables of its network namespace, if that is the one of its process.
func (v *view) socketFromOutside(s *SocketInfo) {
	// The name of struct proto, sockfs_xattr_get() in net/socket.c.
	buf := make([]byte, 64)
	n := v.xattr("system.sockprotoname", buf)
	name := strings.TrimRight(string(buf[:n]), "\x00")
	if strings.HasPrefix(name, "UNIX") { // UNIX-STREAM since Linux 5.15
		s.Family = "unix"
		if text, err := readAt(v.dir, "net/unix"); err == nil {
			s.unixTable(string(text), v.stat.Ino)
		}
		return
	}
	table, found := map[string]string{"TCP": "tcp", "TCPv6": "tcp6", "UDP": "udp", "UDPv6": "udp6"}[name]
	if !found {
		switch name = strings.TrimPrefix(strings.ToLower(name), "af_"); name {
		case "netlink", "packet", "vsock":
			s.Family = name
		default: // mptcp, raw, ping
			s.Protocol = name
		}
		return
	}
	s.Family, s.Type, s.Protocol = "inet", "stream", strings.TrimSuffix(table, "6")
	if strings.HasSuffix(table, "6") {
		s.Family = "inet6"
	}
	if s.Protocol == "udp" {
		s.Type = "dgram"
	}
	if text, err := readAt(v.dir, "net/"+table); err == nil {
		s.inetTable(string(text), v.stat.Ino)
	}
}

func (v *view) xattr(name string, buf []byte) int {
	n, err := unix.Getxattr(fmt.Sprintf("/proc/self/fd/%d/fd/%d", v.dir, v.fd), name, buf)
	if err != nil {
		return 0
	}
	return n
}

// inetTable reads the line of a socket in /proc/net/tcp and its like, proc_net(5):
//
//	sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
//	0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 ...
func (s *SocketInfo) inetTable(text string, inode uint64) {
	want := strconv.FormatUint(inode, 10)
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 10 || fields[9] != want {
			continue
		}
		local, ok := tableAddress(fields[1])
		peer, ok2 := tableAddress(fields[2])
		state, err := strconv.ParseUint(fields[3], 16, 8)
		if !ok || !ok2 || err != nil {
			return
		}
		s.Local = local.String()
		s.Listening = s.Protocol == "tcp" && tcpState(state) == "listening"
		if s.Protocol == "tcp" {
			s.State = tcpState(state)
		}
		if s.Connected = peer.Port() != 0; s.Connected {
			s.Peer = peer.String()
		}
		queues := strings.Split(fields[4], ":")
		if len(queues) != 2 || s.Listening { // of which the second is the backlog
			return
		}
		for i, to := range []**int64{&s.SendQueue, &s.Unread} {
			// Of UDP it is memory, not bytes.
			if n, err := strconv.ParseInt(queues[i], 16, 64); err == nil && s.Protocol == "tcp" {
				*to = &n
			}
		}
		return
	}
}

// tableAddress parses 0100007F:1F90: words of 32 bits as the machine has them, and a
// port.
func tableAddress(text string) (netip.AddrPort, bool) {
	ip, port, _ := strings.Cut(text, ":")
	b, err := hex.DecodeString(ip)
	n, err2 := strconv.ParseUint(port, 16, 16)
	if err != nil || err2 != nil || len(b) != 4 && len(b) != 16 {
		return netip.AddrPort{}, false
	}
	if littleEndian {
		for word := range slices.Chunk(b, 4) {
			slices.Reverse(word)
		}
	}
	addr, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(addr.Unmap(), uint16(n)), true
}

var littleEndian = func() bool {
	port := uint16(1)
	return hostOrder(&port) != 1
}()

// unixTable reads the line of a socket in /proc/net/unix, proc_net(5):
//
//	Num       RefCount Protocol Flags    Type St Inode Path
//	00000000b00a0002: 00000003 00000000 00000000 0001 03 16586611 /run/a.sock
//
// A path may have line ends in it, and so forge the line of another socket: if there
// are two lines, none is believed.
func (s *SocketInfo) unixTable(text string, inode uint64) {
	want := strconv.FormatUint(inode, 10)
	var found []string
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) >= 7 && fields[6] == want {
			found = append(found, strings.TrimSuffix(line, "\n"))
		}
	}
	if len(found) != 1 {
		return
	}
	fields := strings.Fields(found[0])
	flags, err := strconv.ParseUint(fields[3], 16, 32)
	kind, err2 := strconv.ParseUint(fields[4], 16, 16)
	if err != nil || err2 != nil {
		return
	}
	const acceptsConnections = 1 << 16 // __SO_ACCEPTCON, include/uapi/linux/net.h
	s.Type, s.Listening = named(socketTypes, int(kind)), flags&acceptsConnections != 0
	s.Connected = fields[5] == "03" // SS_CONNECTED
	// The path may begin with blanks: it is what follows the inode and one of them.
	if _, path, ok := strings.Cut(found[0], " "+want+" "); ok {
		s.Local = Address{Unix: true, Path: path}.String()
	}
}
