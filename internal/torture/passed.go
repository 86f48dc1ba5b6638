//go:build linux

package torture

import (
	"os"

	"golang.org/x/sys/unix"
)

// passed is a descriptor that is passed to the peer.
type passed struct {
	near    int         // the descriptor itself, -1: closed
	far     int         // its other end, -1: there is none, or it is closed
	socket  bool        // the other end is a socket
	mark    int64       // in the watch; 0: it cannot be watched
	file    unix.Stat_t // of what cannot
	read    int         // bytes that came out of the other end
	held    bool        // near and far stay open until the end
	stopped bool        // the other end is told that nothing more comes
}

// pass prepares a descriptor that is ours for passing.
func (t *trial) pass(near, far int, err error) *passed {
	p := &passed{near: -1, far: -1}
	if t.err != nil || err != nil {
		if t.err == nil {
			t.err = err
		}
		return p
	}
	p.near, p.far = near, far
	t.passed = append(t.passed, p)
	if p.mark, err = t.watch.add(near); err == errUnwatched {
		t.err = unix.Fstat(near, &p.file)
	} else if err != nil {
		t.err = err
	}
	return p
}

// socket passes one end of a pair of stream sockets: it can be read and written, as a
// connection can.
func (t *trial) socket() int {
	if t.err != nil {
		return -1
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		_ = unix.SetNonblock(pair[1], true) // the end that stays here
	}
	p := t.pass(pair[0], pair[1], os.NewSyscallError("socketpair", err))
	p.socket = true
	return p.near
}

func (t *trial) sockets(n int) (fds []int) {
	for range n {
		fds = append(fds, t.socket())
	}
	return fds
}

// pipe passes the end of a pipe that is read, or that is written.
func (t *trial) pipe(written bool) *passed {
	var ends [2]int
	if t.err == nil {
		t.err = os.NewSyscallError("pipe2", unix.Pipe2(ends[:], unix.O_CLOEXEC))
	}
	if t.err != nil {
		return &passed{near: -1, far: -1}
	}
	near, far := ends[0], ends[1]
	if written {
		near, far = far, near
	}
	_ = unix.SetNonblock(far, true)
	return t.pass(near, far, nil)
}

// drop closes this process's descriptors of what was passed.
func (t *trial) drop() {
	for _, p := range t.passed {
		if p.near >= 0 {
			_ = unix.Close(p.near)
			p.near = -1
		}
	}
}

// drain reads what the peer has written, and tells it once that nothing more comes: so
// a program that serves what it was passed comes to its end.
func (p *passed) drain() {
	if p.far < 0 || p.held {
		return
	}
	if !p.stopped {
		p.stopped = true
		if p.socket {
			_ = unix.Shutdown(p.far, unix.SHUT_WR)
		} else if flags, err := unix.FcntlInt(uintptr(p.far), unix.F_GETFL, 0); err == nil && flags&unix.O_ACCMODE == unix.O_WRONLY {
			p.closeFar()
			return
		}
	}
	var buf [4096]byte
	for range 64 {
		n, err := unix.Read(p.far, buf[:])
		if n <= 0 || err != nil {
			return
		}
		p.read += n
	}
}

func (p *passed) closeFar() {
	if p.far >= 0 {
		_ = unix.Close(p.far)
		p.far = -1
	}
}

// held counts what the peer still holds of what was passed. What cannot be watched is
// looked for among the descriptors of its process.
func (t *trial) held() (n int, err error) {
	marks, err := t.watch.open()
	if err != nil {
		return 0, err
	}
	n = len(marks)
	for _, p := range t.passed {
		if p.mark == 0 && len(t.conns) > 0 && t.conns[0].process != nil {
			n += t.conns[0].process.holds(&p.file)
		}
	}
	return n, nil
}
