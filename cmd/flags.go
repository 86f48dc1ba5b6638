//go:build linux

package cmd

import (
	"errors"
	"fmt"
	"io/fs"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
)

// number is the value of an option that takes a whole number.
type number struct {
	value    int
	min, max int
}

// numberFlag is a flag for a whole number from low to high. It is parsed strictly:
// digits, and no octal, no 0x, no underscores as package flag would have it.
func numberFlag(name, usage string, low, high, otherwise int, aliases ...string) cli.Flag {
	f := &cli.GenericFlag{Name: name, Aliases: aliases, Usage: usage, Value: &number{value: otherwise, min: low, max: high}}
	if otherwise < low {
		f.DefaultText = "none"
	}
	return f
}

func (n *number) Set(text string) error {
	value, err := strconv.Atoi(text)
	if err != nil || strings.Trim(text, "0123456789") != "" || value < n.min || value > n.max {
		return fmt.Errorf("%q is no number from %d to %d", text, n.min, n.max)
	}
	n.value = value
	return nil
}

func (n *number) String() string { return strconv.Itoa(n.value) }

func numberOf(c *cli.Context, name string) int { return c.Generic(name).(*number).value }

// size is the value of an option that takes a number of bytes.
type size struct {
	value    int
	min, max int
}

// sizeFlag is a flag for a number of bytes from low to high, such as 64K or 1M.
func sizeFlag(name, usage string, low, high, otherwise int) cli.Flag {
	return &cli.GenericFlag{Name: name, Usage: usage, Value: &size{otherwise, low, high}}
}

func (s *size) Set(text string) error {
	value, err := parseLimit(text)
	if err != nil || value < uint64(s.min) || value > uint64(s.max) {
		return fmt.Errorf("%q is no size from %s to %s bytes, such as 65536, 64K or 1M", text, sizeText(s.min), sizeText(s.max))
	}
	s.value = int(value)
	return nil
}

func (s *size) String() string { return sizeText(s.value) }

func sizeText(n int) string {
	for i, unit := range []string{"G", "M", "K"} {
		if shift := 10 * (3 - i); n > 0 && n%(1<<shift) == 0 {
			return strconv.Itoa(n>>shift) + unit
		}
	}
	return strconv.Itoa(n)
}

func sizeOf(c *cli.Context, name string) int { return c.Generic(name).(*size).value }

// once is the value of an option that takes a text and can be given once: where a
// second one took the place of the first, or an empty one that of none, a program
// would run with privileges that it was not to have.
type once struct{ text string }

func onceFlag(name, usage string) cli.Flag {
	return &cli.GenericFlag{Name: name, Usage: usage, Value: &once{}, DefaultText: "none"}
}

func (o *once) Set(text string) error {
	switch {
	case text == "":
		return errors.New("the value is empty: is a variable of the shell not set?")
	case o.text != "":
		return fmt.Errorf("it is given twice, as %q and %q", o.text, text)
	}
	o.text = text
	return nil
}

func (o *once) String() string { return "" }

// onceOf returns the text, "" if the command has no such option or it was not given.
func onceOf(c *cli.Context, name string) string {
	if o, ok := c.Generic(name).(*once); ok {
		return o.text
	}
	return ""
}

// duration is the value of an option that takes a time.
type duration struct{ value time.Duration }

// durationFlag is a flag for a time such as 1m30s; without a unit it is seconds.
// It is negative if the option is not given.
func durationFlag(name, usage string) cli.Flag {
	return &cli.GenericFlag{Name: name, Usage: usage, Value: &duration{-1}, DefaultText: "none"}
}

func (d *duration) Set(text string) error {
	value, err := time.ParseDuration(text)
	if text != "" && strings.Trim(text, "0123456789.") == "" {
		value, err = time.ParseDuration(text + "s")
	}
	if err != nil || value < 0 {
		return fmt.Errorf("%q is no time, such as 10s, 1m30s or 500ms", text)
	}
	d.value = value
	return nil
}

func (d *duration) String() string { return d.value.String() }

func durationOf(c *cli.Context, name string) time.Duration { return c.Generic(name).(*duration).value }

// mode is the value of an option that takes permission bits.
type mode struct{ value fs.FileMode }

func (m *mode) Set(text string) error {
	value, err := strconv.ParseUint(text, 8, 32)
	if err != nil || value == 0 || value > 0o777 {
		return fmt.Errorf("%q is no octal file mode such as 0660", text)
	}
	m.value = fs.FileMode(value)
	return nil
}

func (m *mode) String() string { return fmt.Sprintf("%04o", m.value) }

// owner is the value of an option that takes USER[:GROUP], by name or number.
type owner struct{ uid, gid *int }

