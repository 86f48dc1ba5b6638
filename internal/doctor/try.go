//go:build linux

package doctor

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"fdkit/internal/interrupt"
	"fdkit/internal/scm"
)

var socketTypes = []struct {
	name string
	typ  int
}{{"stream", unix.SOCK_STREAM}, {"seqpacket", unix.SOCK_SEQPACKET}, {"dgram", unix.SOCK_DGRAM}}

// tryRightsOf passes as many descriptors as a message may have, and one more.
func tryRightsOf(typ int) error {
	switch came, err := scm.Probe(typ, scm.MaxFDs); {
	case err != nil:
		return err
	case came != scm.MaxFDs:
		return fmt.Errorf("%d of %d came", came, scm.MaxFDs)
	}
	if _, err := scm.Probe(typ, scm.MaxFDs+1); !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("%d are not refused with EINVAL (%w)", scm.MaxFDs+1, err)
	}
	return nil
}

// withPair calls do with a pair of sockets.
func withPair(typ int, do func(a, b int) error) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socketpair", err)
	}
	defer closeAll(pair[:]...)
	return do(pair[0], pair[1])
}

func setOption(fd, option, value int) error {
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, value))
}

// exchange sends a byte, with descriptors, from a to b. What comes is to be closed.
func exchange(a, b int, fds ...int) (m scm.Message, err error) {
	if _, err := scm.NewSender(a, nil).Try([]byte{'x'}, fds, nil, 0); err != nil {
		return m, os.NewSyscallError("sendmsg", err)
	}
	var calls interrupt.Calls
	if came, err := scm.NewReceiver(b, &calls).ReceiveNow(&m); err != nil || !came {
		return m, fmt.Errorf("nothing came (%w)", err)
	}
	return m, nil
}

func (m *Machine) tryPassRights() (string, error) {
	err := withPair(unix.SOCK_SEQPACKET, func(a, b int) error {
		if err := setOption(b, unix.SO_PASSRIGHTS, 0); err != nil {
			return err
		}
		got, err := exchange(a, b, a)
		got.Close()
		switch {
		case err == nil:
			return errors.New("set, and a descriptor came all the same")
		case errors.Is(err, unix.EPERM):
			return nil
		}
		return err
	})
	return "SO_PASSRIGHTS can be switched off", err
}

func (m *Machine) tryCredentials() (string, error) {
	err := withPair(unix.SOCK_SEQPACKET, func(a, b int) error {
		if err := scm.PassCredentials(b); err != nil {
			return err
		}
		got, err := exchange(a, b)
		if err == nil && (got.Sender == nil || got.Sender.PID != os.Getpid()) {
			return errors.New("the message came without the number of its sender")
		}
		return err
	})
	return "the sender's process, user and group come", err
}

func (m *Machine) tryPassPidfd() (string, error) {
	err := withPair(unix.SOCK_SEQPACKET, func(a, b int) error {
		if err := setOption(b, unix.SO_PASSPIDFD, 1); err != nil {
			return err
		}
		_, err := exchange(a, b) // which closes the pidfd
		return err
	})
	return "SO_PASSPIDFD can be set", err
}

func (m *Machine) tryPeerPidfd() (string, error) {
	err := withPair(unix.SOCK_STREAM, func(a, _ int) error {
		fd, err := unix.GetsockoptInt(a, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
		if err != nil {
			return os.NewSyscallError("getsockopt", err)
		}
		return unix.Close(fd)
	})
	return "SO_PEERPIDFD gives a pidfd", err
}

func (m *Machine) tryPidfdOpen() (string, error) {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return "", os.NewSyscallError("pidfd_open", err)
	}
	return "pidfd_open of itself", unix.Close(fd)
}

// withChild calls do with a child process, whose descriptor 3 is a copy of fd.
func (m *Machine) withChild(do func(pid, fd int) error) error {
	if m.Child == nil {
		return errors.New("not tried: there is no child to try it on")
	}
	return withPair(unix.SOCK_SEQPACKET, func(a, _ int) error {
		pid, end, err := m.Child(a)
		if err != nil {
			return fmt.Errorf("not tried: no child can be started: %w", err)
		}
		defer end()
		return do(pid, a)
	})
}

func (m *Machine) tryPidfdGetfd() (string, error) {
	err := m.withChild(func(pid, _ int) error {
		process, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return os.NewSyscallError("pidfd_open", err)
		}
		defer unix.Close(process)
		fd, err := unix.PidfdGetfd(process, 3, 0)
		if err != nil {
			return os.NewSyscallError("pidfd_getfd", err)
		}
		return unix.Close(fd)
	})
	return "pidfd_getfd of an own child", err
}

