//go:build linux

package cmd

import (
	"errors"
	"fmt"

	"fdkit/exec"
	"fdkit/fdrecv"
	"fdkit/fdsend"
	"fdkit/internal/hint"
)

// Exit statuses, as the UCSPI tools and the shell have them.
const (
	exitDone       = 0
	exitNothing    = 1   // recv, recv-exec: the queue ended and nothing came
	exitFound      = 1   // doctor: an error is among the findings; torture: the peer has a fault
	exitUsage      = 100 // wrong usage
	exitSystem     = 111 // a system call failed, perhaps for a time
	exitLost       = 112 // recv: descriptors were lost on the way
	exitNotRunning = 126 // the program is there and cannot be run
	exitNotFound   = 127 // there is no such program
)

// usageError is the user's mistake on the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func usageHint(text, format string, args ...any) error {
	return usageError{hint.Wrap(fmt.Errorf(format, args...), text)}
}

// quiet is an exit status without a word.
type quiet int

func (q quiet) Error() string { return fmt.Sprintf("exit status %d", int(q)) }

// exitStatus returns the exit status that goes with err.
func exitStatus(err error) int {
	var usage usageError
	var program *exec.NotRunnableError
	var lost *fdrecv.LostError
	var status quiet
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &status):
		return int(status)
	case errors.As(err, &usage), errors.Is(err, fdsend.ErrSpec):
		return exitUsage
	case errors.As(err, &lost):
		return exitLost
	case errors.As(err, &program) && program.NotFound:
		return exitNotFound
	case errors.As(err, &program):
		return exitNotRunning
	}
	return exitSystem
}
