# Completion of fdkit for bash, printed by: fdkit completion bash
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
    'listen to' | 'bind to' | 'connect to' | 'drain from' | 'drain to' | 'send to' | 'recv from' | 'recv-exec from' | 'pool from' | 'merge from' | 'grab to' | 'tap from' | 'tap to' | 'route from' | 'route silent') kind='queue' ;;
    'listen metrics' | 'pool metrics' | 'serve metrics' | 'route metrics') kind='address' ;;
    'listen rules' | 'listen group' | 'listen chroot' | 'pool chdir' | 'pool limit' | 'pool env' | 'pool balance' | 'pool group' | 'pool chroot' | 'serve rules' | 'serve chdir' | 'serve limit' | 'serve env' | 'serve group' | 'serve chroot' | 'merge frame' | 'merge end' | 'merge max-line' | 'merge max-held' | 'torture case' | 'torture skip' | 'torture type' | 'tap output' | 'route by' | 'route to') kind='file' ;;
    'listen socket-owner' | 'listen user' | 'listen owner' | 'bind socket-owner' | 'bind owner' | 'connect owner' | 'drain owner' | 'send owner' | 'recv owner' | 'recv-exec owner' | 'pool owner' | 'pool user' | 'serve socket-owner' | 'serve user' | 'merge owner' | 'grab owner' | 'torture owner' | 'doctor user' | 'tap owner' | 'route owner') kind='user' ;;
    'doctor pid') kind='pid' ;;
    'listen backlog' | 'listen address-fd' | 'listen ready-fd' | 'listen allow' | 'listen deny' | 'listen rate' | 'listen rate-burst' | 'listen source-rate' | 'listen source-burst' | 'listen source-prefix' | 'listen over-rate' | 'listen trust' | 'listen proxy-timeout' | 'listen busy-message' | 'listen busy-after' | 'listen socket-mode' | 'listen keepalive-idle' | 'listen keepalive-interval' | 'listen keepalive-count' | 'listen defer-accept' | 'listen fastopen' | 'listen mark' | 'listen bind-to-device' | 'listen rcvbuf' | 'listen sndbuf' | 'listen sockopt' | 'listen mode' | 'bind name' | 'bind backlog' | 'bind address-fd' | 'bind ready-fd' | 'bind socket-mode' | 'bind keepalive-idle' | 'bind keepalive-interval' | 'bind keepalive-count' | 'bind defer-accept' | 'bind fastopen' | 'bind reuseport' | 'bind mark' | 'bind bind-to-device' | 'bind rcvbuf' | 'bind sndbuf' | 'bind sockopt' | 'bind mode' | 'connect fd' | 'connect dialect' | 'connect timeout' | 'connect bind' | 'connect mode' | 'drain count' | 'drain timeout' | 'drain wait' | 'drain mode' | 'send env' | 'send name' | 'send payload' | 'send payload-hex' | 'send timeout' | 'send wait' | 'send mode' | 'recv count' | 'recv name' | 'recv timeout' | 'recv wait' | 'recv fd' | 'recv accept-env' | 'recv dialect' | 'recv mode' | 'recv-exec wait' | 'recv-exec accept-env' | 'recv-exec dialect' | 'recv-exec mode' | 'recv-exec fd' | 'pool wait' | 'pool accept-env' | 'pool dialect' | 'pool mode' | 'pool n' | 'pool grace' | 'pool per-source' | 'pool per-source-message' | 'pool timeout' | 'pool idle-timeout' | 'pool first-byte-timeout' | 'pool queue-timeout' | 'pool nice' | 'pool umask' | 'pool queue-fd' | 'pool key' | 'pool max-keys' | 'pool idle' | 'pool max-requests' | 'pool max-age' | 'pool ready-timeout' | 'serve backlog' | 'serve address-fd' | 'serve ready-fd' | 'serve allow' | 'serve deny' | 'serve rate' | 'serve rate-burst' | 'serve source-rate' | 'serve source-burst' | 'serve source-prefix' | 'serve over-rate' | 'serve trust' | 'serve proxy-timeout' | 'serve busy-message' | 'serve busy-after' | 'serve socket-mode' | 'serve keepalive-idle' | 'serve keepalive-interval' | 'serve keepalive-count' | 'serve defer-accept' | 'serve fastopen' | 'serve mark' | 'serve bind-to-device' | 'serve rcvbuf' | 'serve sndbuf' | 'serve sockopt' | 'serve n' | 'serve grace' | 'serve per-source' | 'serve per-source-message' | 'serve timeout' | 'serve idle-timeout' | 'serve first-byte-timeout' | 'serve queue-timeout' | 'serve nice' | 'serve umask' | 'serve accept-env' | 'serve dialect' | 'merge wait' | 'merge idle' | 'merge mode' | 'grab fd' | 'grab name' | 'grab mode' | 'torture mode' | 'torture rounds' | 'torture seed' | 'torture timeout' | 'torture wait' | 'doctor sndbuf' | 'tap wait' | 'tap decode' | 'tap bytes' | 'tap mode' | 'route timeout' | 'route max-waiting' | 'route max-bytes' | 'route wait' | 'route mode') kind='none' ;;
    'listen log' | 'bind log' | 'connect log' | 'drain log' | 'send log' | 'recv log' | 'recv-exec log' | 'pool log' | 'serve log' | 'merge log' | 'grab log' | 'tap log' | 'route log') kind='text json' ;;
    'listen proto' | 'bind proto' | 'connect proto' | 'send proto') kind='raw fdkit openssh util-linux python-multiprocessing node qmp haproxy s6-fdholder sd-notify runc' ;;
    'recv proto' | 'recv-exec proto' | 'pool proto') kind='raw fdkit openssh util-linux python-multiprocessing node haproxy s6-fdholder sd-notify runc' ;;
    *) kind='' ;;
    esac
}

