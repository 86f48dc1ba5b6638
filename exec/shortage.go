//go:build linux

package exec

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// shortage tells that programs cannot be started for now, at most every ten seconds:
// each connection meets the same cause.
func (p *Pool) shortage(err error) {
	p.mu.Lock()
	told := time.Since(p.told) < 10*time.Second
	if !told {
		p.told = time.Now()
	}
	p.mu.Unlock()
	if !told {
		p.trouble(fmt.Errorf("cannot start %s yet, trying again: %w", p.Program.Args[0], err))
	}
}

var errKilled = errors.New("the new process was killed before it became the program")

func temporary(err error) bool {
	if err == errKilled {
		return true
	}
	errno, _ := errors.AsType[unix.Errno](err)
	switch errno {
	case unix.EAGAIN, unix.ENOMEM, unix.EMFILE, unix.ENFILE, unix.ETXTBSY:
		return true
	}
	return false
}
