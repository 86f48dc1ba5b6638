//go:build linux

package cmd

import (
	"strings"
	"text/template"
)

var zshCompletion = completionTemplate("zsh", `#compdef <<.Name>>
# Completion of <<.Name>> for zsh, printed by: <<.Name>> completion zsh

_fdkit_address() {
    local expl
    if compset -P 'unix*:'; then
        _files
    else
        _wanted addresses expl address compadd -S '' - <<starts "address">>
    fi
}

# _fdkit_addresses completes what follows the first address: others, which have a
# colon before any slash, and a program.
_fdkit_addresses() {
    while ((CURRENT > 1)) && [[ ${words[1]%%/*} == *:* ]]; do
        shift words
        ((CURRENT--))
    done
    if ((CURRENT > 1)) && [[ $words[1] == -- ]]; then
        shift words
        ((CURRENT--))
        _normal
    elif ((CURRENT > 1)); then
        _normal
    else
        _alternative 'addresses:address:_fdkit_address' 'programs:program:_command_names -e'
    fi
}

_fdkit_descriptor() {
    local expl
    if compset -P '(r|w|a|rw):'; then
        _files
    else
        _wanted descriptors expl descriptor compadd -S '' - <<starts "descriptor">>
    fi
}

_fdkit_queue() {
    if compset -P 'unix*:'; then
        _files
    else
        _alternative 'files:queue:_files' 'kinds:kind of queue:compadd -S "" - <<starts "queue">>'
    fi
}

_fdkit_pid() {
    local expl
    local -a pids
    pids=(/proc/<->(N:t))
    _wanted processes expl process compadd -a pids
}

_fdkit_user() {
    if compset -P '*:'; then
        _groups
    else
        _users
    fi
}

_fdkit() {
    local curcontext=$curcontext state line ret=1
    local -a subcommands
    typeset -A opt_args
    # -A '-*': options end at the first operand.
    _arguments -C -A '-*' \
<<- range .Options>>
        <<spec .>> \
<<- end>>
        '1: :->command' \
        '*:: :->rest' && ret=0
    case $state in
    command)
        subcommands=(
<<- range .Commands>>
            <<describe .>>
<<- end>>
        )
        _describe -t commands command subcommands && ret=0
        ;;
    rest)
        curcontext=${curcontext%:*:*}:fdkit-$words[1]:
        case $words[1] in
<<- range .Commands>>
        <<.Name>>)
            _arguments -S -A '-*' \
<<- range .Options>>
                <<spec .>> \
<<- end>>
<<- if eq .Operands "program">>
                '(-)1:program: _command_names -e' \
                '*::argument: _normal' && ret=0
<<- else if eq .Operands "address program">>
                '(-)1:address:_fdkit_address' \
                '*:::program: _normal' && ret=0
<<- else if eq .Operands "addresses program">>
                '(-)1:address:_fdkit_address' \
                '*:::program:_fdkit_addresses' && ret=0
<<- else if eq .Operands "address">>
                '*:address:_fdkit_address' && ret=0
<<- else if eq .Operands "pid">>
                '*:process:_fdkit_pid' && ret=0
<<- else if eq .Operands "descriptor">>
                '*:descriptor:_fdkit_descriptor' && ret=0
<<- else if eq .Operands "word">>
                '1:word:(<<join .Words " ">>)' && ret=0
<<- else>>
                '*:file:_files' && ret=0
<<- end>>
            ;;
<<- end>>
        esac
        ;;
    esac
    return ret
}

# The file is autoloaded as the function itself, or sourced.
if [[ $funcstack[1] == _fdkit ]]; then
    _fdkit "$@"
else
    compdef _fdkit <<.Name>>
fi
`, template.FuncMap{
	"spec": func(o completedOption) string {
		var specs []string
		for i, name := range o.Dashed() {
			var before, value string
			switch {
			case o.Names[0] == "help" || o.Names[0] == "version":
				before = "(- *)"
			case o.Repeats:
				before = "*"
			case len(o.Names) > 1:
				before = "(" + strings.Join(o.Dashed(), " ") + ")"
			}
			if o.Value != "" {
				action := map[string]string{"queue": "_fdkit_queue", "address": "_fdkit_address", "user": "_fdkit_user", "pid": "_fdkit_pid", "file": "_files", "none": " "}[o.Kind]
				if action == "" {
					action = "(" + o.Kind + ")"
				}
				value = ":" + zshEscape.Replace(o.Value) + ":" + action
				if len(o.Names[i]) > 1 {
					name += "="
				}
			}
			specs = append(specs, zshQuote(before+name+"["+zshEscape.Replace(o.Usage)+"]"+value))
		}
		return strings.Join(specs, " ")
	},
	"describe": func(c completion) string { return zshQuote(c.Name + ":" + c.Usage) },
})

var zshEscape = strings.NewReplacer(`\`, `\\`, "[", `\[`, "]", `\]`, ":", `\:`)

func zshQuote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
