//go:build linux

package cmd

import (
	"errors"
	"fmt"
	"maps"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"fdkit/exec"
	"fdkit/internal/scm"
)

// identityFlags are the options that say as whom programs run, and what they can
// reach.
func identityFlags() []cli.Flag {
	return []cli.Flag{
		onceFlag("user", "run programs as `USER[:GROUP]`, with the user's supplementary groups unless GROUP is given"),
		onceFlag("group", "run programs with `GROUP[,GROUP...]`, the first as their own group"),
		onceFlag("chroot", "make `DIR` the root directory of programs"),
		&cli.BoolFlag{Name: "no-new-privs", Usage: "let programs get no privileges by set-user-ID bits and the like", DisableDefaultText: true},
	}
}

// confineFlags are the further options that say what programs are given and denied.
func confineFlags() []cli.Flag {
	return []cli.Flag{
		onceFlag("chdir", "make `DIR` the working directory of programs"),
		&cli.GenericFlag{Name: "nice", Usage: "run programs with priority `N` from -20, the best, to 19", Value: &nice{}},
		&cli.GenericFlag{Name: "umask", Usage: "run programs with the umask `BITS`", Value: &umask{}},
		&cli.GenericFlag{Name: "limit", Usage: "limit a resource of each program: `NAME=SOFT[:HARD]`, such as nofile=64", Value: &limits{}},
		&cli.BoolFlag{Name: "clean-env", Usage: "let programs inherit no variables but those of --env", DisableDefaultText: true},
		&cli.StringSliceFlag{Name: "env", Usage: "give programs the variable `NAME[=VALUE]`, without a value as it is here"},
	}
}

// identify sets what the options of identityFlags or privilegeFlags ask for.
func identify(c *cli.Context, confine *exec.Confinement) (err error) {
	confine.Chroot, confine.NoNewPrivs = onceOf(c, "chroot"), c.Bool("no-new-privs")
	confine.User, err = userOf(onceOf(c, "user"), onceOf(c, "group"))
	return err
}

// confinementOf returns what the options of confineFlags ask for, and those that say
// as whom programs run.
func confinementOf(c *cli.Context) (confine exec.Confinement, err error) {
	confine.Dir = onceOf(c, "chdir")
	confine.Limits = c.Generic("limit").(*limits).list
	if n := c.Generic("nice").(*nice); n.set {
		confine.Nice = &n.value
	}
	if u := c.Generic("umask").(*umask); u.set {
		confine.Umask = &u.value
	}
	return confine, identify(c, &confine)
}

// environOf returns the environment that programs inherit: that of this process,
// environ, less what is for this process only, or nothing, with what the options
// add.
func environOf(c *cli.Context, environ []string) ([]string, error) {
	base := withoutManager(environ)
	if c.Bool("clean-env") {
		base = nil
	}
	for _, v := range c.StringSlice("env") {
		name, _, hasValue := strings.Cut(v, "=")
		if !scm.ValidName(name) {
			return nil, usagef("option --env: %q is no variable name", name)
		}
		if exec.DescribesConnection(name) || inDialects(dialectsOf(c), name) {
			return nil, usagef("option --env: %s tells of the connection and comes with it", name)
		}
		has := func(entry string) bool { return strings.HasPrefix(entry, name+"=") }
		if !hasValue {
			i := slices.IndexFunc(environ, has)
			if i < 0 {
				continue // unset here, unset there
			}
			v = environ[i]
		}
		base = append(slices.DeleteFunc(base, has), v)
	}
	return base, nil
}

// userOf looks up what --user and --group name, nil if they name nothing.
func userOf(userSpec, groupSpec string) (*exec.User, error) {
	if userSpec == "" && groupSpec == "" {
		return nil, nil
	}
	u := &exec.User{UID: unix.Getuid(), GID: unix.Getgid()}
	if userSpec != "" {
		var o owner
		if err := o.Set(userSpec); err != nil {
			return nil, usagef("option --user: %w", err)
		}
		if o.uid == nil {
			return nil, usagef("option --user: %q names no user", userSpec)
		}
		u.UID = *o.uid
		if o.gid != nil {
			u.GID = *o.gid
		} else if err := addGroups(u); err != nil && groupSpec == "" {
			return nil, usageHint("write USER:GROUP", "option --user: %w", err)
		}
	}
	if groupSpec != "" {
		u.Groups = nil
		for i, name := range strings.Split(groupSpec, ",") {
			var o owner
			if err := o.Set(":" + name); err != nil {
				return nil, usagef("option --group: %w", err)
			}
			if i == 0 {
				u.GID = *o.gid
			}
			u.Groups = append(u.Groups, *o.gid)
		}
	}
	return u, nil
}

