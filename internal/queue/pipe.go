//go:build linux

package queue

import (
	"bytes"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/internal/hint"
	"fdkit/internal/scm"
)

// ErrForeign is that of a path at which there is no queue.
var ErrForeign = errors.New("another program serves this path, with another type of socket")

// ErrEnded is returned by OpenReceive if the sender of the pipe has gone, and
// nothing can come any more. It wraps io.EOF.
var ErrEnded = fmt.Errorf("the sender has ended: %w", io.EOF)

// line is what a sender writes to a pipe: where its queue is to be had.
type line struct {
	pid    int    // the sender
	file   int    // its descriptor that leads to the socket file, -1: none
	name   string // the abstract name, without @
	token  string // what a receiver must show
	answer string // what the sender must show
	pipe   string // the identity of the pipe
}

const lineFormat = "fdkit-queue pid=%d file=%d name=%s token=%s answer=%s pipe=%s\n"

func (l line) String() string {
	return fmt.Sprintf(lineFormat, l.pid, l.file, l.name, l.token, l.answer, l.pipe)
}

func parseLine(text string) (l line, err error) {
	// %s would take any number of words for one, so the line is put together
	// again and compared.
	_, err = fmt.Sscanf(text, lineFormat, &l.pid, &l.file, &l.name, &l.token, &l.answer, &l.pipe)
	if err != nil || l.String() != text || l.pid <= 0 || len(l.token) != 32 || len(l.answer) != 32 {
		return line{}, errors.New("no fdkit line")
	}
	return l, nil
}

func random128() string {
	var b [16]byte
	// For so few bytes it can neither fail nor return early once the system has started,
	// getrandom(2); until then it waits.
	if n, err := unix.Getrandom(b[:], 0); n < len(b) {
		panic(os.NewSyscallError("getrandom", err))
	}
	return hex.EncodeToString(b[:])
}

// pipeIdentity names the pipe that fd is an end of.
func pipeIdentity(fd int) (string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", os.NewSyscallError("fstat", err)
	}
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino), nil
}

// sendThroughPipe makes a queue and writes to the pipe fd where it is to be had.
// It owns fd unless it fails.
func sendThroughPipe(fd int) (*Queue, error) {
	if n, err := unix.IoctlGetInt(fd, unix.TIOCINQ); err == nil && n > 0 {
		return nil, hint.Wrap(errors.New("another sender has written to this pipe"),
			"one command can listen on several addresses; several senders can share a named queue")
	}
	pipe, err := pipeIdentity(fd)
	if err != nil {
		return nil, err
	}
	send, receive, err := newPair()
	if err != nil {
		return nil, err
	}
	l := line{pid: os.Getpid(), name: "fdkit-" + random128(), token: random128(), answer: random128(), pipe: pipe}
	abstract, err := listenAbstract(l.name)
	if err != nil {
		closeAll(send, receive)
		return nil, err
	}
	private, file := listenPrivate()
	l.file = file

	lifeline := newLifeline(fd)
	var attended atomic.Bool
	d := &door{answer: func(_ int, request []byte) ([]byte, []int, func()) {
		token, _ := scm.Var(request, attachVar)
		if subtle.ConstantTimeCompare([]byte(token), []byte(l.token)) != 1 {
			return scm.AppendVar([]byte(scm.Begin), refusedVar, "wrong token"), nil, nil
		}
		if _, refused := scm.Var(request, refusedVar); refused {
			lifeline.cut()
			return nil, nil, nil
		}
		reply := scm.AppendVar([]byte(scm.Begin), attachedVar, l.answer)
		return scm.AppendVar(reply, fdNamesVar, "receive"), []int{receive}, func() { attended.Store(true) }
	}}
	d.open(abstract)
	if private >= 0 {
		d.open(private)
	}
	q := &Queue{FD: send, in: receive, gone: lifeline.gone, others: attended.Load}
	q.lasting = func() bool { return false } // whether a receiver is attached is not known
	q.leave = func() (lost int, err error) {
		d.shut()
		lifeline.stop()
		select {
		case <-q.gone:
			lost = discard(receive)
		default:
		}
		closeAll(receive, abstract, private, file, fd)
		return lost, nil
	}
	if _, err := unix.Write(fd, []byte(l.String())); err == unix.EPIPE {
		lifeline.cut()
	} else if err != nil {
		d.shut()
		closeAll(send, receive, abstract, private, file)
		return nil, os.NewSyscallError("write", err)
	} else {
		lifeline.watch()
	}
	return q, nil
}

