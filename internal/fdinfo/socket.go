//go:build linux

package fdinfo

import (
	"fmt"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SocketInfo is what is known of a socket.
type SocketInfo struct {
	Family    string `json:"family,omitempty"`   // inet, inet6, unix, netlink, ...
	Type      string `json:"type,omitempty"`     // stream, dgram, seqpacket, raw
	Protocol  string `json:"protocol,omitempty"` // tcp, udp, mptcp, ...
	Listening bool   `json:"listening,omitempty"`
	Connected bool   `json:"connected,omitempty"`
	// Local and Peer are addresses as Address has them; those of other families are
	// in the words of their manual page. They are empty if there is none.
	Local string `json:"local,omitempty"`
	Peer  string `json:"peer,omitempty"`
	// PeerProcess is who connected, or of a pair who made it: SO_PEERCRED, unix(7).
	PeerProcess  *PeerProcess `json:"peer_process,omitempty"`
	State        string       `json:"state,omitempty"`         // of TCP
	Backlog      *int64       `json:"backlog,omitempty"`       // connections that wait for accept(2)
	BacklogLimit *int64       `json:"backlog_limit,omitempty"` // of listen(2)
	// Unread is in bytes; of datagram sockets it is the size of the first message.
	Unread *int64 `json:"unread,omitempty"`
	// SendQueue is, of TCP, how many bytes the peer has not acknowledged; of a Unix
	// socket, how much memory the messages take that the peer has not received.
	SendQueue     *int64   `json:"send_queue,omitempty"`
	Unsent        *int64   `json:"unsent,omitempty"` // of TCP: bytes of those that were not sent yet
	RTT           *float64 `json:"rtt,omitempty"`    // milliseconds
	Retransmits   *int64   `json:"retransmits,omitempty"`
	ReceiveBuffer *int64   `json:"receive_buffer,omitempty"` // SO_RCVBUF
	SendBuffer    *int64   `json:"send_buffer,omitempty"`    // SO_SNDBUF
	// Descriptors is how many descriptors are in the receive queue.
	Descriptors *int64 `json:"descriptors,omitempty"`
	// Ended is receiving if nothing more can come, as the peer has shut down its
	// sending side or this one its receiving side, and both if nothing can be sent
	// either.
	Ended string `json:"ended,omitempty"`
	// Failed tells that an error waits for the next call. It is not read here, which
	// would clear it.
	Failed bool `json:"failed,omitempty"`
}

// PeerProcess is the process at the other end of a Unix socket.
type PeerProcess struct {
	PID     int    `json:"pid,omitempty"` // not known if it is in a PID namespace that is not seen from here
	UID     uint32 `json:"uid"`
	GID     uint32 `json:"gid"`
	Command string `json:"command,omitempty"` // /proc/PID/comm, of that very process
	Running *bool  `json:"running,omitempty"` // known where there is SO_PEERPIDFD, Linux 6.5
}

var families = map[int]string{
	unix.AF_UNIX: "unix", unix.AF_INET: "inet", unix.AF_INET6: "inet6", unix.AF_NETLINK: "netlink",
	unix.AF_PACKET: "packet", unix.AF_VSOCK: "vsock", unix.AF_BLUETOOTH: "bluetooth", unix.AF_CAN: "can",
	unix.AF_ALG: "alg", unix.AF_XDP: "xdp", unix.AF_KEY: "key", unix.AF_TIPC: "tipc", unix.AF_SMC: "smc",
	unix.AF_QIPCRTR: "qipcrtr", unix.AF_RDS: "rds", unix.AF_NFC: "nfc", unix.AF_PPPOX: "pppox",
}

var socketTypes = map[int]string{
	unix.SOCK_STREAM: "stream", unix.SOCK_DGRAM: "dgram", unix.SOCK_RAW: "raw",
	unix.SOCK_RDM: "rdm", unix.SOCK_SEQPACKET: "seqpacket", unix.SOCK_DCCP: "dccp", unix.SOCK_PACKET: "packet",
}

// protocols are those of inet and inet6; others are given by number.
var protocols = map[int]string{
	unix.IPPROTO_ICMP: "icmp", unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_DCCP: "dccp",
	unix.IPPROTO_ICMPV6: "icmpv6", unix.IPPROTO_SCTP: "sctp", unix.IPPROTO_UDPLITE: "udplite",
	unix.IPPROTO_MPTCP: "mptcp", unix.IPPROTO_RAW: "raw",
}

// netlinkProtocols are those of netlink(7).
var netlinkProtocols = map[int]string{
	unix.NETLINK_ROUTE: "route", unix.NETLINK_USERSOCK: "usersock", unix.NETLINK_SOCK_DIAG: "sock_diag",
	unix.NETLINK_NFLOG: "nflog", unix.NETLINK_XFRM: "xfrm", unix.NETLINK_SELINUX: "selinux",
	unix.NETLINK_AUDIT: "audit", unix.NETLINK_FIB_LOOKUP: "fib_lookup", unix.NETLINK_CONNECTOR: "connector",
	unix.NETLINK_NETFILTER: "netfilter", unix.NETLINK_KOBJECT_UEVENT: "kobject_uevent",
	unix.NETLINK_GENERIC: "generic", unix.NETLINK_CRYPTO: "crypto",
}

// tcpStates are those of include/net/tcp_states.h, in the words of ss(8).
var tcpStates = [...]string{
	1: "established", 2: "syn-sent", 3: "syn-recv", 4: "fin-wait-1", 5: "fin-wait-2", 6: "time-wait",
	7: "closed", 8: "close-wait", 9: "last-ack", 10: "listening", 11: "closing", 12: "syn-recv",
}

func tcpState(n uint64) string {
	if n < uint64(len(tcpStates)) {
		return tcpStates[n]
	}
	return ""
}

func named(names map[int]string, n int) string {
	if name, ok := names[n]; ok {
		return name
	}
	return strconv.Itoa(n)
}

// socket asks the socket itself. SO_ERROR is not asked for: it is cleared by that.
func (v *view) socket(d *Description) {
	s := &SocketInfo{}
	d.Socket = s
	if n, ok := v.info.number("scm_fds"); ok { // unix_show_fdinfo() in net/unix/af_unix.c
		s.Descriptors = &n
	}
	if v.own < 0 {
		v.socketFromOutside(s)
		return
	}
	option := func(name int) int {
		n, err := unix.GetsockoptInt(v.own, unix.SOL_SOCKET, name)
		if err != nil {
			return -1
		}
		return n
	}
	family, protocol := option(unix.SO_DOMAIN), option(unix.SO_PROTOCOL)
	s.Family, s.Type = named(families, family), named(socketTypes, option(unix.SO_TYPE))
	s.Listening = option(unix.SO_ACCEPTCONN) == 1
	for name, to := range map[int]**int64{unix.SO_RCVBUF: &s.ReceiveBuffer, unix.SO_SNDBUF: &s.SendBuffer} {
		if n := option(name); n >= 0 {
			*to = new(int64(n))
		}
	}
	s.Local, _ = addressText(unix.SYS_GETSOCKNAME, v.own)
	if !s.Listening {
		s.Peer, s.Connected = addressText(unix.SYS_GETPEERNAME, v.own)
		s.unread(v.own, family)
	}
	if !s.Listening {
		s.ended(poll(v.own))
	}
	switch family {
	case unix.AF_INET, unix.AF_INET6:
		s.Protocol = named(protocols, protocol)
		if protocol == unix.IPPROTO_MPTCP && (!s.Connected || s.Ended != "") && s.Unread != nil && *s.Unread == 1 {
			s.Unread = nil // stands for the end too, mptcp_inq_hint() in net/mptcp/protocol.c
		}
		if protocol == unix.IPPROTO_TCP || protocol == unix.IPPROTO_MPTCP {
			s.tcp(v.own)
		}
	case unix.AF_UNIX:
		s.unix(v.own)
	case unix.AF_NETLINK:
		s.Protocol = named(netlinkProtocols, protocol)
		// It is "connected" to the kernel from the start, netlink(7).
		if s.Peer == "pid 0" {
			s.Peer, s.Connected = "", false
		}
	}
}

// unread asks with the ioctls of tcp(7), udp(7) and unix(7), where a socket that
// listens has none.
func (s *SocketInfo) unread(fd, family int) {
	switch family {
	case unix.AF_INET, unix.AF_INET6, unix.AF_UNIX, unix.AF_PACKET, unix.AF_VSOCK:
		s.Unread = ioctl(fd, unix.SIOCINQ)
		s.SendQueue = ioctl(fd, unix.SIOCOUTQ)
	}
}

func (s *SocketInfo) ended(events int16) {
	switch {
	case !s.Connected && s.Type != "dgram" && events&unix.POLLERR == 0:
		// A stream socket that was never connected has POLLHUP too.
	case events&unix.POLLHUP != 0:
		s.Ended = "both"
	case events&unix.POLLRDHUP != 0:
		s.Ended = "receiving"
	}
	s.Failed = events&unix.POLLERR != 0
}

func (s *SocketInfo) tcp(fd int) {
	t, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return
	}
	s.State = tcpState(uint64(t.State))
	if s.Listening {
		// tcp_get_info() in net/ipv4/tcp.c
		s.Backlog, s.BacklogLimit = new(int64(t.Unacked)), new(int64(t.Sacked))
		return
	}
	s.Unsent = ioctl(fd, unix.SIOCOUTQNSD)
	if s.Connected {
		s.RTT, s.Retransmits = new(float64(t.Rtt)/1000), new(int64(t.Total_retrans))
	}
}

