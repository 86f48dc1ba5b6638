//go:build linux

package scm

import (
	"os"

	"golang.org/x/sys/unix"
)

// Probe tries on a pair of sockets of type typ whether a message with n descriptors
// passes, and returns how many of them came. n may be more than MaxFDs, of which the
// kernel says EINVAL.
func Probe(typ, n int) (came int, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, os.NewSyscallError("socketpair", err)
	}
	defer closeAll(pair[:])
	sent, err := unix.Eventfd(0, unix.EFD_CLOEXEC) // any file that is no socket
	if err != nil {
		return 0, os.NewSyscallError("eventfd2", err)
	}
	defer unix.Close(sent)
	fds := make([]int, n)
	for i := range fds {
		fds[i] = sent
	}
	if err := unix.Sendmsg(pair[0], []byte{0}, unix.UnixRights(fds...), nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL); err != nil {
		return 0, os.NewSyscallError("sendmsg", err)
	}
	control := make([]byte, unix.CmsgSpace(4*n))
	_, size, _, _, err := unix.Recvmsg(pair[1], make([]byte, 1), control, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return 0, os.NewSyscallError("recvmsg", err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:size])
	for _, m := range messages {
		if got, err := unix.ParseUnixRights(&m); err == nil {
			came += len(got)
			closeAll(got)
		}
	}
	return came, err
}
