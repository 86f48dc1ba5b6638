//go:build linux

package cmd

import (
	"strings"
	"text/template"
)

var fishCompletion = completionTemplate("fish", `# Completion of <<.Name>> for fish, printed by: <<.Name>> completion fish

# __fdkit_state prints the command before the cursor, "options" if options may
# follow there or "operands", and the operands so far, one a line.
function __fdkit_state
    set -l words (commandline -opc)
    set -e words[1]
    set -q words[1]
    or return
    set -l command $words[1]
    set -e words[1]
    set -l valued
    switch $command
<<- range .Commands>><<if .ValuedNames>>
        case <<.Name>>
            set valued <<.ValuedNames>>
<<- end>><<end>>
    end
    set -l where options
    while set -q words[1]
        switch $words[1]
            case --
                set where operands
                set -e words[1]
                break
            case '-?*=*'
            case '-?*'
                if contains -- (string replace -r '^--?' '' -- $words[1]) $valued
                    set -e words[1]
                end
            case '*'
                set where operands
                break
        end
        set -e words[1]
    end
    printf '%s\n' $command $where $words
end

# __fdkit_at COMMAND: the cursor is where COMMAND's options may stand.
function __fdkit_at
    set -l state (__fdkit_state)
    test "$state[1]" = $argv[1] -a "$state[2]" = options
end

# __fdkit_operand COMMAND [FIRST]: it is where an operand may stand, or the first one.
function __fdkit_operand
    set -l state (__fdkit_state)
    test "$state[1]" = $argv[1]
    and begin
        not set -q argv[2]
        or test (count $state) -eq 2
    end
end

# __fdkit_program [COUNT] completes a program and its arguments, after so many other
# words.
function __fdkit_program
    set -l state (__fdkit_state)
    set -q argv[1]
    or set argv 2
    set -e state[1..$argv[1]]
    set -l words (string escape -- $state) (commandline -ct)
    complete -C "$words"
end

# __fdkit_addresses COMMAND prints how many operands of COMMAND are addresses, which
# have a colon before any slash, and how many operands there are.
function __fdkit_addresses
    set -l state (__fdkit_state)
    test "$state[1]" = $argv[1]
    or return
    set -e state[1..2]
    set -l count 0
    for word in $state
        string match -qr '^[^/]*:' -- $word
        or break
        set count (math $count + 1)
    end
    printf '%s\n' $count (count $state)
end

# __fdkit_address COMMAND: it is where a further address may stand.
function __fdkit_address
    set -l counts (__fdkit_addresses $argv[1])
    and set -q counts[1]
    and test $counts[1] -eq $counts[2]
end

# __fdkit_addressed COMMAND: an address is there, and so a program may follow.
function __fdkit_addressed
    set -l counts (__fdkit_addresses $argv[1])
    and set -q counts[1]
    and test $counts[1] -gt 0
end

# __fdkit_after_addresses COMMAND completes the program that follows addresses.
function __fdkit_after_addresses
    set -l counts (__fdkit_addresses $argv[1])
    set -l skip (math $counts[1] + 2)
    set -l state (__fdkit_state)
    test "$state[$(math $skip + 1)]" = --
    and set skip (math $skip + 1)
    __fdkit_program $skip
end

function __fdkit_user
    set -l user (string match -r '^.*:' -- (commandline -ct | string replace -r '^--?owner=' ''))
    if set -q user[1]
        printf '%s\n' $user(__fish_complete_groups)
    else
        __fish_complete_users
    end
end

complete -c <<.Name>> -f
complete -c <<.Name>> -n __fish_is_first_token -s h -l help -d <<"show help" | fish>>
complete -c <<.Name>> -n __fish_is_first_token -l version -d <<"print the version" | fish>>
<<- range .Commands>>
complete -c <<$.Name>> -n __fish_is_first_token -a <<.Name>> -d <<.Usage | fish>>
<<- end>>
<<- range $command := .Commands>>
<<range .Options>>
complete -c <<$.Name>> -n '__fdkit_at <<$command.Name>>'
<<- range .Names>><<if eq (len .) 1>> -s <<else>> -l <<end>><<.>><<end>> -d <<.Usage | fish>>
<<- if or (eq .Kind "queue") (eq .Kind "address")>> -r -F -a '<<starts .Kind>>'
<<- else if eq .Kind "file">> -r -F
<<- else if eq .Kind "user">> -x -a '(__fdkit_user)'
<<- else if eq .Kind "pid">> -x -a '(__fish_complete_pids)'
<<- else if eq .Kind "none">> -x
<<- else if .Kind>> -x -a '<<.Kind>>'<<end>>
<<- end>>
<<- if eq .Operands "program">>
complete -c <<$.Name>> -n '__fdkit_operand <<.Name>>' -a '(__fdkit_program)'
<<- else if eq .Operands "address program">>
complete -c <<$.Name>> -n '__fdkit_operand <<.Name>> first' -a '<<starts "address">>'
complete -c <<$.Name>> -n '__fdkit_operand <<.Name>> first; and string match -q "unix:*" -- (commandline -ct)' -F
complete -c <<$.Name>> -n '__fdkit_operand <<.Name>>; and not __fdkit_operand <<.Name>> first' -a '(__fdkit_program 3)'
<<- else if eq .Operands "addresses program">>
complete -c <<$.Name>> -n '__fdkit_address <<.Name>>' -a '<<starts "address">>'
complete -c <<$.Name>> -n '__fdkit_address <<.Name>>; and string match -q "unix:*" -- (commandline -ct)' -F
complete -c <<$.Name>> -n '__fdkit_addressed <<.Name>>' -a '(__fdkit_after_addresses <<.Name>>)'
<<- else if eq .Operands "address">>
complete -c <<$.Name>> -n '__fdkit_operand <<.Name>>' -a '<<starts "address">>'
complete -c <<$.Name>> -n '__fdkit_operand <<.Name>>; and string match -q "unix:*" -- (commandline -ct)' -F
<<- else if eq .Operands "pid">>
complete -c <<$.Name>> -n '__fdkit_operand <<.Name>>' -a '(__fish_complete_pids)'
<<- else if eq .Operands "descriptor">>
complete -c <<$.Name>> -n '__fdkit_operand <<.Name>>' -a '<<starts "descriptor">>'
complete -c <<$.Name>> -n '__fdkit_operand <<.Name>>; and string match -qr "^(r|w|a|rw):" -- (commandline -ct)' -F
<<- else if eq .Operands "word">>
complete -c <<$.Name>> -n '__fdkit_operand <<.Name>> first' -a '<<join .Words " ">>'
<<- else>>
complete -c <<$.Name>> -n '__fdkit_operand <<.Name>>' -F
<<- end>>
<<- end>>
`, template.FuncMap{"fish": fishQuote})

func fishQuote(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(text) + "'"
}