func (o *owner) Set(text string) error {
	userName, groupName, hasGroup := strings.Cut(text, ":")
	if userName == "" && groupName == "" || hasGroup && groupName == "" {
		return fmt.Errorf("%q is no USER[:GROUP]", text)
	}
	o.uid, o.gid = nil, nil
	if userName != "" {
		uid, err := lookup(userName, func(name string) (string, error) {
			u, err := user.Lookup(name)
			if err != nil {
				return "", fmt.Errorf("there is no user %q", name)
			}
			return u.Uid, nil
		})
		if err != nil {
			return err
		}
		o.uid = &uid
	}
	if hasGroup {
		gid, err := lookup(groupName, func(name string) (string, error) {
			g, err := user.LookupGroup(name)
			if err != nil {
				return "", fmt.Errorf("there is no group %q", name)
			}
			return g.Gid, nil
		})
		if err != nil {
			return err
		}
		o.gid = &gid
	}
	return nil
}

func (o *owner) String() string { return "" }

func lookup(name string, find func(string) (string, error)) (int, error) {
	if strings.Trim(name, "0123456789") != "" || name == "" {
		id, err := find(name)
		if err != nil {
			return 0, err
		}
		name = id
	}
	id, err := strconv.ParseUint(name, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("%s is no user or group number", name)
	}
	return int(id), nil
}

// queueFlags are the options of a named queue.
func queueFlags() []cli.Flag {
	return []cli.Flag{
		&cli.GenericFlag{Name: "mode", Usage: "permission `BITS` of a named queue that is made: who may write may attach", Value: &mode{}, DefaultText: "0600"},
		&cli.GenericFlag{Name: "owner", Usage: "`USER[:GROUP]` that owns a named queue that is made, and whose queue is trusted", Value: &owner{}},
	}
}

// inherited tells whether descriptor fd came from the parent process. One that
// this process has opened itself is close-on-exec, and nothing that a user could
// mean.
func inherited(fd int) bool {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil && flags&unix.FD_CLOEXEC == 0
}

// checkQueue checks what option --to or --from names, and the options that go with
// it.
func checkQueue(c *cli.Context, option string) error {
	if err := checkQueueName(c, option); err != nil {
		return err
	}
	queue := c.String(option)
	for _, made := range []string{"mode", "owner"} {
		if c.IsSet(made) && (queue == "" || strings.HasPrefix(queue, "fd:")) {
			return usageHint("a named queue is --"+option+" PATH", "option --%s: it is for a queue that is made, and this one is inherited", made)
		}
	}
	return nil
}

// checkQueueName checks the name alone.
func checkQueueName(c *cli.Context, option string) error {
	queue := c.String(option)
	if queue == "" && c.IsSet(option) {
		return usageHint("without the option the queue is stdin or stdout", "option --%s: the name is empty", option)
	}
	number, isFD := strings.CutPrefix(queue, "fd:")
	if fd, err := strconv.Atoi(number); isFD && err == nil && !inherited(fd) {
		redirection := map[string]string{"from": "<&", "to": ">&"}[option]
		return usageHint("the shell opens it: fdkit ... "+number+redirection+"...", "option --%s fd:%d: descriptor %d is not open", option, fd, fd)
	}
	return nil
}

// environFlags are the options that say what variables of a connection a program gets.
func environFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "accept-env", Usage: "let the program have variable `NAME` if it comes with the connection; a * at the end stands for anything"},
		dialectFlag("cgi, ncat, socat, systemd, tcp6, ucspi or xinetd"),
	}
}

// receiveFlags are the options of the commands that receive.
func receiveFlags() []cli.Flag {
	return slices.Concat([]cli.Flag{
		&cli.StringFlag{Name: "from", Usage: "receive from `QUEUE` instead of stdin"},
		protoFlag("receive in dialect `NAME`", false),
		durationFlag("wait", "wait at most `TIME` for somebody else to make the queue"),
	}, environFlags(), queueFlags())
}

// queueOptions has the fields that fdsend.Options and fdrecv.Options share.
type queueOptions struct {
	Wait     time.Duration
	Mode     fs.FileMode
	UID, GID *int
	Notice   func(text string)
	Keeping  func(text string)
	Stop     <-chan struct{}
}

func queueOptionsOf(c *cli.Context, log logger) queueOptions {
	o := c.Generic("owner").(*owner)
	return queueOptions{
		Mode: c.Generic("mode").(*mode).value,
		UID:  o.uid, GID: o.gid,
		Notice:  func(text string) { log.notice("%s", text) },
		Keeping: func(text string) { log.notice("%s", text) },
	}
}
