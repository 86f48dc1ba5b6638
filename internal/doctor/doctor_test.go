//go:build linux

package doctor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fdkit/internal/fdtest"
	"fdkit/internal/nofile"
)

// files are those of a machine, by path. A path that ends in / is a directory.
type files map[string]string

// machine is a healthy one with these files beside or instead of its own.
func machine(t *testing.T, more files) *Machine {
	t.Helper()
	all := files{
		"/proc/sys/fs/nr_open": "1048576\n", "/proc/sys/fs/file-nr": "800\t0\t100000\n",
		"/proc/sys/net/core/wmem_max": "212992\n", "/proc/sys/net/core/wmem_default": "212992\n",
		"/proc/sys/net/unix/max_dgram_qlen": "512\n", "/proc/sys/net/core/somaxconn": "4096\n",
		"/proc/self/limits": "Limit   Soft Limit   Hard Limit   Units\nMax open files            1024                 524288               files\n",
		"/proc/self/status": "Name:\tx\nUid:\t7\t7\t7\t7\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001000\nCapEff:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t0\n",
		"/proc/self/fd/0":   "", "/proc/self/fd/1": "", "/proc/self/cgroup": "0::/a/b\n",
		"/proc/self/uid_map": "         0          0 4294967295\n", "/proc/self/mountinfo": "22 1 0:20 / /proc rw,relatime - proc proc rw\n",
		"/proc/1/fdinfo/0": "pos:\t0\n", "/run/": "",
	}
	m := NewMachine()
	m.root, m.Limit = t.TempDir(), nofile.Limit{}
	m.attempt = func(string, func() (string, error)) (string, error) { return "done", nil }
	m.inFlight = func(int) (flight, error) { return flight{}, nil }
	m.depth = func(int) (int, int, error) { return 4, 13, nil }
	m.place = func(string) error { return nil }
	for name, text := range more {
		all[name] = text
	}
	for name, text := range all {
		path := m.path(name)
		if text == "-" {
			continue // not there
		}
		dir := filepath.Dir(path)
		if strings.HasSuffix(name, "/") {
			dir = path
		}
		if err := os.MkdirAll(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		if dir != path {
			if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
				t.Fatal(err)
			}
		}
	}
	return m
}

// do does one check.
func do(t *testing.T, m *Machine, name string) Finding {
	t.Helper()
	for _, c := range checks() {
		if c.name == name {
			f := c.look(m)
			f.Check = name
			return f
		}
	}
	t.Fatalf("there is no check %s", name)
	return Finding{}
}

func limits(soft string) string {
	return "Max open files            " + soft + "    524288     files\n"
}

// fds returns that many descriptors.
func fds(n int) files {
	all := files{"/proc/self/limits": limits("1024")}
	for i := range n {
		all[fmt.Sprintf("/proc/self/fd/%d", i)] = ""
	}
	return all
}

