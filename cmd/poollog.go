//go:build linux

package cmd

import (
	"cmp"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fdkit/exec"
)

// started says that a program has begun.
func (r *runner) started(run *exec.Run, slots int) {
	fields := append(r.log.origin(run.Env, run.Begin),
		slog.Int("pid", run.PID), slog.Int("running", run.Running), slog.Int("slots", slots))
	run.Note = fields[0]
	r.log.event(isInfo, "start", "start pid {pid} for {client}, waited {waited}, running {running}/{slots}", fields...)
}

// ended says how a program has ended.
func (r *runner) ended(run *exec.Run, slots int) {
	template := "end pid {pid} for {client}, ran {ran}, exit {status}, running {running}/{slots}"
	outcome := slog.Int("status", run.Status.ExitStatus())
	if run.Status.Signaled() {
		template = "end pid {pid} for {client}, ran {ran}, {signal}, running {running}/{slots}"
		outcome = slog.String("signal", exec.StatusText(run.Status))
	}
	r.log.event(isInfo, "end", template, run.Note.(slog.Attr), slog.Int("pid", run.PID), slog.Duration("ran", run.Took),
		outcome, slog.Int("running", run.Running), slog.Int("slots", slots))
}

// died says that a program has crashed, or was killed by others.
func (r *runner) died(run *exec.Run) {
	sig := run.Status.Signal()
	if run.Status.Signaled() && run.Limit == "" && sig != syscall.SIGPIPE && sig != syscall.SIGTERM && !r.ending.Load() {
		r.log.event(isError, "died", "{command}, pid {pid}, died: {signal}",
			slog.String("command", r.program.Args[0]), slog.Int("pid", run.PID), slog.String("signal", exec.StatusText(run.Status)))
	}
}

// unixClient is how the log names a client of a Unix socket; pid is empty or 0 if it is
// in another PID namespace.
func unixClient(uid, pid string) string {
	if pid == "" || pid == "0" {
		pid = "unknown"
	}
	return "uid " + uid + " pid " + pid
}

// origin tells from a program's environment who its client is, in the first field,
// and how long the connection waited before begin.
func (l logger) origin(env []string, begin time.Time) []slog.Attr {
	vars := map[string]string{}
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		vars[name] = value
	}
	client := "unknown"
	if ip := vars["TCPREMOTEIP"]; ip != "" {
		client = l.client(net.JoinHostPort(ip, vars["TCPREMOTEPORT"]))
	} else if uid := vars["UNIXREMOTEEUID"]; uid != "" {
		client = unixClient(uid, vars["UNIXREMOTEPID"])
	} else if ip := vars["TCPLOCALIP"]; ip != "" { // a socket that listens has no client
		client = "the socket at " + net.JoinHostPort(ip, vars["TCPLOCALPORT"])
	} else if path := vars["UNIXLOCALPATH"]; path != "" {
		client = "the socket at " + path
	}
	fields := []slog.Attr{slog.String("client", client)}
	if accepted, ok := acceptedAt(env); ok {
		fields = append(fields, slog.Duration("waited", max(begin.Sub(accepted), 0)))
	}
	return fields
}

// acceptedAt tells from a program's environment when its connection was accepted.
func acceptedAt(env []string) (time.Time, bool) {
	for _, v := range env {
		if text, ok := strings.CutPrefix(v, "FDKIT_ACCEPTED="); ok {
			seconds, err := strconv.ParseFloat(text, 64)
			return time.UnixMicro(int64(seconds * 1e6)), err == nil
		}
	}
	return time.Time{}, false
}

func signalName(sig syscall.Signal) string {
	return cmp.Or(unix.SignalName(sig), "signal "+strconv.Itoa(int(sig)))
}
