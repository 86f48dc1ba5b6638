//go:build linux

package doctor

import (
	"os"
	"strconv"
	"strings"

	"fdkit/internal/fdinfo"
	"fdkit/internal/interrupt"
)

var processChecks = []check{
	{"seccomp", (*Machine).seccomp},
	{"new-privileges", (*Machine).newPrivileges},
	{"signal", (*Machine).signal},
	{"container", (*Machine).container},
	{"ptrace-scope", (*Machine).ptraceScope},
	{"proc", (*Machine).proc},
}

func (m *Machine) seccomp() Finding {
	mode := m.status("Seccomp")
	f := Finding{Severity: OK, Meaning: "no system call is filtered"}
	switch mode {
	case "":
		f.Severity, f.Value, f.Meaning = Note, m.whose()+"not known", "a filter may forbid system calls"
	case "0":
		f.Value = m.whose() + "no filter"
	case "1":
		f.Severity, f.Value, f.Meaning = Error, m.whose()+"strict mode", "only read, write and exit are allowed: nothing passes"
		f.Change = "start the program without PR_SET_SECCOMP, prctl(2)"
	default:
		f.Severity, f.Value = Note, m.whose()+"a filter"
		if n := m.status("Seccomp_filters"); n != "" {
			f.Value = m.whose() + n + " filters"
		}
		f.Meaning = "system calls may be refused (EPERM, ENOSYS); what is tried here shows which, for a process with the same filter"
		f.Change = "SystemCallFilter= in systemd.exec(5), or --security-opt seccomp= of the container"
	}
	return f
}

func (m *Machine) newPrivileges() Finding {
	f := Finding{Severity: OK, Value: m.whose() + "programs may gain privileges", Meaning: "set-user-ID programs work where a descriptor is received"}
	if m.status("NoNewPrivs") == "1" {
		f.Severity, f.Value = Note, m.whose()+"NoNewPrivs is set"
		f.Meaning = "sudo and other set-user-ID programs have no privileges when they are run on a connection"
		f.Change = "NoNewPrivileges=no in systemd.exec(5); it cannot be taken back by the process itself"
	}
	return f
}

// signal looks at the signal by which waiting calls are ended.
func (m *Machine) signal() Finding {
	f := Finding{Severity: OK, Value: m.whose() + "signal 63 is free", Meaning: "commands that wait for descriptors can be ended (it interrupts the wait)"}
	bit := uint64(1) << (interrupt.Signal - 1)
	for _, mask := range []struct{ field, what string }{{"SigBlk", "blocked"}, {"SigIgn", "ignored"}} {
		set, err := strconv.ParseUint(m.status(mask.field), 16, 64)
		switch {
		case err != nil:
			f.Severity, f.Value = Note, m.whose()+"not known"
			return f
		case set&bit != 0:
			f.Severity, f.Value = Note, m.whose()+"signal 63 is "+mask.what
			f.Meaning = "fdkit's commands unblock it for themselves; a program over package fdsend or fdrecv that blocks it again cannot be stopped while it waits"
			f.Change = "the parent process leaves it as it is by default"
			return f
		}
	}
	return f
}

// containers are files by which a container is known, and whose it is.
var containers = []struct{ file, name string }{
	{"/.dockerenv", "Docker"}, {"/run/.containerenv", "Podman"}, {"/run/systemd/container", "systemd-nspawn or the like"},
}

func (m *Machine) container() Finding {
	f := Finding{Severity: OK, Value: "none is seen", Meaning: "users and limits are the machine's own"}
	for _, c := range containers {
		if _, err := os.Stat(m.path(c.file)); err == nil {
			f.Severity, f.Value = Note, c.name
			f.Meaning = "abstract names, fs.nr_open and process numbers may be other ones than outside"
			f.Change = "queues that lead out of it need a path in a directory that both sides have"
			break
		}
	}
	if !m.firstNamespace() {
		if _, err := m.text(m.process("uid_map")); err != nil {
			return f
		}
		f.Severity, f.Value = Note, strings.Replace(f.Value, "none is seen", "no other sign", 1)+", in a user namespace"
		f.Meaning = "root here is another user outside: it is not exempt from the limit of descriptors in flight, and other users' processes cannot be looked at"
		f.Change = "what needs it runs outside of the namespace"
	}
	return f
}

// ptraceScope is that of Yama, Documentation/admin-guide/LSM/Yama.rst.
func (m *Machine) ptraceScope() Finding {
	scope, err := m.number("/proc/sys/kernel/yama/ptrace_scope")
	f := Finding{Severity: OK, Value: "Yama is not there", Meaning: "a user may copy descriptors out of the own processes (pidfd_getfd)"}
	if err != nil {
		return f
	}
	f.Value = "kernel.yama.ptrace_scope " + strconv.FormatUint(scope, 10)
	f.Change = "sysctl kernel.yama.ptrace_scope=0, as root, or root takes them"
	switch scope {
	case 0:
		f.Change = ""
	case 1:
		f.Severity, f.Meaning = Note, "a user may copy descriptors out of the own processes' children only: fdkit send PID:FD of others fails"
	case 2:
		f.Severity, f.Meaning = Note, "only root may copy descriptors out of other processes (CAP_SYS_PTRACE)"
	default:
		f.Severity, f.Meaning = Warning, "nobody may copy descriptors out of other processes, and that lasts until the next start"
		f.Change = "start the machine anew without it"
	}
	return f
}

func (m *Machine) proc() Finding {
	text, err := m.text("/proc/self/mountinfo")
	if err != nil {
		return Finding{
			Severity: Error, Value: "not mounted: " + err.Error(), Meaning: "shell pipes between namespaces, fdkit inspect and metrics of queues do not work",
			Change: "mount -t proc proc /proc",
		}
	}
	f := Finding{Severity: OK, Value: "mounted", Meaning: "descriptors can be looked at, and a shell pipe's private socket reached"}
	for line := range strings.Lines(text) {
		// Number, parent, device, root, mount point, ... - type, source, options of the
		// file system: proc_pid_mountinfo(5).
		before, after, _ := strings.Cut(line, " - ")
		place, kind := strings.Fields(before), strings.Fields(after)
		if len(place) < 5 || len(kind) < 3 || place[4] != "/proc" || kind[0] != "proc" {
			continue
		}
		for option := range strings.SplitSeq(kind[2], ",") {
			level, hidden := strings.CutPrefix(option, "hidepid=")
			if hidden && level != "0" && level != "off" {
				f.Severity, f.Value = Note, "mounted with "+fdinfo.Printable(option)
				f.Meaning = "other users' processes cannot be looked at: fdkit inspect PID, and a shell pipe between two users needs one network namespace"
				f.Change = "mount -o remount,hidepid=0 /proc, as root, or gid= for who may look"
			}
		}
	}
	return f
}
