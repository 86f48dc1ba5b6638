//go:build linux

package cmd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"text/template"

	"github.com/urfave/cli/v2"
)

func completionCommand() *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print the script by which a shell completes command lines",
		UsageText: "fdkit completion bash|zsh|fish",
		Description: "bash: fdkit completion bash >~/.local/share/bash-completion/completions/fdkit\n" +
			"zsh:  fdkit completion zsh >DIR/_fdkit, where DIR is in $fpath\n" +
			"fish: fdkit completion fish >~/.config/fish/completions/fdkit.fish",
		Action: runCompletion,
	}
}

func runCompletion(c *cli.Context) error {
	const see = "the shells are bash, zsh and fish"
	shells := map[string]func() *template.Template{"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion}
	operands := c.Args().Slice()
	if len(operands) == 0 {
		return usageHint(see, "a shell is missing")
	}
	if err := refuseOptions(operands, "shell"); err != nil {
		return err
	}
	script, known := shells[operands[0]]
	if !known {
		return usageHint(see, "there is no completion for %q", operands[0])
	}
	if len(operands) > 1 {
		return usagef("one shell at a time: %q is one too many", operands[1])
	}
	var text strings.Builder
	if err := script().Execute(&text, completionTree(New(c.App.Version))); err != nil {
		return err
	}
	_, err := fmt.Fprint(c.App.Writer, text.String())
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		err = os.NewSyscallError(path.Op, path.Err)
	}
	if err != nil {
		return fmt.Errorf("cannot write to stdout: %w", err)
	}
	return nil
}

// completion is what the scripts know of fdkit, or of one of its commands.
type completion struct {
	Name, Usage string
	Options     []completedOption
	Operands    string   // "program", "address", "address program", "addresses program", "descriptor", "pid", "word" or "", which is a file
	Words       []string // the operands, if they are words
	Commands    []completion
}

type completedOption struct {
	Names   []string // without dashes
	Usage   string
	Value   string // what the help calls the value, "" if the option takes none
	Kind    string // of value: "file", "queue", "address", "user", "pid", "none", for which nothing can be offered, or the words that it can be
	Repeats bool
}

var helpOption = completedOption{Names: []string{"help", "h"}, Usage: "show help"}

// The beginnings of what listen.ParseAddress, internal/queue and parseSource take.
var completionStarts = map[string][]string{
	"address":    {"unix:", "tcp:", "tcp4:", "tcp6:", "fd:", "systemd:"},
	"queue":      {"unix:", "unix-listen:", "unix-seqpacket:", "unix-seqpacket-listen:", "unix-dgram:", "fd:"},
	"descriptor": {"r:", "w:", "a:", "rw:", "stdin", "stdout", "stderr"},
}

func completionTree(app *cli.App) completion {
	tree := completion{
		Name: app.Name, Usage: app.Usage,
		Options: []completedOption{helpOption, {Names: []string{"version"}, Usage: "print the version"}},
	}
	for _, c := range app.VisibleCommands() {
		command := completion{Name: c.Name, Usage: c.Usage}
		command.Operands, command.Words = completedOperands(c.UsageText)
		for _, f := range c.Flags {
			// The help option is in Flags once the command has run, not before.
			if visible, ok := f.(cli.VisibleFlag); ok && visible.IsVisible() && !slices.Contains(f.Names(), "help") {
				command.Options = append(command.Options, completeOption(f))
			}
		}
		command.Options = append(command.Options, helpOption)
		tree.Commands = append(tree.Commands, command)
	}
	return tree
}

// completedOperands tells from a command's usage what its operands are.
func completedOperands(usageText string) (kind string, words []string) {
	fields := strings.Fields(usageText)
	switch last := fields[len(fields)-1]; {
	case slices.Contains(fields, "ADDRESS...") && slices.Contains(fields, "PROGRAM"):
		return "addresses program", nil
	case slices.Contains(fields, "[PROGRAM") && slices.Contains(fields, "ADDRESS"):
		return "address program", nil
	case slices.Contains(fields, "PROGRAM"), slices.Contains(fields, "[PROGRAM"):
		return "program", nil
	case strings.HasPrefix(last, "ADDRESS"):
		return "address", nil
	case strings.Contains(last, "PID"):
		return "pid", nil
	case strings.HasPrefix(last, "DESCRIPTOR"):
		return "descriptor", nil
	case strings.Contains(last, "|") && strings.ToLower(last) == last:
		return "word", strings.Split(last, "|")
	}
	return "", nil
}

