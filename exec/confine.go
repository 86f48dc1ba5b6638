//go:build linux

package exec

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Confinement is what a program is given and denied besides its connection. The
// zero value changes nothing. It is applied in the new process, in the order of
// the fields.
type Confinement struct {
	Nice   *int    // priority from -20 to 19, setpriority(2)
	Limits []Limit // resource limits, setrlimit(2)
	Umask  *int    // umask(2)
	Chroot string  // root directory; the program is looked up inside, and begins in it
	Dir    string  // working directory, inside Chroot
	User   *User   // who the program runs as
	// NoNewPrivs keeps execve(2) from giving privileges, by set-user-ID bits and the
	// like, PR_SET_NO_NEW_PRIVS(2const).
	NoNewPrivs bool
}

// User is a user with groups, setresuid(2) and setgroups(2).
type User struct {
	UID, GID int
	Groups   []int // supplementary groups; nil: none
}

// Limit is a resource limit, soft and hard.
type Limit struct {
	Resource int // unix.RLIMIT_NOFILE and so on
	Cur, Max uint64
}

// FindConfined is Find for a program that is to run in a confinement: inside its
// root directory, where the name must be an absolute path, and from its working
// directory.
func FindConfined(c *Confinement, name string, args ...string) (*Program, error) {
	if c.Chroot == "" {
		if c.Dir != "" && filepath.Base(name) != name && !filepath.IsAbs(name) {
			p, err := Find(filepath.Join(c.Dir, name), args...)
			if err != nil {
				return nil, err
			}
			p.Path, p.Args[0] = name, name
			return p, nil
		}
		return Find(name, args...)
	}
	if !filepath.IsAbs(name) {
		return nil, &NotRunnableError{Name: name, NotFound: true, Err: errors.New("in another root directory a program needs an absolute path")}
	}
	if root, err := os.Stat(c.Chroot); err != nil || !root.IsDir() {
		if err == nil {
			err = unix.ENOTDIR
		}
		return nil, fmt.Errorf("cannot change the root directory to %s: %w", c.Chroot, withoutPath(err))
	}
	outside := filepath.Join(c.Chroot, name)
	info, err := os.Stat(outside)
	switch {
	case err != nil:
		return nil, notRunnable(outside, err)
	case info.IsDir():
		return nil, &NotRunnableError{Name: outside, Err: unix.EISDIR}
	case info.Mode()&0o111 == 0:
		return nil, notRunnable(outside, unix.EACCES)
	}
	return &Program{Path: name, Args: append([]string{name}, args...)}, nil
}

func withoutPath(err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return path.Err
	}
	return err
}

// check tells early what would fail for each program anew.
func (c *Confinement) check() error {
	root := c.Chroot
	if root != "" {
		if info, err := os.Stat(root); err != nil {
			return fmt.Errorf("cannot change the root directory: %w", err)
		} else if !info.IsDir() {
			return fmt.Errorf("cannot change the root directory to %s: %w", root, unix.ENOTDIR)
		}
	}
	if c.Dir != "" {
		dir := c.Dir
		if root != "" {
			dir = filepath.Join(root, dir)
		}
		if info, err := os.Stat(dir); err != nil {
			return fmt.Errorf("cannot change the directory: %w", err)
		} else if !info.IsDir() {
			return fmt.Errorf("cannot change the directory to %s: %w", dir, unix.ENOTDIR)
		}
	}
	return nil
}

// plain tells whether the confinement changes nothing.
func (c *Confinement) plain() bool {
	return c.Nice == nil && len(c.Limits) == 0 && c.Umask == nil && c.Chroot == "" && c.Dir == "" && c.User == nil && !c.NoNewPrivs
}
