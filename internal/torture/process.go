//go:build linux

package torture

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// program is a peer that is started for each case, with the connection as its standard
// input and output.
type program struct {
	path string
	args []string
	typ  int
	tiny bool // the next one has little room for what it sends
}

// Program returns the endpoint that starts the program, args[0] being its name, for each
// case, at a socket of that type: unix.SOCK_STREAM or unix.SOCK_SEQPACKET.
func Program(path string, args []string, typ int) *Endpoint {
	return &Endpoint{&program{path: path, args: args, typ: typ}}
}

func (p *program) traits() trait {
	if p.typ == unix.SOCK_STREAM {
		return stream | ends | started | boundless
	}
	return packets | ends | started | boundless
}

func (p *program) connect() (*conn, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, p.typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	defer unix.Close(pair[1])
	if p.tiny {
		_ = unix.SetsockoptInt(pair[1], unix.SOL_SOCKET, unix.SO_SNDBUF, 1) // the kernel makes it the least that there is
	}
	process := &process{ours: true, pidfd: -1}
	// A group of its own, so that what it starts can be ended with it.
	process.pid, err = syscall.ForkExec(p.path, p.args, &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{uintptr(pair[1]), uintptr(pair[1]), 2},
		Sys:   &syscall.SysProcAttr{Setpgid: true, PidFD: &process.pidfd},
	})
	if err == nil {
		err = unix.SetNonblock(pair[0], true)
	}
	if err != nil {
		process.end()
		_ = unix.Close(pair[0])
		return nil, fmt.Errorf("cannot run %s: %w", p.args[0], err)
	}
	c := newConn(pair[0], true)
	c.process = process
	return c, nil
}

func (p *program) close() {}

// process is the one at the other end of a connection.
type process struct {
	pid    int
	pidfd  int
	ours   bool // it was started by this one, which can wait for it
	over   bool
	reaped bool
	before bool            // it was over before the case began: it had only made the socket
	status unix.WaitStatus // after end, if it is ours
}

// peerOf returns the process that has made the other end: that has connected, or called
// listen(2). Nil is not known: in another PID namespace, or of a datagram socket.
func peerOf(fd int) *process {
	who, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil || who.Pid <= 0 {
		return nil
	}
	// The pidfd of the socket is of that very process, even if its number is another's
	// by now. It is there since Linux 6.5.
	pidfd, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if err != nil {
		if pidfd, err = unix.PidfdOpen(int(who.Pid), 0); err != nil {
			return nil
		}
	}
	p := &process{pid: int(who.Pid), pidfd: pidfd}
	p.before = p.ended()
	return p
}

// ended tells whether the process has ended.
func (p *process) ended() bool {
	if p.over || p.pidfd < 0 {
		return p.over
	}
	fds := []unix.PollFd{{Fd: int32(p.pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	p.over = err == nil && n > 0
	return p.over
}

// end ends the process if it is ours, with all that it has started, sets its status,
// and closes what is known of it.
func (p *process) end() {
	if p.ours && !p.reaped && p.pid > 0 {
		p.reaped = true
		// It is not waited for before, so the number is still its own.
		_ = unix.Kill(-p.pid, unix.SIGKILL)
		for {
			if _, err := unix.Wait4(p.pid, &p.status, 0, nil); err != unix.EINTR {
				break
			}
		}
	}
	if p.pidfd >= 0 {
		_ = unix.Close(p.pidfd)
		p.pidfd = -1
	}
}

// descriptors counts those of the process, 0 if that cannot be seen.
func (p *process) descriptors() int {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.pid))
	if err != nil {
		return 0
	}
	return len(entries)
}

// holds counts the descriptors of the process that lead to that file.
func (p *process) holds(file *unix.Stat_t) (n int) {
	dir := fmt.Sprintf("/proc/%d/fd", p.pid)
	entries, _ := os.ReadDir(dir)
	for _, entry := range entries {
		var s unix.Stat_t
		if unix.Stat(dir+"/"+entry.Name(), &s) == nil && s.Dev == file.Dev && s.Ino == file.Ino {
			n++
		}
	}
	return n
}