func completeOption(f cli.Flag) completedOption {
	o := completedOption{Names: f.Names()}
	documented, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return o
	}
	o.Usage = strings.ReplaceAll(documented.GetUsage(), "`", "")
	if !documented.TakesValue() {
		return o
	}
	o.Value = "VALUE"
	if parts := strings.SplitN(documented.GetUsage(), "`", 3); len(parts) == 3 {
		o.Value = parts[1]
	}
	switch strings.TrimRight(o.Value, ".,[]") {
	case "QUEUE":
		o.Kind = "queue"
	case "USER", "USER[:GROUP":
		o.Kind = "user"
	case "ADDRESS":
		o.Kind = "address"
	case "PID":
		o.Kind = "pid"
	case "FORMAT":
		o.Kind = logFormats
	case "N", "N[,N", "SLOTS", "TIME", "BITS", "BYTES", "NAME", "NAME[,NAME", "LEVEL:NAME:VALUE", "LOCAL", "WHO", "RATE", "V4[,V6", "ACTION", "CLIENT", "N[/V4[,V6", "TEXT", "DIGITS", "NAME=VALUE":
		o.Kind = "none"
	default:
		o.Kind = "file"
	}
	if g, ok := f.(*cli.GenericFlag); ok {
		if dialect, ok := g.Value.(*wireDialect); ok {
			o.Kind = strings.Join(protoNames(dialect.sends), " ")
		}
	}
	if slice, ok := f.(cli.DocGenerationSliceFlag); ok {
		o.Repeats = slice.IsSliceFlag()
	}
	return o
}

// Kinds returns all kinds of values.
func (c completion) Kinds() []string {
	kinds := []string{"queue", "address", "file", "user", "pid", "none", logFormats, strings.Join(protoNames(true), " ")}
	if receive := strings.Join(protoNames(false), " "); !slices.Contains(kinds, receive) {
		kinds = append(kinds, receive)
	}
	return kinds
}

// Dashed returns the option's names as they are written.
func (o completedOption) Dashed() []string {
	var all []string
	for _, name := range o.Names {
		all = append(all, dashed(name))
	}
	return all
}

// Valued returns "COMMAND OPTION" for each option whose value is of the kind.
func (c completion) Valued(kind string) []string {
	var all []string
	for _, command := range c.Commands {
		for _, o := range command.Options {
			for _, name := range o.Names {
				if o.Value != "" && o.Kind == kind {
					all = append(all, command.Name+" "+name)
				}
			}
		}
	}
	return all
}

// OptionWords returns all options as they are written.
func (c completion) OptionWords() string {
	var all []string
	for _, o := range c.Options {
		all = append(all, o.Dashed()...)
	}
	return strings.Join(all, " ")
}

// ValuedNames returns the names, without dashes, of the options that take a value.
func (c completion) ValuedNames() string {
	var all []string
	for _, o := range c.Options {
		if o.Value != "" {
			all = append(all, o.Names...)
		}
	}
	return strings.Join(all, " ")
}

func (c completion) CommandNames() string {
	var all []string
	for _, command := range c.Commands {
		all = append(all, command.Name)
	}
	return strings.Join(all, " ")
}

// completionTemplate returns what parses a script, in which [[ and ]] of shells are
// frequent and << and >> are not. It is not parsed at each start of fdkit.
func completionTemplate(name, text string, more template.FuncMap) func() *template.Template {
	return sync.OnceValue(func() *template.Template {
		funcs := template.FuncMap{
			"join":   strings.Join,
			"starts": func(kind string) string { return strings.Join(completionStarts[kind], " ") },
		}
		return template.Must(template.New(name).Delims("<<", ">>").Funcs(funcs).Funcs(more).Parse(text))
	})
}
