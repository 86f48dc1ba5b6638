//go:build linux

package cmd

import (
	"time"

	"github.com/urfave/cli/v2"

	"fdkit/listen"
)

// busyAfter is how long there must be no room before clients are told so, unless
// --busy-after says otherwise: a burst of connections does not fill a service.
const busyAfter = 100 * time.Millisecond

// busyFlags are the options for those who prefer an answer to waiting.
func busyFlags() []cli.Flag {
	return []cli.Flag{
		&cli.GenericFlag{Name: "busy-message", Usage: "answer clients for whom there is no room with `TEXT` instead of letting them wait", Value: new(message), DefaultText: "none"},
		&cli.GenericFlag{Name: "busy-after", Usage: "with --busy-message: when there has been no room for `TIME`", Value: &duration{busyAfter}, DefaultText: busyAfter.String()},
	}
}

// busyOf returns what the options ask for, or nil.
func busyOf(c *cli.Context) (*listen.Busy, error) {
	if !c.IsSet("busy-message") {
		if c.IsSet("busy-after") {
			return nil, usagef("option --busy-after goes with --busy-message")
		}
		return nil, nil
	}
	return &listen.Busy{Message: c.Generic("busy-message").(*message).text, After: durationOf(c, "busy-after")}, nil
}