func (m *Machine) tryKcmp() (string, error) {
	err := m.withChild(func(pid, fd int) error {
		const file = 0 // KCMP_FILE, kcmp(2)
		order, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(os.Getpid()), uintptr(pid), file, uintptr(fd), 3, 0)
		switch {
		case errno != 0:
			return os.NewSyscallError("kcmp", errno)
		case order != 0:
			return errors.New("kcmp takes copies of one open file for two")
		}
		return nil
	})
	return "kcmp with an own child", err
}

func (m *Machine) tryPeekOffset() (string, error) {
	err := withPair(unix.SOCK_STREAM, func(a, b int) error {
		if err := setOption(b, unix.SO_PEEK_OFF, 1); err != nil {
			return err
		}
		if _, err := unix.Write(a, []byte("ab")); err != nil {
			return os.NewSyscallError("write", err)
		}
		var calls interrupt.Calls
		var got scm.Message
		if came, err := scm.NewReceiver(b, &calls).Peek(&got); err != nil || !came || string(got.Payload) != "b" {
			return fmt.Errorf("the second of two bytes is not seen, but %q (%w)", got.Payload, err)
		}
		return nil
	})
	return "SO_PEEK_OFF of a stream", err
}

func (m *Machine) tryScmFDs() (string, error) {
	err := withPair(unix.SOCK_SEQPACKET, func(a, b int) error {
		if _, err := scm.NewSender(a, nil).Try([]byte{'x'}, []int{a}, nil, 0); err != nil {
			return os.NewSyscallError("sendmsg", err)
		}
		text, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", b))
		if err != nil {
			return err
		}
		if n, _ := scmFDs(string(text)); n != 1 {
			return fmt.Errorf("fdinfo tells of %d descriptors, and there is 1", n)
		}
		return nil
	})
	return "scm_fds is right", err
}

func (m *Machine) tryQueueSize() (string, error) {
	err := withPair(unix.SOCK_SEQPACKET, func(a, b int) error {
		if _, err := unix.Write(a, []byte("abc")); err != nil {
			return os.NewSyscallError("write", err)
		}
		unread, err := unix.IoctlGetInt(b, unix.SIOCINQ)
		if err != nil {
			return os.NewSyscallError("ioctl", err)
		}
		// In net/unix/af_unix.c, unix_outq_len() is memory and unix_inq_len() bytes.
		sent, err := unix.IoctlGetInt(a, unix.SIOCOUTQ)
		if err != nil {
			return os.NewSyscallError("ioctl", err)
		}
		if unread != 3 || sent == 0 {
			return fmt.Errorf("of 3 bytes %d are unread and %d sent", unread, sent)
		}
		return nil
	})
	return "SIOCOUTQ and SIOCINQ are right", err
}

// tryCloseRange does what is done before a program is run, where there is nothing to
// close, in a thread of its own: its table of descriptors is another one then.
func (m *Machine) tryCloseRange() (string, error) {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for ever
		const last = ^uint32(0)
		done <- unix.CloseRange(uint(last), uint(last), unix.CLOSE_RANGE_UNSHARE|unix.CLOSE_RANGE_CLOEXEC)
	}()
	return "close_range with CLOSE_RANGE_CLOEXEC and CLOSE_RANGE_UNSHARE", os.NewSyscallError("close_range", <-done)
}

func (m *Machine) tryMemfd() (string, error) {
	fd, err := unix.MemfdCreate("fdkit", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return "", os.NewSyscallError("memfd_create", err)
	}
	defer unix.Close(fd)
	_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK)
	return "memfd_create and F_ADD_SEALS", os.NewSyscallError("fcntl", err)
}

// tryAbstract connects to a socket with a name that the kernel chooses: autobind in
// unix(7).
func (m *Machine) tryAbstract() (string, error) {
	door, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", os.NewSyscallError("socket", err)
	}
	defer unix.Close(door)
	family := uint16(unix.AF_UNIX)
	if _, _, errno := unix.Syscall(unix.SYS_BIND, uintptr(door), uintptr(unsafe.Pointer(&family)), 2); errno != 0 {
		return "", os.NewSyscallError("bind", errno)
	}
	if err := unix.Listen(door, 1); err != nil {
		return "", os.NewSyscallError("listen", err)
	}
	name, err := unix.Getsockname(door)
	if err != nil {
		return "", os.NewSyscallError("getsockname", err)
	}
	client, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", os.NewSyscallError("socket", err)
	}
	defer unix.Close(client)
	return "one was bound and connected to", os.NewSyscallError("connect", unix.Connect(client, name))
}