// Every branch of the checks that read files.
func TestChecks(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", "")
	status := func(line string) files { return files{"/proc/self/status": line + "\n"} }
	for _, test := range []struct {
		check string
		files files
		want  Severity
		says  string // what is in the finding
	}{
		{"open-files", nil, OK, "soft limit 1024, hard limit 524288, in use 1"},
		{"open-files", fds(801), Warning, "more than 224 descriptors"},
		{"open-files", fds(1025), Error, "no descriptor can be received"},
		{"open-files", files{"/proc/self/limits": limits("100")}, Warning, "more than 99 descriptors"},
		{"open-files", files{"/proc/self/limits": limits("0")}, Error, "EMFILE"},
		{"open-files", files{"/proc/self/limits": limits("unlimited")}, OK, "soft limit 18446744073709551615"},
		{"open-files", files{"/proc/self/limits": "nothing\n"}, Note, "no line of open files"},
		{"open-files", files{"/proc/self/limits": "-"}, Note, "not known"},
		{"open-files", files{"/proc/self/fd/0": "-", "/proc/self/fd/1": "-"}, Note, "in use: not known"},
		{"nr-open", nil, OK, "1048576"},
		{"nr-open", files{"/proc/sys/fs/nr_open": "524288\n"}, OK, "sysctl fs.nr_open"},
		{"nr-open", files{"/proc/sys/fs/nr_open": "-"}, Note, "not known"},
		{"nr-open", files{"/proc/sys/fs/nr_open": "many\n"}, Note, "not known"},
		{"file-max", nil, OK, "800 of 100000"},
		{"file-max", files{"/proc/sys/fs/file-nr": "90000\t0\t100000\n"}, Warning, "80 %"},
		{"file-max", files{"/proc/sys/fs/file-nr": "100000\t0\t100000\n"}, Error, "ENFILE"},
		{"file-max", files{"/proc/sys/fs/file-nr": "1\n"}, Note, "not known"},
		{"file-max", files{"/proc/sys/fs/file-nr": "-"}, Note, "not known"},
		{"queued", nil, OK, "no descriptors wait"},
		{"queued", files{
			"/proc/5/fdinfo/3": "ino:\t8\nscm_fds:\t2\n", "/proc/6/fdinfo/4": "ino:\t8\nscm_fds: 2\n",
			"/proc/6/fdinfo/5": "ino:\t9\nscm_fds: 40\n", "/proc/6/comm": "a\x1bb\n",
		}, OK, `42 wait in receive queues of sockets (2), most of them, 40, in 6:5 (a\x1bb)`},
		{"queued", files{"/proc/1/fdinfo/0": "-"}, Note, "no process"},
		{"queue-depth", nil, OK, "room for 4 messages, and 13 fit"},
		{"send-buffer", nil, OK, "212992"},
		{"send-buffer", files{"/proc/sys/net/core/wmem_max": "4608\n"}, Note, "shorter"},
		{"send-buffer", files{"/proc/sys/net/core/wmem_max": "-"}, Note, "not known"},
		{"send-buffer", files{"/proc/sys/net/core/wmem_default": "-"}, Note, "not known"},
		{"datagrams", nil, OK, "513 messages"},
		{"datagrams", files{"/proc/sys/net/unix/max_dgram_qlen": "2\n"}, Note, "3 messages"},
		{"datagrams", files{"/proc/sys/net/unix/max_dgram_qlen": "-"}, Note, "not known"},
		{"backlog", nil, OK, "4096"},
		{"backlog", files{"/proc/sys/net/core/somaxconn": "128\n"}, Note, "--backlog is cut"},
		{"backlog", files{"/proc/sys/net/core/somaxconn": "-"}, Note, "not known"},
		{"processes", nil, OK, "no limit"},
		{"processes", files{"/sys/fs/cgroup/a/b/pids.max": "max\n", "/sys/fs/cgroup/a/pids.max": "100\n", "/sys/fs/cgroup/a/pids.current": "70\n"}, Warning, "more than 30 programs"},
		{"processes", files{"/sys/fs/cgroup/a/pids.max": "100\n", "/sys/fs/cgroup/a/pids.current": "170\n"}, Warning, "more than 0 programs"},
		{"processes", files{"/proc/self/cgroup": "1:name=systemd:/\n8:cpu,pids:/\n7:pids:/x\nbad\n", "/sys/fs/cgroup/pids/x/pids.max": "50", "/sys/fs/cgroup/pids/x/pids.current": "1"}, OK, "1 of 50 processes in cgroup /x"},
		{"processes", files{"/proc/self/cgroup": "-"}, Note, "not known"},
		{"seccomp", nil, OK, "no filter"},
		{"seccomp", status("Seccomp:\t2\nSeccomp_filters:\t3"), Note, "3 filters"},
		{"seccomp", status("Seccomp:\t2"), Note, "a filter"},
		{"seccomp", status("Seccomp:\t1"), Error, "strict"},
		{"seccomp", status("x"), Note, "not known"},
		{"new-privileges", nil, OK, "may gain"},
		{"new-privileges", status("NoNewPrivs:\t1"), Note, "sudo"},
		{"signal", nil, OK, "free"},
		{"signal", status("SigBlk:\t4000000000000000\nSigIgn:\t0000000000000000"), Note, "blocked"},
		{"signal", status("SigBlk:\t0000000000000000\nSigIgn:\t4000000000000000"), Note, "ignored"},
		{"signal", status("SigBlk:\tx"), Note, "not known"},
		{"container", nil, OK, "none is seen"},
		{"container", files{"/.dockerenv": ""}, Note, "Docker"},
		{"container", files{"/proc/self/uid_map": "0 1000 1\n"}, Note, "in a user namespace"},
		{"container", files{"/run/.containerenv": "", "/proc/self/uid_map": "0 1000 1\n"}, Note, "Podman, in a user namespace"},
		{"container", files{"/proc/self/uid_map": "-"}, OK, "none is seen"},
		{"ptrace-scope", nil, OK, "Yama is not there"},
		{"ptrace-scope", files{"/proc/sys/kernel/yama/ptrace_scope": "0\n"}, OK, "ptrace_scope 0"},
		{"ptrace-scope", files{"/proc/sys/kernel/yama/ptrace_scope": "1\n"}, Note, "children only"},
		{"ptrace-scope", files{"/proc/sys/kernel/yama/ptrace_scope": "2\n"}, Note, "CAP_SYS_PTRACE"},
		{"ptrace-scope", files{"/proc/sys/kernel/yama/ptrace_scope": "3\n"}, Warning, "nobody"},
		{"proc", nil, OK, "mounted"},
		{"proc", files{"/proc/self/mountinfo": "-"}, Error, "not mounted"},
		{"proc", files{"/proc/self/mountinfo": "22 1 0:20 / /proc rw - proc proc rw,hidepid=invisible\n"}, Note, "hidepid=invisible"},
		{"proc", files{"/proc/self/mountinfo": "short\n22 1 0:20 / /proc rw - proc proc rw,hidepid=0\n"}, OK, "mounted"},
		{"lsm", nil, OK, "none is seen"},
		{"lsm", files{"/proc/self/attr/current": "x_t"}, Note, "has a label"},
		{"lsm", files{"/sys/kernel/security/lsm": "lockdown,capability,yama"}, OK, "none of them"},
		{"lsm", files{"/sys/kernel/security/lsm": "capability,apparmor,bpf"}, OK, "apparmor, bpf can refuse"},
		{"selinux", nil, OK, "off"},
		{"selinux", files{"/sys/fs/selinux/enforce": "0"}, OK, "permissive"},
		{"selinux", files{"/sys/fs/selinux/enforce": "1", "/proc/self/attr/current": "u:r:httpd_t:s0\x00"}, Note, "enforcing, label u:r:httpd_t:s0"},
		{"selinux", files{"/sys/fs/selinux/enforce": "1", "/proc/self/attr/current": "u:r:unconfined_t:s0"}, OK, "not confined"},
		{"selinux", files{"/sys/kernel/security/lsm": "selinux"}, Note, "not known"},
		{"apparmor", nil, OK, "off"},
		{"apparmor", files{"/sys/module/apparmor/parameters/enabled": "N\n"}, OK, "off"},
		{"apparmor", files{"/sys/module/apparmor/parameters/enabled": "Y\n"}, Note, "label not known"},
		{"apparmor", files{"/sys/module/apparmor/parameters/enabled": "Y\n", "/proc/self/attr/current": "unconfined\n"}, OK, "not confined"},
		{"apparmor", files{"/sys/kernel/security/lsm": "apparmor", "/proc/self/attr/apparmor/current": "docker-default (enforce)\n"}, Note, "docker-default"},
		{"apparmor", files{"/sys/kernel/security/lsm": "apparmor", "/proc/self/attr/current": "x (complain)\n"}, OK, "only in the log"},
		{"smack", nil, OK, "off"},
		{"smack", files{"/sys/kernel/security/lsm": "smack", "/proc/self/attr/current": "_"}, Note, "label _"},
		{"landlock", nil, OK, "off"},
		{"landlock", files{"/sys/kernel/security/lsm": "landlock"}, OK, "abstract names"},
		{"temporary-files", nil, OK, "can be made"},
		{"runtime-directory", nil, OK, "/run"},
		{"runtime-directory", files{"/run/": "-"}, Note, "no such file"},
		{"standard-descriptors", nil, OK, "0 "},
	} {
		m := machine(t, test.files)
		f := do(t, m, test.check)
		if text := f.Value + " | " + f.Meaning + " | " + f.Change; f.Severity != test.want || !strings.Contains(text, test.says) {
			t.Errorf("%s with %q: %s %s; want %s, with %q in it", test.check, test.files, f.Severity, text, test.want, test.says)
		}
		if f.Value == "" || f.Meaning == "" || f.Severity == Error && f.Change == "" || f.Severity == Warning && f.Change == "" {
			t.Errorf("%s: %+v; want a value, a meaning and, if something is wrong, a cure", test.check, f)
		}
	}
}

