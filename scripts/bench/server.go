//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// place is where a server serves.
type place struct {
	dir     string // for its files, gone when it is stopped
	address netip.AddrPort
}

// server says how to start one.
type server struct {
	prepare  func(place) error      // writes its files; may be nil
	commands func(place) [][]string // each with arguments, each one's stdout the next one's stdin
}

// running is a server that was started.
type running struct {
	place
	b     *bench
	pid   int           // of the last command
	usage time.Duration // of the cgroup at the last call of cpu
}

const (
	enterCommand = "enter-cgroup"
	patience     = 30 * time.Second
)

// enter is what runs first in each process of a contestant: it enters the cgroup and
// becomes the command.
func enter(procs string, command []string) {
	fatal := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
	}
	if procs != "" {
		fatal(os.WriteFile(procs, []byte("0"), 0))
	}
	path, err := exec.LookPath(command[0])
	fatal(err)
	fatal(unix.Exec(path, command, os.Environ()))
}

// start starts a server anew, and waits until it listens.
func (b *bench) start(s server) (*running, error) {
	r, err := b.launch(s)
	if err == nil {
		if err = r.await(); err != nil {
			err = r.finish(err)
		}
	}
	return r, err
}

// launch starts the commands of a server.
func (b *bench) launch(s server) (*running, error) {
	dir, err := os.MkdirTemp(b.dir, "server")
	if err != nil {
		return nil, err
	}
	r := &running{place: place{dir: dir}, b: b}
	if err := r.launch(s); err != nil {
		return nil, r.finish(err)
	}
	return r, nil
}

// finish stops the server. If err is not nil, it returns that with what the server says.
func (r *running) finish(err error) error {
	if err != nil {
		err = fmt.Errorf("%w%s", err, r.said())
	}
	return errors.Join(err, r.stop())
}

func (r *running) launch(s server) error {
	var err error
	if r.address, err = freePort(); err != nil {
		return err
	}
	if s.prepare != nil {
		if err := s.prepare(r.place); err != nil {
			return err
		}
	}
	log, err := os.Create(filepath.Join(r.dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	out, err := os.Create(filepath.Join(r.dir, "stdout"))
	if err != nil {
		return err
	}
	defer out.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	stdin := null
	commands := s.commands(r.place)
	for i, command := range commands {
		stdout, next := out, null
		if i < len(commands)-1 {
			if next, stdout, err = os.Pipe(); err != nil {
				return err
			}
		}
		process, err := os.StartProcess("/proc/self/exe", append([]string{"bench", enterCommand, r.b.group.procs()}, command...),
			&os.ProcAttr{Dir: r.dir, Files: []*os.File{stdin, stdout, log}, Sys: &syscall.SysProcAttr{Setpgid: true}})
		if stdin != null {
			stdin.Close()
		}
		if stdout != out {
			stdout.Close()
		}
		stdin = next
		if err != nil {
			return err
		}
		r.pid = process.Pid
	}
	_, err = r.cpu()
	return err
}

// freePort returns an address with a port that is free, and not ephemeral.
func freePort() (netip.AddrPort, error) {
	for range 100 {
		lastPort = max(2000, (lastPort+1)%10000)
		l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", lastPort))
		if err == nil {
			l.Close()
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), lastPort), nil
		}
	}
	return netip.AddrPort{}, errors.New("no port is free")
}

var lastPort uint16

// await waits until the port is listened on. It makes no connection, which would start
// a program.
func (r *running) await() error {
	deadline := time.Now().Add(patience)
	for {
		listening, err := listens(r.address.Port())
		if err != nil || listening {
			return err
		}
		if reap(unix.WNOHANG) == unix.ECHILD {
			return errors.New("it has ended at once")
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("it does not listen within %v", patience)
		}
		time.Sleep(time.Millisecond)
	}
}

// listens tells whether a socket listens on the port.
func listens(port uint16) (bool, error) {
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, os.ErrNotExist) { // without IPv6
			return false, err
		}
		for line := range bytes.Lines(text) {
			// sl local_address rem_address st, proc(5); 0A is TCP_LISTEN.
			fields := bytes.Fields(line)
			if len(fields) > 3 && string(fields[3]) == "0A" && bytes.HasSuffix(fields[1], fmt.Appendf(nil, ":%04X", port)) {
				return true, nil
			}
		}
	}
	return false, nil
}

// cpu returns the CPU time that the server has used since the last call, its ended
// children included. It is 0 where it cannot be measured.
func (r *running) cpu() (time.Duration, error) {
	if r.b.group == nil {
		return 0, nil
	}
	now, err := r.b.group.usage()
	used := now - r.usage
	r.usage = now
	return used, err
}

// stop ends all that the server has started, and all that these have, and waits for
// them. This process is the init of its PID namespace: there are no others.
func (r *running) stop() error {
	for {
		// ESRCH: none is left but zombies.
		if err := unix.Kill(-1, unix.SIGKILL); err != nil && err != unix.ESRCH {
			return os.NewSyscallError("kill", err)
		}
		if reap(0) == unix.ECHILD {
			return os.RemoveAll(r.dir)
		}
	}
}

// reap waits for the children that have ended. With WNOHANG as flags it does not wait
// for others.
func reap(flags int) error {
	for {
		pid, err := unix.Wait4(-1, nil, flags, nil)
		if err != nil && err != unix.EINTR {
			return err
		}
		if pid == 0 && err == nil {
			return nil
		}
	}
}

// said returns the end of what the server has written, for an error.
func (r *running) said() string {
	text, err := os.ReadFile(filepath.Join(r.dir, "log"))
	if err != nil || len(text) == 0 {
		return ""
	}
	text = text[max(0, len(text)-500):]
	return "; it says: " + strings.TrimSpace(string(text))
}
