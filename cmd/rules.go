//go:build linux

package cmd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"fdkit/exec"
	"fdkit/internal/hint"
	"fdkit/listen"
)

// maxRules is the size that a file of rules may have, in bytes.
const maxRules = 16 << 20

// accessFlags are the options that say who may connect.
func accessFlags() []cli.Flag {
	asked := new([]askedRule)
	return []cli.Flag{
		repeatedFlag{&cli.GenericFlag{Name: "allow", Usage: "let `WHO` connect, an address, a network, uid=USER, gid=GROUP, unix or all", Value: &ruleOption{"allow", asked}}},
		repeatedFlag{&cli.GenericFlag{Name: "deny", Usage: "refuse `WHO`; of these options and rules, the first that matches decides", Value: &ruleOption{"deny", asked}}},
		onceFlag("rules", "after these options, go by the rules in `FILE`, which SIGHUP reads anew"),
	}
}

// repeatedFlag is a flag that can be given several times.
type repeatedFlag struct{ *cli.GenericFlag }

// IsSliceFlag tells the help and the completion.
func (repeatedFlag) IsSliceFlag() bool { return true }

func (f repeatedFlag) String() string { return cli.FlagStringer(f) }

// askedRule is what --allow or --deny was given. It is parsed when all options have
// been, as package flag would drop the hint of an error.
type askedRule struct{ verb, who string }

// ruleOption is the value of --allow or --deny. Both add to one list, as their order
// counts.
type ruleOption struct {
	verb  string
	asked *[]askedRule
}

func (o *ruleOption) Set(text string) error {
	*o.asked = append(*o.asked, askedRule{o.verb, text})
	return nil
}

func (o *ruleOption) String() string { return "" }

// access is who may connect.
type access struct {
	options *listen.Rules
	file    string // "" if there is none
	path    string // of file, from dir
	dir     int    // AT_FDCWD, or with --chroot the directory of file, which that does not change
}

// accessOf returns what the options ask for.
func accessOf(c *cli.Context) (*access, error) {
	a := &access{file: onceOf(c, "rules")}
	var rules []listen.Rule
	for _, asked := range *c.Generic("allow").(*ruleOption).asked {
		who, err := listen.ParseWho(asked.who)
		if err != nil {
			return nil, usagef("option --%s: %w", asked.verb, err)
		}
		rules = append(rules, listen.Rule{Who: who, Decision: listen.Decision{
			Allow: asked.verb == "allow", Where: "--" + asked.verb + " " + asked.who,
		}})
	}
	if len(rules) > 0 || a.file != "" {
		a.options = listen.NewRules(rules)
	}
	if a.path, a.dir = a.file, unix.AT_FDCWD; a.file != "" && onceOf(c, "chroot") != "" {
		var err error
		a.path = filepath.Base(a.file)
		if a.dir, err = unix.Open(filepath.Dir(a.file), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
			return nil, cannotRead(a.file, err)
		}
	}
	return a, nil
}

// rules returns the rules, with those that the file has now. They are nil if there are
// none.
func (a *access) rules() (*listen.Rules, error) {
	rules := a.options
	if a.file != "" {
		text, err := a.read()
		if err != nil {
			return nil, cannotRead(a.file, err)
		}
		file, err := listen.ParseRules(a.file, text)
		if err != nil {
			return nil, usageError{err}
		}
		for where, name := range file.Variables() {
			if _, err := exec.NewEnviron(nil, name); err != nil {
				return nil, usageHint("fdkit-environ(7) lists what never comes with a connection", "%s: %s cannot be set: no program gets it", where, name)
			}
		}
		rules = rules.Append(file)
	}
	return rules, nil
}

func cannotRead(path string, err error) error {
	return fmt.Errorf("cannot read the rules in %s: %w", path, err)
}

func (a *access) read() (text string, err error) {
	// O_NONBLOCK: a FIFO that nobody writes to would be waited for.
	fd, err := unix.Openat(a.dir, a.path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	f := os.NewFile(uintptr(fd), a.file)
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return "", err
	case info.IsDir():
		return "", errors.New("it is a directory")
	case !info.Mode().IsRegular():
		return "", hint.Wrap(errors.New("it is no regular file"), "SIGHUP reads it again, which a pipe does not allow")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxRules+1))
	if err == nil && len(data) > maxRules {
		err = fmt.Errorf("it is larger than %d MiB", maxRules>>20)
	}
	return string(data), err
}