func (s *SocketInfo) unix(fd int) {
	if !s.Connected {
		return
	}
	who := PeerCredentials(fd)
	if who == nil {
		return
	}
	p := &PeerProcess{PID: int(who.Pid), UID: who.Uid, GID: who.Gid}
	s.PeerProcess = p
	if who.Pid <= 0 {
		return
	}
	// A number may belong to another process by now; a pidfd does not.
	pidfd, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if err == unix.ESRCH {
		p.Running = new(false) // and waited for
	}
	if err != nil {
		return
	}
	defer unix.Close(pidfd)
	command := Command(p.PID)
	running, known := alive(pidfd) // afterwards: so the command is of this process
	if !known {
		return
	}
	p.Running = &running
	if running {
		p.Command = command
	}
}

// Command returns the name of the process that has this number now, proc_pid_comm(5), or
// "" if it is not known.
func Command(pid int) string {
	name, _ := readAt(unix.AT_FDCWD, "/proc/"+strconv.Itoa(pid)+"/comm")
	return strings.TrimSuffix(string(name), "\n")
}

// alive tells whether a pidfd's process has not ended, pidfd_open(2).
func alive(pidfd int) (running, known bool) {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	_, err := unix.Poll(fds, 0)
	return fds[0].Revents == 0, err == nil
}

