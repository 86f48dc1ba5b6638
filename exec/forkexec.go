//go:build linux

package exec

import (
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

var errConfine = errors.New("programs cannot be confined here: it takes clone3(2), on amd64 or arm64")

// forkExec starts the program with the means of the standard library.
func forkExec(p *Program, confine *Confinement, fd int, places []int, env []string) (pid int, err error) {
	if !confine.plain() {
		return 0, errConfine
	}
	handleIgnoredSignals()
	emptyMask() // the child has that of the calling thread
	files := []uintptr{0, 1, 2}
	for _, place := range places {
		for len(files) <= place {
			files = append(files, ^uintptr(0)) // is closed
		}
		files[place] = uintptr(fd)
	}
	return syscall.ForkExec(p.Path, p.Args, &syscall.ProcAttr{
		Env:   env,
		Files: files,
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
