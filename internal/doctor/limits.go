//go:build linux

package doctor

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"fdkit/internal/scm"
)

var limitChecks = []check{
	{"open-files", (*Machine).openFiles},
	{"nr-open", (*Machine).nrOpen},
	{"file-max", (*Machine).fileMax},
	{"in-flight", (*Machine).inFlightLimit},
	{"queued", (*Machine).queued},
	{"queue-depth", (*Machine).queueDepth},
	{"send-buffer", (*Machine).sendBuffer},
	{"datagrams", (*Machine).datagrams},
	{"backlog", (*Machine).backlog},
	{"processes", (*Machine).processes},
}

// openLimit returns the RLIMIT_NOFILE of the process.
func (m *Machine) openLimit() (soft, hard uint64, err error) {
	if m.PID == 0 && m.Limit.Max != 0 {
		return m.Limit.Cur, m.Limit.Max, nil
	}
	text, err := m.text(m.process("limits"))
	if err != nil {
		return 0, 0, err
	}
	// proc_pid_limits() in fs/proc/base.c: name, soft and hard limit, unit.
	for line := range strings.Lines(text) {
		rest, found := strings.CutPrefix(line, "Max open files")
		if fields := strings.Fields(rest); found && len(fields) >= 2 {
			return limitOf(fields[0]), limitOf(fields[1]), nil
		}
	}
	return 0, 0, errors.New("limits has no line of open files")
}

// limitOf parses a limit: a number, or unlimited or max.
func limitOf(text string) uint64 {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return math.MaxUint64
	}
	return n
}

func (m *Machine) openFiles() Finding {
	soft, hard, err := m.openLimit()
	if err != nil {
		return unseen(err)
	}
	f := Finding{Severity: OK, Value: fmt.Sprintf("%ssoft limit %d, hard limit %d", m.whose(), soft, hard), Meaning: fmt.Sprintf("a message of 253 descriptors can be received (RLIMIT_NOFILE); a worker that keeps its connections can have some %d", soft)}
	if hard > soft {
		f.Meaning += ", and more if it raises its soft limit"
	}
	cure := fmt.Sprintf("ulimit -n N in the shell that starts it, up to %d; beyond that LimitNOFILE= of systemd.exec(5), limits.conf(5)", hard)
	if m.PID != 0 {
		cure = fmt.Sprintf("prlimit --pid %d --nofile=N:, up to %d; for good where it is started", m.PID, hard)
	}
	used, err := list(m.path(m.process("fd")))
	if errors.Is(err, unix.EMFILE) && m.PID == 0 {
		f.Severity, f.Value, f.Change = Error, f.Value+", all in use", cure
		f.Meaning = "no descriptor can be received: what is sent is lost (MSG_CTRUNC), and accept fails with EMFILE"
		return f
	}
	if err != nil {
		f.Severity, f.Value = Note, f.Value+", in use: not known"
		f.Meaning, f.Change = "how many are left cannot be told: "+err.Error(), "look as root, or as the process's own user"
		return f
	}
	in := uint64(len(used))
	if m.PID == 0 && in > 0 {
		in-- // the one that the directory was read with
	}
	f.Value += fmt.Sprintf(", in use %d", in)
	switch {
	case in >= soft:
		f.Severity, f.Meaning = Error, "no descriptor can be received: what is sent is lost (MSG_CTRUNC), and accept fails with EMFILE"
	case soft-in < scm.MaxFDs:
		f.Severity, f.Meaning = Warning, fmt.Sprintf("a message of more than %d descriptors is cut: the rest is lost (MSG_CTRUNC)", soft-in)
	case in > soft/10*8:
		f.Severity, f.Meaning = Warning, "more than 80 % are in use: when none is left, what is sent is lost (MSG_CTRUNC)"
	default:
		return f
	}
	f.Change = cure
	return f
}

