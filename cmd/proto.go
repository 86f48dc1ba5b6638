//go:build linux

package cmd

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"fdkit/internal/proto"
)

// wireDialect is the value of an option that takes a dialect of fdkit-dialects(7).
type wireDialect struct {
	sends bool
	*proto.Dialect
}

// protoFlag is the option of a command that sends, or receives, in dialects.
func protoFlag(usage string, sends bool) cli.Flag {
	return &cli.GenericFlag{Name: "proto", Usage: usage, Value: &wireDialect{sends: sends}, DefaultText: "none"}
}

func (w *wireDialect) Set(text string) error {
	d, err := proto.Find(text)
	switch {
	case err != nil:
		return err
	case w.Dialect != nil:
		return fmt.Errorf("it is given twice, as %q and %q", w.Dialect.Name, text)
	case w.sends && d.Send == nil:
		return fmt.Errorf("nothing is sent in dialect %s", text)
	case !w.sends && d.Receive == nil:
		return fmt.Errorf("nothing is received in dialect %s; fdkit tap --decode %[1]s explains it", text)
	}
	w.Dialect = d
	return nil
}

func (w *wireDialect) String() string { return "" }

// protoOf returns the dialect, nil if none is given.
func protoOf(c *cli.Context) *proto.Dialect { return c.Generic("proto").(*wireDialect).Dialect }

// checkProto checks that the dialect can be spoken at the queue that option --to or
// --from names, as far as the name tells. What an inherited descriptor is turns out when
// it is opened.
func checkProto(c *cli.Context, option string) error {
	d, queue := protoOf(c), c.String(option)
	kind, _, prefixed := strings.Cut(queue, ":")
	if d == nil || queue == "" || prefixed && kind == "fd" {
		return nil
	}
	if err := proto.Fits(d, prefixed && strings.HasPrefix(kind, "unix")); err != nil {
		return usagef("option --proto: %w", err)
	}
	return nil
}

// protoNames returns the names of all dialects in which a command sends, or receives.
func protoNames(sends bool) (names []string) {
	for _, d := range proto.All() {
		if sends && d.Send != nil || !sends && d.Receive != nil {
			names = append(names, d.Name)
		}
	}
	return names
}

// dialectError names the dialect in an error of speaking it.
func dialectError(d *proto.Dialect, err error) error {
	if strings.HasPrefix(err.Error(), "dialect "+d.Name) { // proto.Fits has
		return err
	}
	return fmt.Errorf("dialect %s: %w", d.Name, err)
}