// What is in flight, for each kind of process.
func TestInFlight(t *testing.T) {
	root := "Uid:\t0\t0\t0\t0\nCapEff:\t0000000001000000\n"
	for _, test := range []struct {
		what string
		pid  int
		uid  int
		now  flight
		err  error
		more files
		want Severity
		says string
	}{
		{"none", 0, -1, flight{}, nil, nil, OK, "0 in flight, limit 1024"},
		{"half", 0, -1, flight{n: 513}, nil, nil, Note, "513"},
		{"nearly", 0, -1, flight{n: 1000}, nil, nil, Warning, "after 25 further"},
		{"at it", 0, -1, flight{n: 1024}, nil, nil, Warning, "after 1 further"},
		{"over", 0, -1, flight{n: 1025}, nil, nil, Error, "ETOOMANYREFS"},
		{"over all", 0, -1, flight{n: 1024, more: true}, nil, nil, Error, "more than 1024"},
		{"exempt", 0, -1, flight{n: 5000, exempt: true}, nil, nil, OK, "exempt"},
		{"another user is not", 0, 7, flight{n: 5000, exempt: true}, nil, nil, Error, "user 7"},
		{"not allowed", 0, 7, flight{}, unix.EPERM, nil, Note, "not measured"},
		{"a process", 9, -1, flight{n: 5}, nil, files{"/proc/9/status": "Uid:\t7\t0\t0\t0\n", "/proc/9/limits": limits("5")}, Warning, "user 7: 5 in flight, limit 5"},
		{"a root's", 9, -1, flight{n: 50}, nil, files{"/proc/9/status": root, "/proc/9/limits": limits("5"), "/proc/9/uid_map": "0 0 4294967295"}, OK, "exempt"},
		{"a container's", 9, -1, flight{n: 50}, nil, files{"/proc/9/status": root, "/proc/9/limits": limits("5"), "/proc/9/uid_map": "0 1000 1"}, Error, "user 0"},
		{"one that has ended", 9, -1, flight{}, nil, nil, Note, "not known"},
		{"one without a user", 9, -1, flight{}, nil, files{"/proc/9/status": "x\n", "/proc/9/limits": limits("5")}, Note, "no user"},
	} {
		m := machine(t, test.more)
		m.PID, m.UID = test.pid, test.uid
		m.inFlight = func(int) (flight, error) { return test.now, test.err }
		f := do(t, m, "in-flight")
		if text := f.Value + " | " + f.Meaning; f.Severity != test.want || !strings.Contains(text, test.says) {
			t.Errorf("%s: %s %s; want %s, with %q in it", test.what, f.Severity, text, test.want, test.says)
		}
	}
}