// listenAbstract opens the door for any user of this network namespace.
func listenAbstract(name string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: "@" + name}); err != nil {
		closeAll(fd)
		return -1, os.NewSyscallError("bind", err)
	}
	if err := unix.Listen(fd, doorBacklog); err != nil {
		closeAll(fd)
		return -1, os.NewSyscallError("listen", err)
	}
	return fd, nil
}

// listenPrivate opens the door for this user in any network namespace: a socket
// file that is removed as soon as it is made and lives on through an O_PATH
// descriptor, which others reach as /proc/PID/fd/N. Only one who may look into
// this process gets there, proc_pid_fd(5). Where there is no place for a socket
// file there is no such door, and both are -1.
func listenPrivate() (fd, file int) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, -1
	}
	for _, place := range []string{os.TempDir(), "/tmp", "/run", "/dev/shm"} {
		dir, err := os.MkdirTemp(place, "fdkit-") // 0700
		if err != nil {
			continue
		}
		path := filepath.Join(dir, "q")
		file := -1
		if unix.Bind(fd, &unix.SockaddrUnix{Name: path}) == nil {
			// Who has come as far as here through /proc is let in; the token decides.
			_ = unix.Chmod(path, 0o666)
			if file, err = unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err != nil {
				file = -1
			}
			_ = unix.Unlink(path)
		}
		_ = unix.Rmdir(dir)
		if file >= 0 && unix.Listen(fd, doorBacklog) == nil {
			return fd, file
		}
		closeAll(file)
	}
	closeAll(fd)
	return -1, -1
}

// receiveThroughPipe fetches the queue whose line is in the pipe fd. It owns fd
// unless it fails.
func receiveThroughPipe(fd int, o opening) (*Queue, error) {
	patience := o.patience()
	l, err := lookAtLine(fd, patience)
	if err != nil {
		return nil, err
	}
	if pipe, err := pipeIdentity(fd); err != nil {
		return nil, err
	} else if pipe != l.pipe {
		refuse(l)
		return nil, hint.Wrap(
			fmt.Errorf("the line in it comes from another pipe, through a program that is no fdkit command (the sender is process %d)", l.pid),
			"descriptors do not pass through cat, tee and the like; join the fdkit commands directly")
	}
	for {
		receive, err := fetch(l, patience)
		switch {
		case err == nil:
			return &Queue{FD: receive, in: receive, leave: func() (int, error) {
				closeAll(fd) // lets the sender know
				return 0, nil
			}}, nil
		case hasNoWriter(fd), errors.Is(err, io.EOF):
			return nil, ErrEnded
		case !errors.Is(err, errNoAnswer) || !patience.again(err):
			return nil, err
		}
	}
}

// refuse tells the sender that its line has come to a receiver through another
// program's hands: it would wait for ever behind that program.
func refuse(l line) {
	conn, err := connectSeqpacket("@" + l.name)
	if err != nil {
		return
	}
	defer closeAll(conn)
	request := scm.AppendVar([]byte(scm.Begin), attachVar, l.token)
	request = scm.AppendVar(request, refusedVar, "another pipe")
	_ = scm.NewSender(conn, nil).Send(request)
}