// addGroups gives u the groups that its user has in passwd(5) and group(5).
func addGroups(u *exec.User) error {
	known, err := user.LookupId(strconv.Itoa(u.UID))
	if err != nil {
		return fmt.Errorf("uid %d is not in passwd(5), so its group is not known", u.UID)
	}
	if u.GID, err = strconv.Atoi(known.Gid); err != nil {
		return err
	}
	groups, err := known.GroupIds()
	if err != nil {
		return err
	}
	for _, text := range groups {
		group, err := strconv.Atoi(text)
		if err != nil {
			return err
		}
		u.Groups = append(u.Groups, group)
	}
	return nil
}

// nice is the value of --nice.
type nice struct {
	value int
	set   bool
}

func (n *nice) Set(text string) error {
	value, err := strconv.Atoi(text)
	if err != nil || value < -20 || value > 19 {
		return fmt.Errorf("%q is no number from -20 to 19", text)
	}
	n.value, n.set = value, true
	return nil
}

func (n *nice) String() string { return "" }

// umask is the value of --umask.
type umask struct {
	value int
	set   bool
}

func (u *umask) Set(text string) error {
	value, err := strconv.ParseUint(text, 8, 32)
	if err != nil || value > 0o777 {
		return fmt.Errorf("%q is no octal umask such as 022", text)
	}
	u.value, u.set = int(value), true
	return nil
}

func (u *umask) String() string { return "" }

// limits is the value of --limit, which may be given several times.
type limits struct{ list []exec.Limit }

// resources are the names of setrlimit(2), without RLIMIT_ and in small letters.
var resources = map[string]int{
	"as": unix.RLIMIT_AS, "core": unix.RLIMIT_CORE, "cpu": unix.RLIMIT_CPU, "data": unix.RLIMIT_DATA,
	"fsize": unix.RLIMIT_FSIZE, "locks": unix.RLIMIT_LOCKS, "memlock": unix.RLIMIT_MEMLOCK,
	"msgqueue": unix.RLIMIT_MSGQUEUE, "nice": unix.RLIMIT_NICE, "nofile": unix.RLIMIT_NOFILE,
	"nproc": unix.RLIMIT_NPROC, "rss": unix.RLIMIT_RSS, "rtprio": unix.RLIMIT_RTPRIO,
	"rttime": unix.RLIMIT_RTTIME, "sigpending": unix.RLIMIT_SIGPENDING, "stack": unix.RLIMIT_STACK,
}

func (l *limits) Set(text string) error {
	name, value, _ := strings.Cut(text, "=")
	resource, known := resources[name]
	if !known {
		return fmt.Errorf("%q is no resource; they are %s", name, strings.Join(slices.Sorted(maps.Keys(resources)), ", "))
	}
	softText, hardText, two := strings.Cut(value, ":")
	if !two {
		hardText = softText
	}
	soft, err1 := parseLimit(softText)
	hard, err2 := parseLimit(hardText)
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("%q is no limit such as 64, 64:128, 512M or unlimited", value)
	}
	if soft > hard {
		return fmt.Errorf("%s: the soft limit is above the hard one", text)
	}
	l.list = append(l.list, exec.Limit{Resource: resource, Cur: soft, Max: hard})
	return nil
}

func (l *limits) String() string { return "" }

// parseLimit parses a number, with K, M or G for multiples of 1024.
func parseLimit(text string) (uint64, error) {
	if text == "unlimited" {
		return unix.RLIM_INFINITY, nil
	}
	shift := 0
	for i, unit := range []string{"K", "M", "G"} {
		if number, ok := strings.CutSuffix(text, unit); ok {
			text, shift = number, 10*(i+1)
		}
	}
	value, err := strconv.ParseUint(text, 10, 63-shift)
	return value << shift, err
}