# _fdkit_reply sets COMPREPLY to the completions of $2, which is of the kind $1.
_fdkit_reply() {
    local starts='' files=''
    case $1 in
    queue) starts='unix: unix-listen: unix-seqpacket: unix-seqpacket-listen: unix-dgram: fd:' files=yes ;;
    address) starts='unix: tcp: tcp4: tcp6: fd: systemd:' ;;
    descriptor) starts='r: w: a: rw: stdin stdout stderr' ;;
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
        mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -W 'unix: tcp: tcp4: tcp6: fd: systemd:' -- "$cur")
    fi
}

_fdkit() {
    local words at piece kind cur command options operands i n ended=''
    _fdkit_words
    COMPREPLY=()
    n=$((${#words[@]} - 1)) cur=${words[-1]} command=${words[1]}
    if ((n == 1)); then
        case $cur in
        -*) _fdkit_reply '--help -h --version' "$cur" ;;
        *) _fdkit_reply 'listen bind connect drain send recv recv-exec pool serve merge grab inspect who queue torture doctor tap route completion' "$cur" ;;
        esac
        return
    fi
    case $command in
    listen)
        options='--to --proto --metrics --backlog -1 --address-fd --ready-fd --allow --deny --rules --rate --rate-burst --source-rate --source-burst --source-prefix --over-rate --proxy-protocol --trust --proxy-timeout --busy-message --busy-after --socket-mode --socket-owner --nodelay --keepalive --keepalive-idle --keepalive-interval --keepalive-count --defer-accept --fastopen --reuseport --freebind --transparent --mark --bind-to-device --v6only --rcvbuf --sndbuf --sockopt --user --group --chroot --no-new-privs --mode --owner -v -Q -q --log --log-anonymize --help -h'
        operands='address'
        ;;
    bind)
        options='--to --proto --name --backlog --address-fd --ready-fd --socket-mode --socket-owner --nodelay --keepalive --keepalive-idle --keepalive-interval --keepalive-count --defer-accept --fastopen --reuseport --freebind --transparent --mark --bind-to-device --v6only --rcvbuf --sndbuf --sockopt --mode --owner -v -Q -q --log --help -h'
        operands='addresses program'
        ;;
    connect)
        options='--to --fd --dialect --proto --timeout --bind --mode --owner -v -Q -q --log --log-anonymize --help -h'
        operands='address program'
        ;;
    drain)
        options='--from --to --count --timeout --wait --mode --owner -v -Q -q --log --help -h'
        operands='file'
        ;;
    send)
        options='--to --each --env --name --payload --payload-hex --proto --timeout --wait --mode --owner -v -Q -q --log --help -h'
        operands='descriptor'
        ;;
    recv)
        options='--from --count --explain --json --name --list --proto --timeout --wait --fd --accept-env --dialect --mode --owner -v -Q -q --log --help -h'
        operands='program'
        ;;
    recv-exec)
        options='--from --proto --wait --accept-env --dialect --mode --owner --fd --stderr --log --help -h'
        operands='program'
        ;;
    pool)
        options='--from --proto --wait --accept-env --dialect --mode --owner -n --grace --per-source --per-source-message --timeout --idle-timeout --first-byte-timeout --queue-timeout --chdir --nice --umask --limit --clean-env --env --resident --share --balance --queue-fd --key --max-keys --idle --max-requests --max-age --ready-timeout --user --group --chroot --no-new-privs --metrics -v -Q -q --log --log-anonymize --help -h'
        operands='program'
        ;;
    serve)
        options='--backlog -1 --address-fd --ready-fd --allow --deny --rules --rate --rate-burst --source-rate --source-burst --source-prefix --over-rate --proxy-protocol --trust --proxy-timeout --busy-message --busy-after --socket-mode --socket-owner --nodelay --keepalive --keepalive-idle --keepalive-interval --keepalive-count --defer-accept --fastopen --reuseport --freebind --transparent --mark --bind-to-device --v6only --rcvbuf --sndbuf --sockopt -n --grace --per-source --per-source-message --timeout --idle-timeout --first-byte-timeout --queue-timeout --chdir --nice --umask --limit --clean-env --env --user --group --chroot --no-new-privs --accept-env --dialect --metrics -v -Q -q --log --log-anonymize --help -h'
        operands='addresses program'
        ;;
    merge)
        options='--from --wait --frame --end --idle --max-line --max-held --mode --owner -v -Q -q --log --log-anonymize --help -h'
        operands='file'
        ;;
    grab)
        options='--to --fd --name --blocking --mode --owner -v -Q -q --log --help -h'
        operands='program'
        ;;
    inspect)
        options='--json -v --help -h'
        operands='pid'
        ;;
    who)
        options='--json --help -h'
        operands='pid'
        ;;
    queue)
        options='--all -v --json --help -h'
        operands='file'
        ;;
    torture)
        options='--case --json --list --mode --owner --rounds --run --seed --sender --skip --timeout --type -v --wait --help -h'
        operands='program'
        ;;
    doctor)
        options='--json --pid --sndbuf --user -v --help -h'
        operands='file'
        ;;
    tap)
        options='--from --to --wait --decode --json --hex --bytes --output --mode --owner -v -Q -q --log --help -h'
        operands='file'
        ;;
    route)
        options='--by --to --from --consume --silent --timeout --max-waiting --max-bytes --wait --metrics --mode --owner -v -Q -q --log --log-anonymize --help -h'
        operands='file'
        ;;
    completion)
        options='--help -h'
        operands='bash zsh fish'
        ;;
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

complete -F _fdkit fdkit