// Whatever fails is said to be missing, or not to be tried for want of descriptors.
func TestFeatures(t *testing.T) {
	for _, feature := range features {
		for _, err := range []error{unix.ENOSYS, unix.EPERM, unix.EMFILE, unix.ETOOMANYREFS} {
			m := machine(t, nil)
			m.attempt = func(name string, _ func() (string, error)) (string, error) {
				if name != feature.name {
					t.Errorf("%s tries %s", feature.name, name)
				}
				return "", os.NewSyscallError("call", err)
			}
			f := do(t, m, feature.name)
			shortage := err == unix.EMFILE || err == unix.ETOOMANYREFS
			if f.Severity != feature.missing || f.Change == "" || strings.HasPrefix(f.Value, "not tried") != shortage {
				t.Errorf("%s with %v: %+v; want %s, and why", feature.name, err, f, feature.missing)
			}
		}
	}
}

func TestPlaces(t *testing.T) {
	fail := errors.New("read-only")
	for n, want := range []Severity{OK, Note, Note, Note, Warning} {
		m := machine(t, nil)
		tried := 0
		m.place = func(string) error {
			if tried++; tried <= n {
				return fail
			}
			return nil
		}
		if f := do(t, m, "temporary-files"); f.Severity != want || (f.Change == "") != (want == OK) {
			t.Errorf("with %d places that fail: %+v; want %s", n, f, want)
		}
	}
	for dir, want := range map[string]Severity{t.TempDir(): Warning, "/nonexistent": Note} {
		_ = os.Chmod(dir, 0o755)
		t.Setenv("XDG_RUNTIME_DIR", dir)
		if f := do(t, machine(t, nil), "runtime-directory"); f.Severity != want {
			t.Errorf("XDG_RUNTIME_DIR=%s: %+v; want %s", dir, f, want)
		}
	}
}