// addressText asks for one of a socket's addresses. It returns false if there is none,
// and as text "" if the socket has no name.
func addressText(call uintptr, fd int) (text string, ok bool) {
	var s Sockaddr
	s.Reset()
	_, _, errno := unix.Syscall(call, uintptr(fd), uintptr(unsafe.Pointer(&s.Any)), uintptr(unsafe.Pointer(&s.Len)))
	if errno != 0 {
		return "", false
	}
	switch s.Any.Addr.Family {
	case unix.AF_NETLINK:
		sa := (*unix.RawSockaddrNetlink)(unsafe.Pointer(&s.Any))
		text = fmt.Sprintf("pid %d", sa.Pid)
		if sa.Groups != 0 {
			text += fmt.Sprintf(" groups 0x%x", sa.Groups)
		}
		return text, true
	case unix.AF_VSOCK:
		sa := (*unix.RawSockaddrVM)(unsafe.Pointer(&s.Any))
		return number32(sa.Cid) + ":" + number32(sa.Port), true
	case unix.AF_PACKET:
		sa := (*unix.RawSockaddrLinklayer)(unsafe.Pointer(&s.Any))
		return fmt.Sprintf("interface %d protocol 0x%04x", sa.Ifindex, hostOrder(&sa.Protocol)), true
	}
	a := s.Address()
	if !a.IP.IsValid() && a.Path == "" {
		return "", true
	}
	return a.String(), true
}

// number32 is a number, or * for the highest one: VMADDR_CID_ANY, VMADDR_PORT_ANY of
// vsock(7).
func number32(n uint32) string {
	if n == ^uint32(0) {
		return "*"
	}
	return strconv.FormatUint(uint64(n), 10)
}
