//go:build linux

package relay

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdinfo"
	"fdkit/internal/hint"
	"fdkit/internal/interrupt"
	"fdkit/internal/scm"
	"fdkit/internal/unixpath"
)

// connect connects the socket to the target, as the client's user if that is possible:
// what the target learns with SO_PEERCRED is who has called connect(2), unix(7). Its
// process is always this one.
func (r *Relay) connect(client, socket int) error {
	who := fdinfo.PeerCredentials(client)
	if who == nil || int(who.Uid) == os.Geteuid() && int(who.Gid) == os.Getegid() {
		return r.connectAs(nil, nil, socket)
	}
	groups, err := peerGroups(client)
	if err == nil {
		err = r.connectAs(who, groups, socket)
	}
	if denied, ok := errors.AsType[identityError](err); ok {
		if unixpath.Abstract(r.listen.Path) && who.Uid != 0 && int(who.Uid) != os.Geteuid() {
			return fmt.Errorf("it is user %d, whom the permissions of no file keep from coming in as this process's user", who.Uid)
		}
		r.notice(noticeUser, hint.Wrap(fmt.Errorf("the target sees the user of this process as that of all clients: %w", denied.error),
			"root can connect as each client's user"))
		return r.connectAs(nil, nil, socket)
	}
	return err
}

// identityError says that a thread cannot become another user's.
type identityError struct{ error }

// connectAs connects as that user; nil is this process's own.
func (r *Relay) connectAs(who *unix.Ucred, groups []uint32, socket int) (err error) {
	connect := func() {
		if who != nil {
			if err = become(who, groups); err != nil {
				return
			}
		}
		err = r.connectSocket(socket)
	}
	if who == nil {
		connect()
	} else {
		onOwnThread(connect)
	}
	if err == nil {
		err = os.NewSyscallError("fcntl", unix.SetNonblock(socket, true))
	}
	return err
}

// connectSocket waits as long as the target's backlog is full, as a client would.
func (r *Relay) connectSocket(socket int) error {
	if err := r.accepting.Enter(); err != nil {
		return err
	}
	defer r.accepting.Exit()
	for {
		err := unix.Connect(socket, &unix.SockaddrUnix{Name: r.target.Path})
		switch {
		case err != unix.EINTR:
			return os.NewSyscallError("connect", err)
		case r.accepting.Stopped():
			return interrupt.ErrStopped
		}
	}
}

// onOwnThread runs do in a thread that ends with it, whatever has become of it.
func onOwnThread(do func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the runtime ends the thread, runtime.LockOSThread
		if unix.Gettid() == unix.Getpid() {
			// The main thread would not end. While it is held here, it is another one.
			onOwnThread(do)
			runtime.UnlockOSThread()
			return
		}
		do()
	}()
	<-done
}

// become gives the calling thread, and no other, the user and groups. The functions of
// package unix would do that for all threads of the process, nptl(7). Only what counts for
// others is changed: the effective ones, with which a thread also loses its privileges.
func become(who *unix.Ucred, groups []uint32) error {
	same := ^uintptr(0)
	for _, call := range []struct {
		name    string
		nr      uintptr
		a, b, c uintptr
	}{
		{"setgroups", unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(unsafe.SliceData(groups))), 0},
		{"setresgid", unix.SYS_SETRESGID, same, uintptr(who.Gid), same},
		{"setresuid", unix.SYS_SETRESUID, same, uintptr(who.Uid), same},
	} {
		if _, _, errno := unix.RawSyscall(call.nr, call.a, call.b, call.c); errno != 0 {
			return identityError{os.NewSyscallError(call.name, errno)}
		}
	}
	runtime.KeepAlive(groups)
	return nil
}

// peerGroups returns the supplementary groups of who has connected, SO_PEERGROUPS of
// Linux 4.13.
func peerGroups(fd int) ([]uint32, error) {
	groups := make([]uint32, 65536) // NGROUPS_MAX
	size := uint32(4 * len(groups))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
		uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return nil, os.NewSyscallError("getsockopt", errno)
	}
	return groups[:size/4], nil
}

// deliver passes a message on, in the name of its sender as far as the kernel lets. A
// receiver that does not ask for the sender is not told, and what is written by different
// senders is not put together in either case, unix_stream_read_generic().
func (r *Relay) deliver(m *scm.Message, pass func([]byte, []int, *scm.Credentials) error) error {
	try := func(from *scm.Credentials) error { return pass(m.Payload, m.FDs, from) }
	from := m.Sender
	if from == nil || from.PID == 0 { // it was sent when nobody asked for the sender
		return try(nil)
	}
	var denied error
	if !r.ownPID.Load() {
		err := try(from)
		if !isDenied(err) {
			return err
		}
		denied = err
	}
	// Without CAP_SYS_ADMIN the process must be this one; and it must not have ended
	// (ESRCH).
	err := try(&scm.Credentials{PID: os.Getpid(), UID: from.UID, GID: from.GID})
	if isDenied(err) {
		err = try(nil)
	}
	if errors.Is(denied, unix.EPERM) && !isDenied(err) {
		// So that is why, and not that the receiver takes no descriptors.
		r.ownPID.Store(true)
		r.notice(noticePID, hint.Wrap(fmt.Errorf("receivers see this process as the sender of all messages: %w", denied),
			"root can pass on who has sent them (CAP_SYS_ADMIN)"))
	}
	return err
}

func isDenied(err error) bool { return errors.Is(err, unix.EPERM) || errors.Is(err, unix.ESRCH) }
