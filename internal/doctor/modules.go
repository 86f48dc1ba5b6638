//go:build linux

package doctor

import (
	"fmt"
	"slices"
	"strings"

	"fdkit/internal/fdinfo"
)

var moduleChecks = []check{
	{"lsm", (*Machine).modules},
	{"selinux", (*Machine).selinux},
	{"apparmor", (*Machine).apparmor},
	{"smack", (*Machine).smack},
	{"landlock", (*Machine).landlock},
}

// refuse are the security modules that may refuse a descriptor when it is received:
// those with a hook file_receive, which receive_fd() in fs/file.c calls, or one for
// Unix sockets.
var refuse = []string{"selinux", "apparmor", "smack", "landlock", "tomoyo", "bpf"}

// active returns the security modules that are on. Not known is nil.
func (m *Machine) active() []string {
	text, err := m.text("/sys/kernel/security/lsm")
	if err != nil {
		return nil
	}
	return strings.Split(text, ",")
}

func (m *Machine) has(module string) bool { return slices.Contains(m.active(), module) }

func (m *Machine) modules() Finding {
	all := m.active()
	if all == nil {
		f := Finding{Severity: OK, Value: "none is seen", Meaning: "securityfs is not mounted, which says which security modules are on; what was tried was refused by none"}
		if m.label("current") != "" {
			f.Severity, f.Value = Note, "not known, and the process has a label"
			f.Change = "mount -t securityfs securityfs /sys/kernel/security, as root"
		}
		return f
	}
	var able []string
	for _, name := range refuse {
		if m.has(name) {
			able = append(able, name)
		}
	}
	f := Finding{Severity: OK, Value: fdinfo.Printable(strings.Join(all, ",")), Meaning: "none of them refuses descriptors"}
	if able != nil {
		f.Meaning = strings.Join(able, ", ") + " can refuse descriptors: the receiver gets MSG_CTRUNC and fewer of them, the sender sees nothing"
	}
	return f
}

// label returns the process's label of a security module.
func (m *Machine) label(file string) string {
	text, err := m.text(m.process("attr/" + file))
	if err != nil {
		return ""
	}
	return fdinfo.Printable(text)
}

// off is the finding of a module that is not there.
func off(name string) Finding {
	return Finding{Severity: OK, Value: "off", Meaning: name + " refuses nothing"}
}

// selinux: selinux_file_receive() in security/selinux/hooks.c asks for the class fd's
// permission use, and for the file's own.
func (m *Machine) selinux() Finding {
	enforce, err := m.text("/sys/fs/selinux/enforce")
	if err != nil && !m.has("selinux") {
		return off("SELinux")
	}
	f := Finding{Severity: OK, Value: "permissive", Meaning: "what it would refuse is only in the log"}
	if err != nil {
		f.Severity, f.Value, f.Meaning = Note, "on; whether it enforces is not known", "it may refuse descriptors"
	}
	if enforce == "1" {
		f.Severity, f.Value = Note, "enforcing"
		f.Meaning = "a descriptor is refused unless the receiver's domain may use the sender's (fd use) and the file"
		f.Change = "ausearch -m avc tells what was refused; audit2allow makes a rule"
		if strings.Contains(m.label("current"), ":unconfined_t:") {
			f.Severity, f.Meaning = OK, "this process is not confined; confined ones need fd use"
		}
	}
	if label := m.label("current"); label != "" {
		f.Value += fmt.Sprintf(", %slabel %s", m.whose(), label)
	}
	return f
}

// apparmor: apparmor_file_receive() in security/apparmor/lsm.c asks the profile for the
// file, and newer ones for the Unix socket.
func (m *Machine) apparmor() Finding {
	enabled, err := m.text("/sys/module/apparmor/parameters/enabled")
	if (err != nil || enabled != "Y") && !m.has("apparmor") {
		return off("AppArmor")
	}
	label := m.label("apparmor/current")
	if label == "" {
		label = m.label("current")
	}
	f := Finding{Severity: OK, Value: "on, " + m.whose() + "label " + label, Meaning: "this process is not confined"}
	switch {
	case label == "":
		f.Severity, f.Value, f.Meaning = Note, "on, "+m.whose()+"label not known", "it may refuse descriptors"
	case strings.HasSuffix(label, "(enforce)"), strings.HasSuffix(label, "(kill)"):
		f.Severity = Note
		f.Meaning = "a descriptor is refused if the profile has no rule for its file, or for the unix socket"
		f.Change = "the kernel's log has apparmor=\"DENIED\" operation=\"file_receive\"; aa-logprof makes a rule"
	case label != "unconfined":
		f.Meaning = "what the profile would refuse is only in the log"
	}
	return f
}

// smack: smack_file_receive() in security/smack/smack_lsm.c.
func (m *Machine) smack() Finding {
	if !m.has("smack") {
		return off("Smack")
	}
	return Finding{
		Severity: Note, Value: "on, " + m.whose() + "label " + m.label("current"),
		Meaning: "a descriptor is refused unless the receiver's label has access to the file's",
		Change:  "a rule in /sys/fs/smackfs/load2",
	}
}

// landlock: LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET in landlock(7).
func (m *Machine) landlock() Finding {
	if !m.has("landlock") {
		return off("Landlock")
	}
	return Finding{
		Severity: OK, Value: "on",
		Meaning: "only a program that has asked for it is restricted, which cannot be seen: it may not reach abstract names, and shell pipes between users, outside of its domain; descriptors that it receives keep their rights",
	}
}
