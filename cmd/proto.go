//go:build linux

package cmd

import (
	"fmt"

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
