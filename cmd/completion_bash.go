//go:build linux

package cmd

var bashCompletion = completionTemplate("bash", `# Completion of <<.Name>> for bash, printed by: <<.Name>> completion bash
# shellcheck shell=bash

# _fdkit_words sets words to the words up to the cursor, and at to their places in
# COMP_WORDS, which has them cut at : and = as well. piece is the part of the last
# word that readline replaces.
_fdkit_words() {
    local line=${COMP_LINE:0:${COMP_POINT:-${#COMP_LINE}}} i blank
    words=() at=()
    for ((i = 0; i <= COMP_CWORD; i++)); do
        blank=${line%%[![:blank:]]*}
        line=${line#"$blank"}
        if [[ $i == 0 || $blank ]]; then
            words+=("") at+=("$i")
        fi
        piece=${COMP_WORDS[i]}
        ((i < COMP_CWORD)) || piece=$line
        words[-1]+=$piece
        line=${line#"$piece"}
    done
    case $piece in
    *[!:=]*) ;;
    *) piece='' ;;
    esac
}

# _fdkit_kind sets kind to the kind of value that option $2 of command $1 takes, ''
# if it takes none.
_fdkit_kind() {
    local name=${2%%=*}
    name=${name#-}
    case "$1 ${name#-}" in
<<- range $kind := .Kinds>><<with $.Valued $kind>>
    '<<join . "' | '">>') kind='<<$kind>>' ;;
<<- end>><<end>>
    *) kind='' ;;
    esac
}

# _fdkit_reply sets COMPREPLY to the completions of $2, which is of the kind $1.
_fdkit_reply() {
    local starts='' files=''
    case $1 in
    queue) starts='<<starts "queue">>' files=yes ;;
    address) starts='<<starts "address">>' ;;
    descriptor) starts='<<starts "descriptor">>' ;;
    file) files=yes ;;
    user) mapfile -t COMPREPLY < <(compgen -u -- "$2") ;;
    none) ;;
    pid) mapfile -t COMPREPLY < <(compgen -W "$(cd /proc && echo [0-9]*)" -- "$2") ;;
    *) mapfile -t COMPREPLY < <(compgen -W "$1" -- "$2") ;;
    esac
    case $1:$2 in
    user:*:*) mapfile -t COMPREPLY < <(compgen -P "${2%%:*}:" -g -- "${2#*:}") ;;
    queue:unix*:* | address:unix*:* | descriptor:[rwa]:* | descriptor:rw:*)
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -P "${2%%:*}:" -f -- "${2#*:}")
        return
        ;;
    esac
    if [[ $starts ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$starts" -- "$2")
    fi
    if ((${#COMPREPLY[@]})) && [[ $starts ]]; then
        compopt -o nospace 2>/dev/null
    elif [[ $files ]]; then
        compopt -o filenames 2>/dev/null # would quote the : of starts
    fi
    if [[ $files ]]; then
        mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -f -- "$2")
    fi
}

# _fdkit_program completes a program and its arguments, from words[$1] on.
_fdkit_program() {
    local offset
    for offset in _comp_command_offset _command_offset; do # of bash-completion
        if declare -F "$offset" >/dev/null; then
            "$offset" "${at[$1]}"
            return
        fi
    done
    compopt -o filenames 2>/dev/null
    if (($1 == ${#words[@]} - 1)); then
        mapfile -t COMPREPLY < <(compgen -c -- "${words[-1]}" | sort -u)
    else
        mapfile -t COMPREPLY < <(compgen -f -- "${words[-1]}")
    fi
}

# _fdkit_addresses completes addresses and the program that follows them, from
# words[$1] on. What has a colon before any slash is an address.
_fdkit_addresses() {
    local i=$1 cur=${words[-1]} n=$((${#words[@]} - 1))
    while ((i < n)) && [[ ${words[i]%%/*} == *:* ]]; do
        ((i++))
    done
    if ((i == n)) && [[ $i == "$1" || ${cur%%/*} == *:* ]]; then
        _fdkit_reply address "$cur"
        COMPREPLY=("${COMPREPLY[@]#"${cur%"$piece"}"}")
        return
    fi
    if ((i < n)) && [[ ${words[i]} == -- ]]; then
        _fdkit_program $((i + 1))
        return
    fi
    _fdkit_program "$i"
    if ((i == n)); then
        mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -W '<<starts "address">>' -- "$cur")
    fi
}

_fdkit() {
    local words at piece kind cur command options operands i n ended=''
    _fdkit_words
    COMPREPLY=()
    n=$((${#words[@]} - 1)) cur=${words[-1]} command=${words[1]}
    if ((n == 1)); then
        case $cur in
        -*) _fdkit_reply '<<.OptionWords>>' "$cur" ;;
        *) _fdkit_reply '<<.CommandNames>>' "$cur" ;;
        esac
        return
    fi
    case $command in
<<- range .Commands>>
    <<.Name>>)
        options='<<.OptionWords>>'
        operands='<<if eq .Operands "word">><<join .Words " ">><<else if .Operands>><<.Operands>><<else>>file<<end>>'
        ;;
<<- end>>
    *) return ;;
    esac
    # Options end at the first operand.
    for ((i = 2; i < n; i++)); do
        case ${words[i]} in
        --)
            ended=yes
            ((i++))
            break
            ;;
        -?*=*) ;;
        -?*)
            _fdkit_kind "$command" "${words[i]}"
            [[ ! $kind ]] || ((i++))
            ;;
        *) break ;;
        esac
    done
    if ((i > n)); then
        _fdkit_reply "$kind" "$cur"
    elif ((i == n)) && [[ ! $ended && $cur == -?*=* ]]; then
        _fdkit_kind "$command" "$cur"
        [[ ! $kind ]] || _fdkit_reply "$kind" "${cur#*=}"
        COMPREPLY=("${COMPREPLY[@]/#/${cur%%=*}=}")
    elif ((i == n)) && [[ ! $ended && $cur == -* ]]; then
        _fdkit_reply "$options" "$cur"
    elif [[ $operands == program ]]; then
        _fdkit_program "$i"
        return
    elif [[ $operands == 'address program' ]] && ((i < n)); then
        _fdkit_program $((i + 1))
        return
    elif [[ $operands == 'addresses program' ]]; then
        _fdkit_addresses "$i"
        return
    elif [[ $operands == address || $operands == descriptor || $operands == file || $operands == pid ]] || ((i == n)); then
        _fdkit_reply "${operands% program}" "$cur"
    fi
    COMPREPLY=("${COMPREPLY[@]#"${cur%"$piece"}"}")
}

complete -F _fdkit <<.Name>>
`, nil)
