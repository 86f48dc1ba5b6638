//go:build linux

// Package exec runs programs on connections that came as descriptors: in place
// of this process, or in a pool.
//
// The package reserves real-time signal 63, as fdrecv does: with it a pool ends the system
// call in which it waits for its children.
package exec

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	osexec "os/exec"

	"golang.org/x/sys/unix"

	"fdkit/internal/hint"
)

// Program is a program to be run, with its arguments.
type Program struct {
	Path string   // of the executable file
	Args []string // argv, the name it was called by first
}

// NotRunnableError says that a program cannot be run.
type NotRunnableError struct {
	Name string
	// NotFound tells that there is no such file (the shell's exit status 127);
	// otherwise it is there and cannot be executed (126).
	NotFound bool
	Err      error
}

func (e *NotRunnableError) Error() string { return fmt.Sprintf("cannot run %s: %v", e.Name, e.Err) }

func (e *NotRunnableError) Unwrap() error { return e.Err }

// Find looks the program up as the shell does: in PATH, unless its name has a
// slash. Its error is a *NotRunnableError.
func Find(name string, args ...string) (*Program, error) {
	path, err := osexec.LookPath(name)
	if errors.Is(err, osexec.ErrDot) {
		err = nil // PATH names the current directory: the user's wish, as in the shell
	}
	if err == nil {
		// LookPath has checked the mode bits; access(2) also knows of mounts
		// with noexec and of access control lists.
		if err = unix.Access(path, unix.X_OK); err == nil {
			err = checkInterpreter(path)
		}
		if err == nil {
			return &Program{Path: path, Args: append([]string{name}, args...)}, nil
		}
	}
	return nil, notRunnable(name, err)
}

func notRunnable(name string, err error) error {
	e := &NotRunnableError{Name: name, Err: err}
	switch {
	case name == "." || name == "..":
		e.Err = unix.EISDIR
	case errors.Is(err, osexec.ErrNotFound):
		e.NotFound, e.Err = true, errors.New("not found in PATH")
		if _, statErr := os.Stat(name); statErr == nil {
			e.Err = hint.Wrap(e.Err, "a program in the current directory is written ./"+name)
		}
	case errors.Is(err, fs.ErrNotExist):
		e.NotFound, e.Err = true, unix.ENOENT
		if _, statErr := os.Stat(name); statErr == nil {
			e.Err = hint.Wrap(e.Err, "the file is there, but not what runs it: the interpreter in its first line, or the loader of a dynamically linked program")
		}
	case errors.Is(err, unix.ENOEXEC):
		e.Err = hint.Wrap(unix.ENOEXEC, "a script needs a first line such as #!/bin/sh")
	case errors.Is(err, fs.ErrPermission):
		e.Err = unix.EACCES
		if info, statErr := os.Stat(name); statErr == nil && info.IsDir() {
			e.Err = unix.EISDIR
		} else if statErr == nil && info.Mode()&0o111 == 0 {
			e.Err = hint.Wrap(unix.EACCES, "chmod +x makes it executable")
		}
	default:
		if lookup, ok := errors.AsType[*osexec.Error](err); ok {
			e.Err = lookup.Err
		}
		if path, ok := errors.AsType[*fs.PathError](err); ok {
			e.Err = path.Err
		}
	}
	return e
}

// checkInterpreter checks that a script's interpreter is there: execve(2) would
// say so only when it has a connection to serve. A file that cannot be read, or
// is no script, is left to execve.
func checkInterpreter(path string) error {
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return err
	}
	// Not os.Open, for which the Go runtime would begin to poll.
	file, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(file)
	var head [256]byte // BINPRM_BUF_SIZE, linux/binfmts.h
	n, _ := unix.Read(file, head[:])
	line, isScript := bytes.CutPrefix(head[:max(n, 0)], []byte("#!"))
	line, _, _ = bytes.Cut(line, []byte("\n"))
	// Blanks and tabs only, as in fs/binfmt_script.c: a carriage return is part of
	// the name.
	line = bytes.Trim(line, " \t")
	if end := bytes.IndexAny(line, " \t"); end >= 0 {
		line = line[:end]
	}
	if !isScript || len(line) == 0 {
		return nil
	}
	return unix.Access(string(line), unix.X_OK)
}