// lookAtLine copies the line from the pipe with tee(2), which leaves it there for
// the next receiver.
func lookAtLine(fd int, patience *patience) (line, error) {
	if ready, err := patience.calls.Wait(fd, unix.POLLIN, patience.left(-1)); err != nil {
		return line{}, err
	} else if !ready {
		return line{}, errors.New("no sender has written to it in time")
	}
	for {
		text, err := peekPipe(fd)
		if err != nil {
			return line{}, err
		}
		if len(text) == 0 {
			return line{}, hint.Wrap(errors.New("it ended before a sender wrote to it"),
				"the command before the | has failed, or is none that sends descriptors as fdkit listen does")
		}
		first, rest, whole := bytes.Cut(text, []byte("\n"))
		l, err := parseLine(string(first) + "\n")
		switch {
		case whole && err == nil && len(rest) > 0:
			return line{}, hint.Wrap(errors.New("two programs have written to this pipe"),
				"one command can listen on several addresses; several senders can share a named queue")
		case whole && err == nil:
			return l, nil
		// A line that is still being written grows; anything else never becomes one.
		case whole || !strings.HasPrefix(lineFormat, string(first[:min(len(first), len("fdkit-queue "))])) ||
			hasNoWriter(fd) || !patience.again(errors.New("half a line is in the pipe")):
			return line{}, hint.Wrap(fmt.Errorf("it carries no descriptors but data: %.40q", first),
				"the command before the | must be one that sends descriptors, such as fdkit listen")
		}
	}
}

func peekPipe(fd int) ([]byte, error) {
	var copied [2]int
	if err := unix.Pipe2(copied[:], unix.O_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	defer closeAll(copied[0], copied[1])
	buf := make([]byte, 4096)
	n, err := tee(fd, copied[1], len(buf))
	if err != nil || n == 0 {
		return nil, err
	}
	if n, err = unix.Read(copied[0], buf); err != nil {
		return nil, os.NewSyscallError("read", err)
	}
	return buf[:n], nil
}

func tee(from, to, size int) (int, error) {
	for {
		n, err := unix.Tee(from, to, size, unix.SPLICE_F_NONBLOCK)
		switch err {
		case nil:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, os.NewSyscallError("tee", err)
		}
	}
}

// hasNoWriter tells whether nobody holds the writing end of the pipe fd.
func hasNoWriter(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd)}}
	_, err := unix.Poll(fds, 0)
	return err == nil && fds[0].Revents&unix.POLLHUP != 0
}

// fetch gets the receiving end of the queue from the sender. It returns io.EOF if
// there is no such sender any more.
func fetch(l line, patience *patience) (int, error) {
	// The private door first: others cannot stand in the way there.
	file := fmt.Sprintf("/proc/%d/fd/%d", l.pid, l.file)
	receive, privately := knockAt(file, l, patience)
	if privately == nil {
		return receive, nil
	}
	receive, err := knockAt("@"+l.name, l, patience)
	if err == nil || !errors.Is(err, unix.ECONNREFUSED) {
		return receive, err
	}
	if errors.Is(privately, errNoAnswer) {
		return -1, errNoAnswer
	}
	// A sender closes its doors a moment before it ends.
	for range 20 {
		if hasEnded(l.pid) {
			return -1, io.EOF
		}
		time.Sleep(10 * time.Millisecond)
	}
	return -1, hint.Wrap(fmt.Errorf("cannot reach the sender, process %d, through %s (%w) or by name (%w)", l.pid, file, privately, err),
		"sender and receiver must share the network namespace or the user; a named queue joins any two")
}

// hasEnded tells whether there is no such process any more, or only its exit status.
func hasEnded(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	// proc_pid_stat(5): the state follows the name, which may have anything in it.
	return err != nil || bytes.HasPrefix(text[bytes.LastIndexByte(text, ')')+1:], []byte(" Z"))
}

// knockAt asks for the queue at one of the sender's doors.
func knockAt(path string, l line, patience *patience) (int, error) {
	conn, err := connectSeqpacket(path)
	if err != nil {
		return -1, err
	}
	defer closeAll(conn)
	reply, fds, err := knock(conn, l.token, patience)
	if err != nil {
		return -1, err
	}
	answer, _ := scm.Var(reply, attachedVar)
	if subtle.ConstantTimeCompare([]byte(answer), []byte(l.answer)) != 1 || len(fds) != 1 {
		closeAll(fds...)
		return -1, errors.New("another process answers in the sender's place")
	}
	return fds[0], nil
}

func connectSeqpacket(path string) (int, error) {
	return connect(path, unix.SOCK_SEQPACKET)
}