// list returns the names in a directory.
func list(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

func (m *Machine) nrOpen() Finding {
	ceiling, err := m.number("/proc/sys/fs/nr_open")
	if err != nil {
		return unseen(err)
	}
	f := Finding{Severity: OK, Value: fmt.Sprintf("fs.nr_open %d", ceiling), Meaning: "no process's limit of open files can be higher"}
	if _, hard, err := m.openLimit(); err == nil && hard >= ceiling {
		f.Change = "sysctl fs.nr_open=N, as root, allows more"
	}
	return f
}

func (m *Machine) fileMax() Finding {
	text, err := m.text("/proc/sys/fs/file-nr")
	if err != nil {
		return unseen(err)
	}
	fields := strings.Fields(text) // in use, free, at most: proc_sys_fs(5)
	if len(fields) != 3 {
		return unseen(fmt.Errorf("file-nr has %q", text))
	}
	used, most := limitOf(fields[0]), limitOf(fields[2])
	f := Finding{Severity: OK, Value: fmt.Sprintf("%d of %d open files of the whole system", used, most), Meaning: "there is room; descriptors in queues count too"}
	switch {
	case used >= most:
		f.Severity, f.Meaning = Error, "nobody but root can open or accept anything: ENFILE"
	case used > most/10*8:
		f.Severity, f.Meaning = Warning, "more than 80 % are in use: at the limit nobody but root can open or accept anything (ENFILE)"
	default:
		return f
	}
	f.Change = "sysctl fs.file-max=N, as root; fdkit who and lsof tell who has so many"
	return f
}

func (m *Machine) sendBuffer() Finding {
	most, err := m.number("/proc/sys/net/core/wmem_max")
	if err != nil {
		return unseen(err)
	}
	otherwise, err := m.number("/proc/sys/net/core/wmem_default")
	if err != nil {
		return unseen(err)
	}
	f := Finding{Severity: OK, Value: fmt.Sprintf("%d bytes, at most %d", otherwise, most), Meaning: "how much waits in another program's socket before its sender does (SO_SNDBUF)"}
	if most < QueueBuffer {
		f.Severity, f.Meaning, f.Change = Note, "queues are shorter than fdkit would have them", "sysctl net.core.wmem_max=212992, as root"
	}
	return f
}

func (m *Machine) datagrams() Finding {
	most, err := m.number("/proc/sys/net/unix/max_dgram_qlen")
	if err != nil {
		return unseen(err)
	}
	// unix_recvq_full() in net/unix/af_unix.c: more than that many.
	f := Finding{Severity: OK, Value: fmt.Sprintf("net.unix.max_dgram_qlen %d", most), Meaning: fmt.Sprintf("a receiver at unix-dgram: holds %d messages, then senders wait; queues of fdkit are not concerned", most+1)}
	if most < 10 {
		f.Severity, f.Change = Note, "sysctl net.unix.max_dgram_qlen=512, as root, before the receiver makes its socket"
	}
	return f
}

func (m *Machine) backlog() Finding {
	most, err := m.number("/proc/sys/net/core/somaxconn")
	if err != nil {
		return unseen(err)
	}
	f := Finding{Severity: OK, Value: fmt.Sprintf("net.core.somaxconn %d", most), Meaning: "so many connections can wait at a listening socket"}
	if most < 4096 { // the kernel's own default since Linux 5.4, listen(2)
		f.Severity, f.Meaning = Note, f.Meaning+", and --backlog is cut to it without a word from the kernel"
		f.Change = "sysctl net.core.somaxconn=4096, as root, before the socket listens"
	}
	return f
}

// poolSlots is how many programs fdkit pool runs at once unless -n says otherwise.
const poolSlots = 40

// processes looks at the pids controller of the process's cgroup and of those above.
func (m *Machine) processes() Finding {
	text, err := m.text(m.process("cgroup"))
	if err != nil {
		return unseen(err)
	}
	left, where := uint64(math.MaxUint64), ""
	for line := range strings.Lines(text) {
		// Number, controllers, path: cgroups(7). Version 2 has no controllers here.
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 || fields[1] != "" && fields[1] != "pids" {
			continue
		}
		base := "/sys/fs/cgroup"
		if fields[1] != "" {
			base = "/sys/fs/cgroup/pids"
		}
		for path := filepath.Clean("/" + fields[2]); ; path = filepath.Dir(path) {
			if most, err := m.text(base + path + "/pids.max"); err == nil && most != "max" {
				now, _ := m.number(base + path + "/pids.current")
				if n := limitOf(most) - min(now, limitOf(most)); n < left {
					left, where = n, fmt.Sprintf("%d of %s processes in cgroup %s", now, most, path)
				}
			}
			if path == "/" {
				break
			}
		}
	}
	f := Finding{Severity: OK, Value: m.whose() + where, Meaning: "fdkit pool can run its 40 programs at once"}
	if where == "" {
		f.Value = m.whose() + "no limit of a cgroup"
	}
	if left < poolSlots {
		f.Severity, f.Meaning = Warning, fmt.Sprintf("fdkit pool -n may run no more than %d programs at once", left)
		f.Change = "TasksMax= in systemd.resource-control(5), --pids-limit of the container, or a smaller -n"
	}
	return f
}

// QueueBuffer is the SO_SNDBUF of fdkit's own queues.
const QueueBuffer = 8192

func (m *Machine) queueDepth() Finding {
	ready, full, err := m.depth(m.SendBuffer)
	if err != nil {
		return Finding{Severity: Error, Value: "not measured: " + err.Error(), Meaning: "no queue can be made", Change: "see what the other errors say"}
	}
	f := Finding{
		Severity: OK,
		Value:    fmt.Sprintf("with SO_SNDBUF %d: poll says there is room for %d messages, and %d fit", m.SendBuffer, ready, full),
		Meaning:  "so many connections wait in a queue before its sender waits",
	}
	if m.SendBuffer == QueueBuffer {
		f.Meaning += "; fdkit's are short on purpose, as waiting costs nothing in the accept backlog"
	}
	if ready == 0 || full == 0 {
		f.Severity, f.Meaning, f.Change = Error, "nothing can be sent", "a larger SO_SNDBUF"
	}
	return f
}

// measureDepth fills a queue with messages as fdkit listen sends them, but without a
// descriptor: those are not in the buffer's account, and are in the user's. ready is how
// many went while poll(2) reported POLLOUT, and full how many went at all.
func measureDepth(size int) (ready, full int, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, 0, os.NewSyscallError("socketpair", err)
	}
	defer closeAll(pair[:]...)
	if err := unix.SetsockoptInt(pair[0], unix.SOL_SOCKET, unix.SO_SNDBUF, size); err != nil {
		return 0, 0, os.NewSyscallError("setsockopt", err)
	}
	payload := scm.AppendVar([]byte(scm.Begin), "FDKIT_NOTE", strings.Repeat("x", 200))
	sender := scm.NewSender(pair[0], nil)
	for writable := true; ; full++ {
		if writable {
			poll := []unix.PollFd{{Fd: int32(pair[0]), Events: unix.POLLOUT}}
			_, err := unix.Poll(poll, 0)
			if writable = err == nil && poll[0].Revents&unix.POLLOUT != 0; writable {
				ready = full + 1
			}
		}
		switch _, err := sender.Try(payload, nil, nil, 0); {
		case err == nil:
		case errors.Is(err, unix.EAGAIN):
			return ready, full, nil
		default:
			return 0, 0, os.NewSyscallError("sendmsg", err)
		}
	}
}

func closeAll(fds ...int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}
