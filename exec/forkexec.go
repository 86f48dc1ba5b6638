//go:build linux

package exec

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// forkExec starts the program with the means of the standard library.
func forkExec(p *Program, fd int, env []string) (pid int, err error) {
	handleIgnoredSignals()
	return syscall.ForkExec(p.Path, p.Args, &syscall.ProcAttr{
		Env:   env,
		Files: []uintptr{uintptr(fd), uintptr(fd), 2},
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	})
}

// handleIgnoredSignals takes over the signals that this process was started with
// as ignored, as nohup and the shell's & do it. They remain without effect here,
// but programs get them with their default: what is ignored stays ignored through
// execve, what has a handler does not.
var handleIgnoredSignals = sync.OnceFunc(func() {
	for _, sig := range ignoredSignals() {
		signal.Notify(make(chan os.Signal, 1), sig)
	}
})
