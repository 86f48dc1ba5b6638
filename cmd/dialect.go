//go:build linux

package cmd

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"fdkit/exec"
)

// dialectFlag is the option of a command that runs a program for a connection and
// takes the dialects in names.
func dialectFlag(names string) cli.Flag {
	return &cli.GenericFlag{
		Name:  "dialect",
		Usage: "also describe the connection as `NAME[,NAME...]` does: " + names,
		Value: &dialects{},
	}
}

// dialects is the value of --dialect, which may be given several times.
type dialects struct{ list []*exec.Dialect }

func (d *dialects) Set(text string) error {
	for name := range strings.SplitSeq(text, ",") {
		dialect, err := exec.FindDialect(name)
		if err != nil {
			return err
		}
		d.list = append(d.list, dialect)
	}
	return nil
}

func (d *dialects) String() string { return "" }

func dialectsOf(c *cli.Context) []*exec.Dialect { return c.Generic("dialect").(*dialects).list }

// inDialects tells whether the variable comes from one of the dialects.
func inDialects(list []*exec.Dialect, name string) bool {
	return slices.ContainsFunc(list, func(d *exec.Dialect) bool { return d.Has(name) })
}

// checkClientDialects refuses dialects in which nobody describes a client's
// connection. In connect the local address is the client's, and SERVER_ADDR,
// say, would be wrong.
func checkClientDialects(list []*exec.Dialect) error {
	for _, d := range list {
		if d.Clients {
			continue
		}
		var have []string
		for _, other := range exec.Dialects() {
			if other.Clients {
				have = append(have, other.Name)
			}
		}
		return usageHint("those of clients are "+strings.Join(have, ", "),
			"option --dialect: %s describes connections to servers, and the program is a client", d.Name)
	}
	return nil
}
