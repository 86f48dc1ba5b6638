//go:build linux

package cmd

import (
	"fmt"
	"strconv"
	"strings"
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
		&cli.GenericFlag{Name: "busy-after", Usage: "when there has been no room for `TIME`", Value: &duration{busyAfter}, DefaultText: busyAfter.String()},
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

// message is the value of an option that takes a text to be sent to a client.
type message struct{ text string }

// maxMessage is the most that is sure to fit into an empty send buffer.
const maxMessage = 2048

func (m *message) Set(text string) error {
	unquoted, err := strconv.Unquote(`"` + strings.ReplaceAll(text, `"`, `\"`) + `"`)
	if err != nil {
		return fmt.Errorf(`"%s" has a backslash in it that is no \r, \n, \t, \\ or \xHH`, text)
	}
	if unquoted == "" || len(unquoted) > maxMessage {
		return fmt.Errorf("a message has 1 to %d bytes, this one %d", maxMessage, len(unquoted))
	}
	m.text = unquoted
	return nil
}

func (m *message) String() string { return "" }
