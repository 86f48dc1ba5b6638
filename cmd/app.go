//go:build linux

// Package cmd is the command line of fdkit: one file for each command.
package cmd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"fdkit/internal/hint"
	_ "fdkit/internal/stack"
)

// New returns the application, with all its commands or, if args are those of a process
// that asks for one, with that one alone.
func New(version string, args ...string) *cli.App {
	return &cli.App{
		Name:            "fdkit",
		Usage:           "pass file descriptors between programs",
		UsageText:       "fdkit COMMAND [OPTION...] [OPERAND...]",
		Version:         version,
		Commands:        commandsFor(args),
		HideHelpCommand: true,
		// Nothing shows it, and without it each start would look at the program's file.
		Compiled: time.Unix(0, 0),
		// A slice flag's value may have commas in it.
		DisableSliceFlagSeparator: true,
		// Only main ends the process.
		ExitErrHandler: func(*cli.Context, error) {},
		OnUsageError: func(_ *cli.Context, err error, _ bool) error {
			return optionError(err, logger{name: "fdkit", level: levelErrors})
		},
		Action: func(c *cli.Context) error {
			const see = "fdkit --help lists the commands"
			if c.NArg() == 0 {
				return usageHint(see, "a command is missing")
			}
			return usageHint(see, "there is no command %q", c.Args().First())
		},
	}
}

// commandsFor makes the command that args ask for, or all if that is none: all of them with
// their options would take longer than what some have to do.
func commandsFor(args []string) (made []*cli.Command) {
	all := []struct {
		name string
		make func() *cli.Command
	}{
		{"listen", listenCommand},
		{"bind", bindCommand},
		{"connect", connectCommand},
		{"drain", drainCommand},
		{"send", sendCommand},
		{"recv", recvCommand},
		{recvExec, recvExecCommand},
		{"pool", poolCommand},
		{"serve", serveCommand},
		{"merge", mergeCommand},
		{"grab", grabCommand},
		{"inspect", inspectCommand},
		{"who", whoCommand},
		{"queue", queueCommand},
		{"torture", tortureCommand},
		{"doctor", doctorCommand},
		{"tap", tapCommand},
		{"route", routeCommand},
		{"completion", completionCommand},
	}
	for _, c := range all {
		if len(args) > 1 && args[1] == c.name {
			return []*cli.Command{leaf(c.make())}
		}
	}
	for _, c := range all {
		made = append(made, leaf(c.make()))
	}
	return made
}

// leaf adds what all commands have in common.
func leaf(c *cli.Command) *cli.Command {
	// Without it, fdkit recv-exec help would not run a program named help.
	c.HideHelpCommand = true
	c.OnUsageError = func(_ *cli.Context, err error, _ bool) error { return optionError(err, usageLogger(c)) }
	action := c.Action
	c.Action = func(ctx *cli.Context) error {
		if c.Name != recvExec { // which often needs none
			startTimers()
		}
		if err := checkVerbosity(ctx); err != nil {
			return commandError{err, usageLogger(c)}
		}
		if err := action(ctx); err != nil {
			return commandError{err, loggerOf(ctx)}
		}
		return nil
	}
	return c
}

// startTimers starts a timer. The first one makes the Go runtime open three descriptors, and
// it dies if it cannot: so while there are some.
func startTimers() { time.AfterFunc(time.Hour, func() {}).Stop() }

// commandError is the error of a command, with the logger that is to say it.
type commandError struct {
	error
	log logger
}

func (e commandError) Unwrap() error { return e.error }

// Run runs the application, says its error and returns its exit status.
func Run(app *cli.App, args []string) int {
	cli.VersionFlag = &cli.BoolFlag{Name: "version", Usage: "print the version", DisableDefaultText: true}
	app.Writer, app.ErrWriter = os.Stdout, io.Discard
	err := app.Run(args)
	if err == nil {
		return exitDone
	}
	say := commandError{err, logger{name: "fdkit", level: levelErrors}}
	errors.As(err, &say)
	var silent quiet
	if !errors.As(err, &silent) {
		say.log.error(say.error)
	}
	return exitStatus(err)
}

const (
	unknown = "flag provided but not defined: -"
	noValue = "flag needs an argument: -"
)

// As all regular expressions here, it is compiled when it is needed, not at each start.
var wrongValue = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?s)^invalid (?:boolean )?value "(.*)" for (?:flag )?-([^:]+): (.*)$`)
})

// hintedValue returns an error for the value of an option whose hint gets through package
// flag, which keeps the text of an error and nothing else. No argument has a NUL byte.
func hintedValue(err error) error {
	if cure := hint.Of(err); cure != "" {
		return errors.New(err.Error() + "\x00" + cure)
	}
	return err
}

// optionError puts an error of package flag into our words.
func optionError(err error, log logger) error {
	text := err.Error()
	see := log.name + " --help lists the options"
	if m := wrongValue().FindStringSubmatch(text); m != nil && m[3] == "parse error" {
		err = usagef("option %s takes no value", dashed(m[2])) // only switches have no parser of ours
	} else if m != nil {
		wrong, cure, hinted := strings.Cut(m[3], "\x00")
		if err = usagef("option %s: %s", dashed(m[2]), wrong); hinted {
			err = usageHint(cure, "%w", err)
		}
	} else if option, ok := strings.CutPrefix(text, unknown); ok {
		if len(option) > 1 && strings.Contains("nvQq1", option[:1]) {
			see = "options of one letter cannot be joined, and a value is a word of its own: -n 40 -v"
		}
		err = usageHint(see, "there is no option %s", dashed(option))
	} else if option, ok := strings.CutPrefix(text, noValue); ok {
		err = usagef("option %s needs a value", dashed(option))
	} else {
		err = usageHint(see, "%w", err)
	}
	return commandError{err, log}
}

func dashed(option string) string {
	if len(option) == 1 {
		return "-" + option
	}
	return "--" + option
}

// refuseOptions returns a usage error if an operand looks like an option, which
// has no effect where it stands.
func refuseOptions(operands []string, what string) error {
	for _, operand := range operands {
		if len(operand) > 1 && operand[0] == '-' {
			return usageHint(fmt.Sprintf("options come before the %s", what), "option %s stands after the %s", operand, what)
		}
	}
	return nil
}