func TestDepthFails(t *testing.T) {
	for _, depth := range []func(int) (int, int, error){
		func(int) (int, int, error) { return 0, 0, unix.EMFILE },
		func(int) (int, int, error) { return 0, 0, nil },
	} {
		m := machine(t, nil)
		m.depth = depth
		if f := do(t, m, "queue-depth"); f.Severity != Error || f.Change == "" {
			t.Errorf("queue-depth is %+v; want an error with a cure", f)
		}
	}
}

// On a real machine, nothing is left: no descriptor, no file, no lower limit.
func TestNothingIsLeft(t *testing.T) {
	fdtest.NoLeaks(t)
	t.Setenv("TMPDIR", t.TempDir())
	var before, after unix.Rlimit
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &before); err != nil {
		t.Fatal(err)
	}
	m := NewMachine()
	for range 3 {
		for _, f := range m.Examine() {
			if f.Severity == Error {
				t.Errorf("%+v; want no error on a machine on which tests run", f)
			}
		}
	}
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &after); err != nil || before != after {
		t.Errorf("the limit of open files was %v and is %v (%v)", before, after, err)
	}
	if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) > 0 {
		t.Errorf("left in TMPDIR: %v (%v)", left, err)
	}
}

// Real trials with too few descriptors end with an error, and leave none.
func TestFewFiles(t *testing.T) {
	fdtest.NoLeaks(t)
	for n := range 6 {
		m := NewMachine()
		restore := fdtest.FewFiles(t, n)
		f := do(t, m, "rights")
		restore()
		if f.Severity != Error {
			t.Errorf("with %d free descriptors, rights is %+v; want an error", n, f)
		}
	}
}

func TestMeasureDepth(t *testing.T) {
	small, smallFull, err := measureDepth(1)
	if err != nil {
		t.Fatal(err)
	}
	large, largeFull, err := measureDepth(64 << 10)
	if err != nil {
		t.Fatal(err)
	}
	if small < 1 || small >= large || smallFull >= largeFull || small > smallFull || large > largeFull {
		t.Errorf("measureDepth(1) = %d, %d and measureDepth(65536) = %d, %d; want more for more, and less until it is full", small, smallFull, large, largeFull)
	}
}

func FuzzFiles(f *testing.F) {
	f.Add("Max open files 1 2 files\n", "Uid:\t1\n", "0::/a\n", "22 1 0:20 / /proc rw - proc proc rw,hidepid=2\n")
	f.Add("Max open files", "Seccomp:", "::", " - ")
	f.Fuzz(func(t *testing.T, limits, status, cgroup, mounts string) {
		m := machine(t, files{"/proc/self/limits": limits, "/proc/self/status": status, "/proc/self/cgroup": cgroup, "/proc/self/mountinfo": mounts})
		for _, f := range m.Examine() {
			if strings.ContainsFunc(f.Value, func(r rune) bool { return r < ' ' }) {
				t.Errorf("%s: %q has control characters in it", f.Check, f.Value)
			}
		}
	})
}
