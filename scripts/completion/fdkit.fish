# Completion of fdkit for fish, printed by: fdkit completion fish

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
        case listen
            set valued to proto metrics backlog address-fd ready-fd allow deny rules rate rate-burst source-rate source-burst source-prefix over-rate trust proxy-timeout busy-message busy-after socket-mode socket-owner keepalive-idle keepalive-interval keepalive-count defer-accept fastopen mark bind-to-device rcvbuf sndbuf sockopt user group chroot mode owner log
        case bind
            set valued to proto name backlog address-fd ready-fd socket-mode socket-owner keepalive-idle keepalive-interval keepalive-count defer-accept fastopen reuseport mark bind-to-device rcvbuf sndbuf sockopt mode owner log
        case connect
            set valued to fd dialect proto timeout bind mode owner log
        case drain
            set valued from to count timeout wait mode owner log
        case send
            set valued to env name payload payload-hex proto timeout wait mode owner log
        case recv
            set valued from count name proto timeout wait fd accept-env dialect mode owner log
        case recv-exec
            set valued from proto wait accept-env dialect mode owner fd log
        case pool
            set valued from proto wait accept-env dialect mode owner n grace per-source per-source-message timeout idle-timeout first-byte-timeout queue-timeout chdir nice umask limit env balance queue-fd key max-keys idle max-requests max-age ready-timeout user group chroot metrics log
        case serve
            set valued backlog address-fd ready-fd allow deny rules rate rate-burst source-rate source-burst source-prefix over-rate trust proxy-timeout busy-message busy-after socket-mode socket-owner keepalive-idle keepalive-interval keepalive-count defer-accept fastopen mark bind-to-device rcvbuf sndbuf sockopt n grace per-source per-source-message timeout idle-timeout first-byte-timeout queue-timeout chdir nice umask limit env user group chroot accept-env dialect metrics log
        case merge
            set valued from wait frame end idle max-line max-held mode owner log
        case grab
            set valued to fd name mode owner log
        case torture
            set valued case mode owner rounds seed skip timeout type wait
        case doctor
            set valued pid sndbuf user
        case tap
            set valued from to wait decode bytes output mode owner log
        case route
            set valued by to from silent timeout max-waiting max-bytes wait metrics mode owner log
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

complete -c fdkit -f
complete -c fdkit -n __fish_is_first_token -s h -l help -d 'show help'
complete -c fdkit -n __fish_is_first_token -l version -d 'print the version'
complete -c fdkit -n __fish_is_first_token -a listen -d 'accept connections and send each as a descriptor'
complete -c fdkit -n __fish_is_first_token -a bind -d 'bind addresses and become a server with the listening sockets, or send them'
complete -c fdkit -n __fish_is_first_token -a connect -d 'connect to an address and send the descriptor, or become a program with it'
complete -c fdkit -n __fish_is_first_token -a drain -d 'move what is in a queue to another one'
complete -c fdkit -n __fish_is_first_token -a send -d 'send open descriptors, files, or descriptors of another process'
complete -c fdkit -n __fish_is_first_token -a recv -d 'receive descriptors and tell what they are, or become a program with them'
complete -c fdkit -n __fish_is_first_token -a recv-exec -d 'receive one descriptor and become a program with it'
complete -c fdkit -n __fish_is_first_token -a pool -d 'run a program for each connection, some at a time'
complete -c fdkit -n __fish_is_first_token -a serve -d 'accept connections and run a program for each, in one process'
complete -c fdkit -n __fish_is_first_token -a merge -d 'write whole lines from many connections to stdout'
complete -c fdkit -n __fish_is_first_token -a grab -d 'become a program with copies of another process\'s descriptors, or send them'
complete -c fdkit -n __fish_is_first_token -a inspect -d 'tell what descriptors are, one\'s own or another process\'s'
complete -c fdkit -n __fish_is_first_token -a who -d 'tell which processes hold an open socket, pipe or file'
complete -c fdkit -n __fish_is_first_token -a queue -d 'show what is in flight in Unix sockets, and leave it there'
complete -c fdkit -n __fish_is_first_token -a torture -d 'test a program that receives or sends descriptors with what it does not expect'
complete -c fdkit -n __fish_is_first_token -a doctor -d 'find out what decides on this machine whether descriptors pass'
complete -c fdkit -n __fish_is_first_token -a tap -d 'show what passes between queues, or through a Unix socket'
complete -c fdkit -n __fish_is_first_token -a route -d 'send each connection to one of several queues, by its first bytes or its addresses'
complete -c fdkit -n __fish_is_first_token -a completion -d 'print the script by which a shell completes command lines'

complete -c fdkit -n '__fdkit_at listen' -l to -d 'send to QUEUE instead of stdout' -r -F -a 'unix: unix-listen: unix-seqpacket: unix-seqpacket-listen: unix-dgram: fd:'
complete -c fdkit -n '__fdkit_at listen' -l proto -d 'send in dialect NAME' -x -a 'raw fdkit openssh util-linux python-multiprocessing node qmp haproxy s6-fdholder sd-notify runc'
complete -c fdkit -n '__fdkit_at listen' -l metrics -d 'tell Prometheus what happens, at http://ADDRESS/metrics' -r -F -a 'unix: tcp: tcp4: tcp6: fd: systemd:'
complete -c fdkit -n '__fdkit_at listen' -l backlog -d 'let N connections wait in the kernel' -x
complete -c fdkit -n '__fdkit_at listen' -s 1 -d 'once listening, write the port to stdout'
complete -c fdkit -n '__fdkit_at listen' -l address-fd -d 'once listening, write each bound address as a line to descriptor N, and close it' -x
complete -c fdkit -n '__fdkit_at listen' -l ready-fd -d 'once listening, write a newline to descriptor N, and close it' -x
complete -c fdkit -n '__fdkit_at listen' -l allow -d 'let WHO connect, an address, a network, uid=USER, gid=GROUP, unix or all' -x
complete -c fdkit -n '__fdkit_at listen' -l deny -d 'refuse WHO; of these options and rules, the first that matches decides' -x
complete -c fdkit -n '__fdkit_at listen' -l rules -d 'after these options, go by the rules in FILE, which SIGHUP reads anew' -r -F
complete -c fdkit -n '__fdkit_at listen' -l rate -d 'let connections through at RATE, such as 100/s, 30/m or 0.5/s' -x
complete -c fdkit -n '__fdkit_at listen' -l rate-burst -d 'of --rate, let N through at once' -x
complete -c fdkit -n '__fdkit_at listen' -l source-rate -d 'let connections of each source through at RATE' -x
complete -c fdkit -n '__fdkit_at listen' -l source-burst -d 'of --source-rate, let N through at once' -x
complete -c fdkit -n '__fdkit_at listen' -l source-prefix -d 'count addresses that have V4[,V6] leading bits in common as one source' -x
complete -c fdkit -n '__fdkit_at listen' -l over-rate -d 'do ACTION with connections that come too early: wait or refuse' -x
complete -c fdkit -n '__fdkit_at listen' -l proxy-protocol -d 'take the client\'s address from the PROXY header that a balancer sends'
complete -c fdkit -n '__fdkit_at listen' -l trust -d 'let CLIENT send PROXY headers: ADDRESS, ADDRESS/BITS or unix' -x
complete -c fdkit -n '__fdkit_at listen' -l proxy-timeout -d 'close connections whose PROXY header takes longer than TIME' -x
complete -c fdkit -n '__fdkit_at listen' -l busy-message -d 'answer clients for whom there is no room with TEXT instead of letting them wait' -x
complete -c fdkit -n '__fdkit_at listen' -l busy-after -d 'with --busy-message: when there has been no room for TIME' -x
complete -c fdkit -n '__fdkit_at listen' -l socket-mode -d 'permission BITS of the files of Unix sockets: who may write may connect' -x
complete -c fdkit -n '__fdkit_at listen' -l socket-owner -d 'USER[:GROUP] that owns the files of Unix sockets' -x -a '(__fdkit_user)'
complete -c fdkit -n '__fdkit_at listen' -l nodelay -d 'send small segments at once (TCP_NODELAY)'
complete -c fdkit -n '__fdkit_at listen' -l keepalive -d 'end connections whose client has gone (SO_KEEPALIVE)'
complete -c fdkit -n '__fdkit_at listen' -l keepalive-idle -d 'as --keepalive, and ask the client after TIME of silence' -x
complete -c fdkit -n '__fdkit_at listen' -l keepalive-interval -d 'as --keepalive, and ask again every TIME' -x
complete -c fdkit -n '__fdkit_at listen' -l keepalive-count -d 'as --keepalive, and ask N times' -x
complete -c fdkit -n '__fdkit_at listen' -l defer-accept -d 'accept when the client has sent something, or after TIME (TCP_DEFER_ACCEPT)' -x
complete -c fdkit -n '__fdkit_at listen' -l fastopen -d 'take data that comes with the SYN, of N connections at once (TCP_FASTOPEN)' -x
complete -c fdkit -n '__fdkit_at listen' -l reuseport -d 'share the port with others that have this option (SO_REUSEPORT)'
complete -c fdkit -n '__fdkit_at listen' -l freebind -d 'bind an address that is not there, or not yet (IP_FREEBIND)'
complete -c fdkit -n '__fdkit_at listen' -l transparent -d 'take connections to addresses of others, that a firewall diverts (IP_TRANSPARENT)'
complete -c fdkit -n '__fdkit_at listen' -l mark -d 'put mark N on what is sent, for routing and firewalls (SO_MARK)' -x
complete -c fdkit -n '__fdkit_at listen' -l bind-to-device -d 'take connections of network interface NAME only (SO_BINDTODEVICE)' -x
complete -c fdkit -n '__fdkit_at listen' -l v6only -d 'let :PORT be for IPv6 only (IPV6_V6ONLY)'
complete -c fdkit -n '__fdkit_at listen' -l rcvbuf -d 'have receive buffers of BYTES (SO_RCVBUF)' -x
complete -c fdkit -n '__fdkit_at listen' -l sndbuf -d 'have send buffers of BYTES (SO_SNDBUF)' -x
complete -c fdkit -n '__fdkit_at listen' -l sockopt -d 'set any other socket option, LEVEL:NAME:VALUE, such as tcp:TCP_USER_TIMEOUT:5000' -x
complete -c fdkit -n '__fdkit_at listen' -l user -d 'after binding, run as USER[:GROUP], with the user\'s supplementary groups unless GROUP is given' -x -a '(__fdkit_user)'
complete -c fdkit -n '__fdkit_at listen' -l group -d 'after binding, run with GROUP[,GROUP...], the first as its own group' -r -F
complete -c fdkit -n '__fdkit_at listen' -l chroot -d 'after binding, make DIR the root directory' -r -F
complete -c fdkit -n '__fdkit_at listen' -l no-new-privs -d 'after binding, get no privileges by set-user-ID bits and the like'
complete -c fdkit -n '__fdkit_at listen' -l mode -d 'permission BITS of a named queue that is made: who may write may attach' -x
complete -c fdkit -n '__fdkit_at listen' -l owner -d 'USER[:GROUP] that owns a named queue that is made, and whose queue is trusted' -x -a '(__fdkit_user)'
complete -c fdkit -n '__fdkit_at listen' -s v -d 'say everything that happens'
complete -c fdkit -n '__fdkit_at listen' -s Q -d 'say errors only; the default'
complete -c fdkit -n '__fdkit_at listen' -s q -d 'say nothing'
complete -c fdkit -n '__fdkit_at listen' -l log -d 'write the log as FORMAT: text, or json with an object for each line' -x -a 'text json'
complete -c fdkit -n '__fdkit_at listen' -l log-anonymize -d 'shorten the addresses of clients in the log'
complete -c fdkit -n '__fdkit_at listen' -l help -s h -d 'show help'
complete -c fdkit -n '__fdkit_operand listen' -a 'unix: tcp: tcp4: tcp6: fd: systemd:'
complete -c fdkit -n '__fdkit_operand listen; and string match -q "unix:*" -- (commandline -ct)' -F

complete -c fdkit -n '__fdkit_at bind' -l to -d 'without PROGRAM: send to QUEUE instead of stdout' -r -F -a 'unix: unix-listen: unix-seqpacket: unix-seqpacket-listen: unix-dgram: fd:'
complete -c fdkit -n '__fdkit_at bind' -l proto -d 'without PROGRAM: send in dialect NAME' -x -a 'raw fdkit openssh util-linux python-multiprocessing node qmp haproxy s6-fdholder sd-notify runc'
complete -c fdkit -n '__fdkit_at bind' -l name -d 'call the sockets of the next ADDRESS NAME; one for each ADDRESS, in order' -x
complete -c fdkit -n '__fdkit_at bind' -l backlog -d 'let N connections wait in the kernel' -x
complete -c fdkit -n '__fdkit_at bind' -l address-fd -d 'once listening, write each bound address as a line to descriptor N, and close it' -x
complete -c fdkit -n '__fdkit_at bind' -l ready-fd -d 'once listening, write a newline to descriptor N, and close it' -x
complete -c fdkit -n '__fdkit_at bind' -l socket-mode -d 'permission BITS of the files of Unix sockets: who may write may connect' -x
complete -c fdkit -n '__fdkit_at bind' -l socket-owner -d 'USER[:GROUP] that owns the files of Unix sockets' -x -a '(__fdkit_user)'
complete -c fdkit -n '__fdkit_at bind' -l nodelay -d 'send small segments at once (TCP_NODELAY)'
complete -c fdkit -n '__fdkit_at bind' -l keepalive -d 'end connections whose client has gone (SO_KEEPALIVE)'
complete -c fdkit -n '__fdkit_at bind' -l keepalive-idle -d 'as --keepalive, and ask the client after TIME of silence' -x
complete -c fdkit -n '__fdkit_at bind' -l keepalive-interval -d 'as --keepalive, and ask again every TIME' -x
complete -c fdkit -n '__fdkit_at bind' -l keepalive-count -d 'as --keepalive, and ask N times' -x
complete -c fdkit -n '__fdkit_at bind' -l defer-accept -d 'accept when the client has sent something, or after TIME (TCP_DEFER_ACCEPT)' -x
complete -c fdkit -n '__fdkit_at bind' -l fastopen -d 'take data that comes with the SYN, of N connections at once (TCP_FASTOPEN)' -x
complete -c fdkit -n '__fdkit_at bind' -l reuseport -d 'bind N sockets to each address, which share its connections (SO_REUSEPORT)' -x
complete -c fdkit -n '__fdkit_at bind' -l freebind -d 'bind an address that is not there, or not yet (IP_FREEBIND)'
complete -c fdkit -n '__fdkit_at bind' -l transparent -d 'take connections to addresses of others, that a firewall diverts (IP_TRANSPARENT)'
complete -c fdkit -n '__fdkit_at bind' -l mark -d 'put mark N on what is sent, for routing and firewalls (SO_MARK)' -x
complete -c fdkit -n '__fdkit_at bind' -l bind-to-device -d 'take connections of network interface NAME only (SO_BINDTODEVICE)' -x
complete -c fdkit -n '__fdkit_at bind' -l v6only -d 'let :PORT be for IPv6 only (IPV6_V6ONLY)'
complete -c fdkit -n '__fdkit_at bind' -l rcvbuf -d 'have receive buffers of BYTES (SO_RCVBUF)' -x
complete -c fdkit -n '__fdkit_at bind' -l sndbuf -d 'have send buffers of BYTES (SO_SNDBUF)' -x
complete -c fdkit -n '__fdkit_at bind' -l sockopt -d 'set any other socket option, LEVEL:NAME:VALUE, such as tcp:TCP_USER_TIMEOUT:5000' -x
complete -c fdkit -n '__fdkit_at bind' -l mode -d 'permission BITS of a named queue that is made: who may write may attach' -x
complete -c fdkit -n '__fdkit_at bind' -l owner -d 'USER[:GROUP] that owns a named queue that is made, and whose queue is trusted' -x -a '(__fdkit_user)'
complete -c fdkit -n '__fdkit_at bind' -s v -d 'say everything that happens'
complete -c fdkit -n '__fdkit_at bind' -s Q -d 'say errors only; the default'
complete -c fdkit -n '__fdkit_at bind' -s q -d 'say nothing'
complete -c fdkit -n '__fdkit_at bind' -l log -d 'write the log as FORMAT: text, or json with an object for each line' -x -a 'text json'
complete -c fdkit -n '__fdkit_at bind' -l help -s h -d 'show help'
complete -c fdkit -n '__fdkit_address bind' -a 'unix: tcp: tcp4: tcp6: fd: systemd:'
complete -c fdkit -n '__fdkit_address bind; and string match -q "unix:*" -- (commandline -ct)' -F
complete -c fdkit -n '__fdkit_addressed bind' -a '(__fdkit_after_addresses bind)'

complete -c fdkit -n '__fdkit_at connect' -l to -d 'without PROGRAM: send to QUEUE instead of stdout' -r -F -a 'unix: unix-listen: unix-seqpacket: unix-seqpacket-listen: unix-dgram: fd:'
complete -c fdkit -n '__fdkit_at connect' -l fd -d 'with PROGRAM: place the connection at N[,N...] instead of 6,7' -x
complete -c fdkit -n '__fdkit_at connect' -l dialect -d 'also describe the connection as NAME[,NAME...] does: ncat, tcp6 or ucspi' -x
complete -c fdkit -n '__fdkit_at connect' -l proto -d 'without PROGRAM: send in dialect NAME' -x -a 'raw fdkit openssh util-linux python-multiprocessing node qmp haproxy s6-fdholder sd-notify runc'
complete -c fdkit -n '__fdkit_at connect' -l timeout -d 'give up after TIME' -x
complete -c fdkit -n '__fdkit_at connect' -l bind -d 'connect from this LOCAL IP address, :PORT or both' -x
complete -c fdkit -n '__fdkit_at connect' -l mode -d 'permission BITS of a named queue that is made: who may write may attach' -x
complete -c fdkit -n '__fdkit_at connect' -l owner -d 'USER[:GROUP] that owns a named queue that is made, and whose queue is trusted' -x -a '(__fdkit_user)'
complete -c fdkit -n '__fdkit_at connect' -s v -d 'say everything that happens'
complete -c fdkit -n '__fdkit_at connect' -s Q -d 'say errors only; the default'
complete -c fdkit -n '__fdkit_at connect' -s q -d 'say nothing'
complete -c fdkit -n '__fdkit_at connect' -l log -d 'write the log as FORMAT: text, or json with an object for each line' -x -a 'text json'
complete -c fdkit -n '__fdkit_at connect' -l log-anonymize -d 'shorten the addresses of clients in the log'
complete -c fdkit -n '__fdkit_at connect' -l help -s h -d 'show help'
complete -c fdkit -n '__fdkit_operand connect first' -a 'unix: tcp: tcp4: tcp6: fd: systemd:'
complete -c fdkit -n '__fdkit_operand connect first; and string match -q "unix:*" -- (commandline -ct)' -F
complete -c fdkit -n '__fdkit_operand connect; and not __fdkit_operand connect first' -a '(__fdkit_program 3)'

complete -c fdkit -n '__fdkit_at drain' -l from -d 'receive from QUEUE, or in the place of a process, PID:FD, instead of from stdin' -r -F -a 'unix: unix-listen: unix-seqpacket: unix-seqpacket-listen: unix-dgram: fd:'
complete -c fdkit -n '__fdkit_at drain' -l to -d 'send to QUEUE instead of stdout' -r -F -a 'unix: unix-listen: unix-seqpacket: unix-seqpacket-listen: unix-dgram: fd:'
complete -c fdkit -n '__fdkit_at drain' -l count -d 'end after N messages' -x
complete -c fdkit -n '__fdkit_at drain' -l timeout -d 'give up after TIME' -x
complete -c fdkit -n '__fdkit_at drain' -l wait -d 'wait at most TIME for somebody else to make the queue of --to, or to listen' -x
complete -c fdkit -n '__fdkit_at drain' -l mode -d 'permission BITS of a named queue that is made: who may write may attach' -x
complete -c fdkit -n '__fdkit_at drain' -l owner -d 'USER[:GROUP] that owns a named queue that is made, and whose queue is trusted' -x -a '(__fdkit_user)'
complete -c fdkit -n '__fdkit_at drain' -s v -d 'say everything that happens'
complete -c fdkit -n '__fdkit_at drain' -s Q -d 'say errors only; the default'
complete -c fdkit -n '__fdkit_at drain' -s q -d 'say nothing'
complete -c fdkit -n '__fdkit_at drain' -l log -d 'write the log as FORMAT: text, or json with an object for each line' -x -a 'text json'
complete -c fdkit -n '__fdkit_at drain' -l help -s h -d 'show help'
complete -c fdkit -n '__fdkit_operand drain' -F

complete -c fdkit -n '__fdkit_at send' -l to -d 'send to QUEUE instead of stdout' -r -F -a 'unix: unix-listen: unix-seqpacket: unix-seqpacket-listen: unix-dgram: fd:'
complete -c fdkit -n '__fdkit_at send' -l each -d 'send each descriptor as a message of its own'
complete -c fdkit -n '__fdkit_at send' -l env -d 'send the variable NAME=VALUE along' -x
complete -c fdkit -n '__fdkit_at send' -l name -d 'call the next descriptor NAME; one for each, in order' -x
complete -c fdkit -n '__fdkit_at send' -l payload -d 'send this TEXT along instead of variables' -x
complete -c fdkit -n '__fdkit_at send' -l payload-hex -d 'the same in hexadecimal DIGITS' -x
complete -c fdkit -n '__fdkit_at send' -l proto -d 'send in dialect NAME' -x -a 'raw fdkit openssh util-linux python-multiprocessing node qmp haproxy s6-fdholder sd-notify runc'
complete -c fdkit -n '__fdkit_at send' -l timeout -d 'give up after TIME' -x
complete -c fdkit -n '__fdkit_at send' -l wait -d 'wait at most TIME for somebody else to make the queue or to listen' -x
complete -c fdkit -n '__fdkit_at send' -l mode -d 'permission BITS of a named queue that is made: who may write may attach' -x
complete -c fdkit -n '__fdkit_at send' -l owner -d 'USER[:GROUP] that owns a named queue that is made, and whose queue is trusted' -x -a '(__fdkit_user)'
complete -c fdkit -n '__fdkit_at send' -s v -d 'say everything that happens'
complete -c fdkit -n '__fdkit_at send' -s Q -d 'say errors only; the default'
complete -c fdkit -n '__fdkit_at send' -s q -d 'say nothing'
complete -c fdkit -n '__fdkit_at send' -l log -d 'write the log as FORMAT: text, or json with an object for each line' -x -a 'text json'
complete -c fdkit -n '__fdkit_at send' -l help -s h -d 'show help'
complete -c fdkit -n '__fdkit_operand send' -a 'r: w: a: rw: stdin stdout stderr'
complete -c fdkit -n '__fdkit_operand send; and string match -qr "^(r|w|a|rw):" -- (commandline -ct)' -F

complete -c fdkit -n '__fdkit_at recv' -l from -d 'receive from QUEUE instead of stdin' -r -F -a 'unix: unix-listen: unix-seqpacket: unix-seqpacket-listen: unix-dgram: fd:'
complete -c fdkit -n '__fdkit_at recv' -l count -d 'end after N messages' -x
complete -c fdkit -n '__fdkit_at recv' -l explain -d 'say in plain words what things mean, and what can go wrong with them'
complete -c fdkit -n '__fdkit_at recv' -l json -d 'print an object of JSON for each message, with all that is known'
complete -c fdkit -n '__fdkit_at recv' -l name -d 'ask for the descriptor NAME; in dialects in which one asks' -x
complete -c fdkit -n '__fdkit_at recv' -l list -d 'ask for the names only; in dialects in which one asks'
complete -c fdkit -n '__fdkit_at recv' -l proto -d 'receive in dialect NAME' -x -a 'raw fdkit openssh util-linux python-multiprocessing node haproxy s6-fdholder sd-notify runc'
complete -c fdkit -n '__fdkit_at recv' -l timeout -d 'give up when all is not done after TIME' -x
complete -c fdkit -n '__fdkit_at recv' -l wait -d 'wait at most TIME for somebody else to make the queue, to listen or to connect' -x
complete -c fdkit -n '__fdkit_at recv' -l fd -d 'with PROGRAM: place the descriptors from N on, or each at one of N,N...' -x
complete -c fdkit -n '__fdkit_at recv' -l accept-env -d 'let the program have variable NAME if it comes with the connection; a * at the end stands for anything' -x
complete -c fdkit -n '__fdkit_at recv' -l dialect -d 'also describe the connection as NAME[,NAME...] does: cgi, ncat, socat, systemd, tcp6, ucspi or xinetd' -x
complete -c fdkit -n '__fdkit_at recv' -l mode -d 'permission BITS of a named queue that is made: who may write may attach' -x
complete -c fdkit -n '__fdkit_at recv' -l owner -d 'USER[:GROUP] that owns a named queue that is made, and whose queue is trusted' -x -a '(__fdkit_user)'
complete -c fdkit -n '__fdkit_at recv' -s v -d 'print all that is known of each descriptor; with PROGRAM: say what came'
complete -c fdkit -n '__fdkit_at recv' -s Q -d 'say errors only; the default'
complete -c fdkit -n '__fdkit_at recv' -s q -d 'say nothing'
complete -c fdkit -n '__fdkit_at recv' -l log -d 'write the log as FORMAT: text, or json with an object for each line' -x -a 'text json'
complete -c fdkit -n '__fdkit_at recv' -l help -s h -d 'show help'
complete -c fdkit -n '__fdkit_operand recv' -a '(__fdkit_program)'

complete -c fdkit -n '__fdkit_at recv-exec' -l from -d 'receive from QUEUE instead of stdin' -r -F -a 'unix: unix-listen: unix-seqpacket: unix-seqpacket-listen: unix-dgram: fd:'
complete -c fdkit -n '__fdkit_at recv-exec' -l proto -d 'receive in dialect NAME' -x -a 'raw fdkit openssh util-linux python-multiprocessing node haproxy s6-fdholder sd-notify runc'
complete -c fdkit -n '__fdkit_at recv-exec' -l wait -d 'wait at most TIME for somebody else to make the queue' -x
complete -c fdkit -n '__fdkit_at recv-exec' -l accept-env -d 'let the program have variable NAME if it comes with the connection; a * at the end stands for anything' -x
complete -c fdkit -n '__fdkit_at recv-exec' -l dialect -d 'also describe the connection as NAME[,NAME...] does: cgi, ncat, socat, systemd, tcp6, ucspi or xinetd' -x
complete -c fdkit -n '__fdkit_at recv-exec' -l mode -d 'permission BITS of a named queue that is made: who may write may attach' -x
complete -c fdkit -n '__fdkit_at recv-exec' -l owner -d 'USER[:GROUP] that owns a named queue that is made, and whose queue is trusted' -x -a '(__fdkit_user)'
complete -c fdkit -n '__fdkit_at recv-exec' -l fd -d 'place the descriptor at N[,N...] instead of 0,1' -x
complete -c fdkit -n '__fdkit_at recv-exec' -l stderr -d 'place it at 2 as well'
complete -c fdkit -n '__fdkit_at recv-exec' -l log -d 'write the log as FORMAT: text, or json with an object for each line' -x -a 'text json'
complete -c fdkit -n '__fdkit_at recv-exec' -l help -s h -d 'show help'
complete -c fdkit -n '__fdkit_operand recv-exec' -a '(__fdkit_program)'

complete -c fdkit -n '__fdkit_at pool' -l from -d 'receive from QUEUE instead of stdin' -r -F -a 'unix: unix-listen: unix-seqpacket: unix-seqpacket-listen: unix-dgram: fd:'
complete -c fdkit -n '__fdkit_at pool' -l proto -d 'receive in dialect NAME' -x -a 'raw fdkit openssh util-linux python-multiprocessing node haproxy s6-fdholder sd-notify runc'
complete -c fdkit -n '__fdkit_at pool' -l wait -d 'wait at most TIME for somebody else to make the queue' -x
complete -c fdkit -n '__fdkit_at pool' -l accept-env -d 'let the program have variable NAME if it comes with the connection; a * at the end stands for anything' -x
complete -c fdkit -n '__fdkit_at pool' -l dialect -d 'also describe the connection as NAME[,NAME...] does: cgi, ncat, socat, systemd, tcp6, ucspi or xinetd' -x
complete -c fdkit -n '__fdkit_at pool' -l mode -d 'permission BITS of a named queue that is made: who may write may attach' -x
complete -c fdkit -n '__fdkit_at pool' -l owner -d 'USER[:GROUP] that owns a named queue that is made, and whose queue is trusted' -x -a '(__fdkit_user)'
complete -c fdkit -n '__fdkit_at pool' -s n -d 'run at most SLOTS programs at once' -x
complete -c fdkit -n '__fdkit_at pool' -l grace -d 'when told to stop, let running programs go on for at most TIME' -x
complete -c fdkit -n '__fdkit_at pool' -l per-source -d 'run at most N[/V4[,V6]] programs at once for each client address, of which V4 or V6 bits count' -x
complete -c fdkit -n '__fdkit_at pool' -l per-source-message -d 'write TEXT to clients whom --per-source refuses' -x
complete -c fdkit -n '__fdkit_at pool' -l timeout -d 'end programs that have run for TIME' -x
complete -c fdkit -n '__fdkit_at pool' -l idle-timeout -d 'end programs over whose connection nothing has gone for TIME' -x
complete -c fdkit -n '__fdkit_at pool' -l first-byte-timeout -d 'end programs whose client has sent nothing for TIME after the start' -x
complete -c fdkit -n '__fdkit_at pool' -l queue-timeout -d 'close connections that have waited for TIME before they are received, or whose client has gone' -x
complete -c fdkit -n '__fdkit_at pool' -l chdir -d 'make DIR the working directory of programs' -r -F
complete -c fdkit -n '__fdkit_at pool' -l nice -d 'run programs with priority N from -20, the best, to 19' -x
complete -c fdkit -n '__fdkit_at pool' -l umask -d 'run programs with the umask BITS' -x
complete -c fdkit -n '__fdkit_at pool' -l limit -d 'limit a resource of each program: NAME=SOFT[:HARD], such as nofile=64' -r -F
complete -c fdkit -n '__fdkit_at pool' -l clean-env -d 'let programs inherit no variables but those of --env'
complete -c fdkit -n '__fdkit_at pool' -l env -d 'give programs the variable NAME[=VALUE], without a value as it is here' -r -F
complete -c fdkit -n '__fdkit_at pool' -l resident -d 'let PROGRAM run on as a worker, which receives its connections as messages on descriptor 0'
complete -c fdkit -n '__fdkit_at pool' -l share -d 'give the workers the queue itself'
complete -c fdkit -n '__fdkit_at pool' -l balance -d 'choose workers by RULE: fifo, least, hash=source or hash=key' -r -F
complete -c fdkit -n '__fdkit_at pool' -l queue-fd -d 'let workers find their queue at descriptor N instead of 0' -x
complete -c fdkit -n '__fdkit_at pool' -l key -d 'run a worker for each value of the variable NAME that comes with connections' -x
complete -c fdkit -n '__fdkit_at pool' -l max-keys -d 'run workers for at most N values of --key' -x
complete -c fdkit -n '__fdkit_at pool' -l idle -d 'end the worker of a value of --key after TIME without a connection' -x
complete -c fdkit -n '__fdkit_at pool' -l max-requests -d 'replace a worker after N connections' -x
complete -c fdkit -n '__fdkit_at pool' -l max-age -d 'replace a worker after TIME' -x
complete -c fdkit -n '__fdkit_at pool' -l ready-timeout -d 'kill workers that do not say READY within TIME, or do not receive for so long' -x
complete -c fdkit -n '__fdkit_at pool' -l user -d 'run programs as USER[:GROUP], with the user\'s supplementary groups unless GROUP is given' -x -a '(__fdkit_user)'
complete -c fdkit -n '__fdkit_at pool' -l group -d 'run programs with GROUP[,GROUP...], the first as their own group' -r -F
complete -c fdkit -n '__fdkit_at pool' -l chroot -d 'make DIR the root directory of programs' -r -F
complete -c fdkit -n '__fdkit_at pool' -l no-new-privs -d 'let programs get no privileges by set-user-ID bits and the like'
complete -c fdkit -n '__fdkit_at pool' -l metrics -d 'tell Prometheus what happens, at http://ADDRESS/metrics' -r -F -a 'unix: tcp: tcp4: tcp6: fd: systemd:'
complete -c fdkit -n '__fdkit_at pool' -s v -d 'say everything that happens'
complete -c fdkit -n '__fdkit_at pool' -s Q -d 'say errors only; the default'
complete -c fdkit -n '__fdkit_at pool' -s q -d 'say nothing'
complete -c fdkit -n '__fdkit_at pool' -l log -d 'write the log as FORMAT: text, or json with an object for each line' -x -a 'text json'
complete -c fdkit -n '__fdkit_at pool' -l log-anonymize -d 'shorten the addresses of clients in the log'
complete -c fdkit -n '__fdkit_at pool' -l help -s h -d 'show help'
complete -c fdkit -n '__fdkit_operand pool' -a '(__fdkit_program)'

complete -c fdkit -n '__fdkit_at serve' -l backlog -d 'let N connections wait in the kernel' -x
complete -c fdkit -n '__fdkit_at serve' -s 1 -d 'once listening, write the port to stdout'
complete -c fdkit -n '__fdkit_at serve' -l address-fd -d 'once listening, write each bound address as a line to descriptor N, and close it' -x
complete -c fdkit -n '__fdkit_at serve' -l ready-fd -d 'once listening, write a newline to descriptor N, and close it' -x
complete -c fdkit -n '__fdkit_at serve' -l allow -d 'let WHO connect, an address, a network, uid=USER, gid=GROUP, unix or all' -x
complete -c fdkit -n '__fdkit_at serve' -l deny -d 'refuse WHO; of these options and rules, the first that matches decides' -x
complete -c fdkit -n '__fdkit_at serve' -l rules -d 'after these options, go by the rules in FILE, which SIGHUP reads anew' -r -F
complete -c fdkit -n '__fdkit_at serve' -l rate -d 'let connections through at RATE, such as 100/s, 30/m or 0.5/s' -x
complete -c fdkit -n '__fdkit_at serve' -l rate-burst -d 'of --rate, let N through at once' -x
complete -c fdkit -n '__fdkit_at serve' -l source-rate -d 'let connections of each source through at RATE' -x
complete -c fdkit -n '__fdkit_at serve' -l source-burst -d 'of --source-rate, let N through at once' -x
complete -c fdkit -n '__fdkit_at serve' -l source-prefix -d 'count addresses that have V4[,V6] leading bits in common as one source' -x
complete -c fdkit -n '__fdkit_at serve' -l over-rate -d 'do ACTION with connections that come too early: wait or refuse' -x
complete -c fdkit -n '__fdkit_at serve' -l proxy-protocol -d 'take the client\'s address from the PROXY header that a balancer sends'
complete -c fdkit -n '__fdkit_at serve' -l trust -d 'let CLIENT send PROXY headers: ADDRESS, ADDRESS/BITS or unix' -x
complete -c fdkit -n '__fdkit_at serve' -l proxy-timeout -d 'close connections whose PROXY header takes longer than TIME' -x
complete -c fdkit -n '__fdkit_at serve' -l busy-message -d 'answer clients for whom there is no room with TEXT instead of letting them wait' -x
complete -c fdkit -n '__fdkit_at serve' -l busy-after -d 'with --busy-message: when there has been no room for TIME' -x
complete -c fdkit -n '__fdkit_at serve' -l socket-mode -d 'permission BITS of the files of Unix sockets: who may write may connect' -x
complete -c fdkit -n '__fdkit_at serve' -l socket-owner -d 'USER[:GROUP] that owns the files of Unix sockets' -x -a '(__fdkit_user)'
complete -c fdkit -n '__fdkit_at serve' -l nodelay -d 'send small segments at once (TCP_NODELAY)'
complete -c fdkit -n '__fdkit_at serve' -l keepalive -d 'end connections whose client has gone (SO_KEEPALIVE)'
complete -c fdkit -n '__fdkit_at serve' -l keepalive-idle -d 'as --keepalive, and ask the client after TIME of silence' -x
complete -c fdkit -n '__fdkit_at serve' -l keepalive-interval -d 'as --keepalive, and ask again every TIME' -x
complete -c fdkit -n '__fdkit_at serve' -l keepalive-count -d 'as --keepalive, and ask N times' -x
complete -c fdkit -n '__fdkit_at serve' -l defer-accept -d 'accept when the client has sent something, or after TIME (TCP_DEFER_ACCEPT)' -x
complete -c fdkit -n '__fdkit_at serve' -l fastopen -d 'take data that comes with the SYN, of N connections at once (TCP_FASTOPEN)' -x
complete -c fdkit -n '__fdkit_at serve' -l reuseport -d 'share the port with others that have this option (SO_REUSEPORT)'
complete -c fdkit -n '__fdkit_at serve' -l freebind -d 'bind an address that is not there, or not yet (IP_FREEBIND)'
complete -c fdkit -n '__fdkit_at serve' -l transparent -d 'take connections to addresses of others, that a firewall diverts (IP_TRANSPARENT)'
complete -c fdkit -n '__fdkit_at serve' -l mark -d 'put mark N on what is sent, for routing and firewalls (SO_MARK)' -x
complete -c fdkit -n '__fdkit_at serve' -l bind-to-device -d 'take connections of network interface NAME only (SO_BINDTODEVICE)' -x
complete -c fdkit -n '__fdkit_at serve' -l v6only -d 'let :PORT be for IPv6 only (IPV6_V6ONLY)'
complete -c fdkit -n '__fdkit_at serve' -l rcvbuf -d 'have receive buffers of BYTES (SO_RCVBUF)' -x
complete -c fdkit -n '__fdkit_at serve' -l sndbuf -d 'have send buffers of BYTES (SO_SNDBUF)' -x
complete -c fdkit -n '__fdkit_at serve' -l sockopt -d 'set any other socket option, LEVEL:NAME:VALUE, such as tcp:TCP_USER_TIMEOUT:5000' -x
complete -c fdkit -n '__fdkit_at serve' -s n -d 'run at most SLOTS programs at once' -x
complete -c fdkit -n '__fdkit_at serve' -l grace -d 'when told to stop, let running programs go on for at most TIME' -x
complete -c fdkit -n '__fdkit_at serve' -l per-source -d 'run at most N[/V4[,V6]] programs at once for each client address, of which V4 or V6 bits count' -x
complete -c fdkit -n '__fdkit_at serve' -l per-source-message -d 'write TEXT to clients whom --per-source refuses' -x
complete -c fdkit -n '__fdkit_at serve' -l timeout -d 'end programs that have run for TIME' -x
complete -c fdkit -n '__fdkit_at serve' -l idle-timeout -d 'end programs over whose connection nothing has gone for TIME' -x
complete -c fdkit -n '__fdkit_at serve' -l first-byte-timeout -d 'end programs whose client has sent nothing for TIME after the start' -x
complete -c fdkit -n '__fdkit_at serve' -l queue-timeout -d 'close connections that have waited for TIME before they are received, or whose client has gone' -x
complete -c fdkit -n '__fdkit_at serve' -l chdir -d 'make DIR the working directory of programs' -r -F
complete -c fdkit -n '__fdkit_at serve' -l nice -d 'run programs with priority N from -20, the best, to 19' -x
complete -c fdkit -n '__fdkit_at serve' -l umask -d 'run programs with the umask BITS' -x
complete -c fdkit -n '__fdkit_at serve' -l limit -d 'limit a resource of each program: NAME=SOFT[:HARD], such as nofile=64' -r -F
complete -c fdkit -n '__fdkit_at serve' -l clean-env -d 'let programs inherit no variables but those of --env'
complete -c fdkit -n '__fdkit_at serve' -l env -d 'give programs the variable NAME[=VALUE], without a value as it is here' -r -F
complete -c fdkit -n '__fdkit_at serve' -l user -d 'after binding, run as USER[:GROUP], with the user\'s supplementary groups unless GROUP is given' -x -a '(__fdkit_user)'
complete -c fdkit -n '__fdkit_at serve' -l group -d 'after binding, run with GROUP[,GROUP...], the first as its own group' -r -F
complete -c fdkit -n '__fdkit_at serve' -l chroot -d 'after binding, make DIR the root directory' -r -F
complete -c fdkit -n '__fdkit_at serve' -l no-new-privs -d 'after binding, get no privileges by set-user-ID bits and the like'
complete -c fdkit -n '__fdkit_at serve' -l accept-env -d 'let the program have variable NAME if it comes with the connection; a * at the end stands for anything' -x
complete -c fdkit -n '__fdkit_at serve' -l dialect -d 'also describe the connection as NAME[,NAME...] does: cgi, ncat, socat, systemd, tcp6, ucspi or xinetd' -x
complete -c fdkit -n '__fdkit_at serve' -l metrics -d 'tell Prometheus what happens, at http://ADDRESS/metrics' -r -F -a 'unix: tcp: tcp4: tcp6: fd: systemd:'
complete -c fdkit -n '__fdkit_at serve' -s v -d 'say everything that happens'
complete -c fdkit -n '__fdkit_at serve' -s Q -d 'say errors only; the default'
complete -c fdkit -n '__fdkit_at serve' -s q -d 'say nothing'
complete -c fdkit -n '__fdkit_at serve' -l log -d 'write the log as FORMAT: text, or json with an object for each line' -x -a 'text json'
complete -c fdkit -n '__fdkit_at serve' -l log-anonymize -d 'shorten the addresses of clients in the log'
complete -c fdkit -n '__fdkit_at serve' -l help -s h -d 'show help'
complete -c fdkit -n '__fdkit_address serve' -a 'unix: tcp: tcp4: tcp6: fd: systemd:'
complete -c fdkit -n '__fdkit_address serve; and string match -q "unix:*" -- (commandline -ct)' -F
complete -c fdkit -n '__fdkit_addressed serve' -a '(__fdkit_after_addresses serve)'

complete -c fdkit -n '__fdkit_at merge' -l from -d 'receive from QUEUE instead of stdin' -r -F -a 'unix: unix-listen: unix-seqpacket: unix-seqpacket-listen: unix-dgram: fd:'
complete -c fdkit -n '__fdkit_at merge' -l wait -d 'wait at most TIME for somebody else to make the queue' -x
complete -c fdkit -n '__fdkit_at merge' -l frame -d 'keep together what KIND says: line, or length[=N], blocks after N bytes of length' -r -F
complete -c fdkit -n '__fdkit_at merge' -l end -d 'end when a client sends LINE' -r -F
complete -c fdkit -n '__fdkit_at merge' -l idle -d 'end when no client was there for TIME' -x
complete -c fdkit -n '__fdkit_at merge' -l max-line -d 'close clients whose lines have more than SIZE bytes' -r -F
complete -c fdkit -n '__fdkit_at merge' -l max-held -d 'hold at most about SIZE bytes of unfinished lines' -r -F
complete -c fdkit -n '__fdkit_at merge' -l mode -d 'permission BITS of a named queue that is made: who may write may attach' -x
complete -c fdkit -n '__fdkit_at merge' -l owner -d 'USER[:GROUP] that owns a named queue that is made, and whose queue is trusted' -x -a '(__fdkit_user)'
complete -c fdkit -n '__fdkit_at merge' -s v -d 'say everything that happens'
complete -c fdkit -n '__fdkit_at merge' -s Q -d 'say errors only; the default'
complete -c fdkit -n '__fdkit_at merge' -s q -d 'say nothing'
complete -c fdkit -n '__fdkit_at merge' -l log -d 'write the log as FORMAT: text, or json with an object for each line' -x -a 'text json'
complete -c fdkit -n '__fdkit_at merge' -l log-anonymize -d 'shorten the addresses of clients in the log'
complete -c fdkit -n '__fdkit_at merge' -l help -s h -d 'show help'
complete -c fdkit -n '__fdkit_operand merge' -F

complete -c fdkit -n '__fdkit_at grab' -l to -d 'without PROGRAM: send to QUEUE instead of stdout' -r -F -a 'unix: unix-listen: unix-seqpacket: unix-seqpacket-listen: unix-dgram: fd:'
complete -c fdkit -n '__fdkit_at grab' -l fd -d 'place the descriptor at N[,N...], or each of several at its own N' -x
complete -c fdkit -n '__fdkit_at grab' -l name -d 'call the next descriptor NAME; one for each, in order' -x
complete -c fdkit -n '__fdkit_at grab' -l blocking -d 'clear O_NONBLOCK, for the other process too'
complete -c fdkit -n '__fdkit_at grab' -l mode -d 'permission BITS of a named queue that is made: who may write may attach' -x
complete -c fdkit -n '__fdkit_at grab' -l owner -d 'USER[:GROUP] that owns a named queue that is made, and whose queue is trusted' -x -a '(__fdkit_user)'
complete -c fdkit -n '__fdkit_at grab' -s v -d 'say everything that happens'
complete -c fdkit -n '__fdkit_at grab' -s Q -d 'say errors only; the default'
complete -c fdkit -n '__fdkit_at grab' -s q -d 'say nothing'
complete -c fdkit -n '__fdkit_at grab' -l log -d 'write the log as FORMAT: text, or json with an object for each line' -x -a 'text json'
complete -c fdkit -n '__fdkit_at grab' -l help -s h -d 'show help'
complete -c fdkit -n '__fdkit_operand grab' -a '(__fdkit_program)'

complete -c fdkit -n '__fdkit_at inspect' -l json -d 'print an object of JSON for each descriptor, with all that is known'
complete -c fdkit -n '__fdkit_at inspect' -s v -d 'print all that is known, a line for each fact'
complete -c fdkit -n '__fdkit_at inspect' -l help -s h -d 'show help'
complete -c fdkit -n '__fdkit_operand inspect' -a '(__fish_complete_pids)'

complete -c fdkit -n '__fdkit_at who' -l json -d 'print an object of JSON for each thing that is held'
complete -c fdkit -n '__fdkit_at who' -l help -s h -d 'show help'
complete -c fdkit -n '__fdkit_operand who' -a '(__fish_complete_pids)'

complete -c fdkit -n '__fdkit_at queue' -l all -d 'show every socket with descriptors in flight, of all processes'
complete -c fdkit -n '__fdkit_at queue' -s v -d 'with --all: also show sockets with bytes in flight and no descriptors'
complete -c fdkit -n '__fdkit_at queue' -l json -d 'print an object of JSON for each socket, with all that is known'
complete -c fdkit -n '__fdkit_at queue' -l help -s h -d 'show help'
complete -c fdkit -n '__fdkit_operand queue' -F

complete -c fdkit -n '__fdkit_at torture' -l case -d 'try only this CASE, and before it the base case' -r -F
complete -c fdkit -n '__fdkit_at torture' -l json -d 'print an object of JSON for each case'
complete -c fdkit -n '__fdkit_at torture' -l list -d 'list the cases and try none'
complete -c fdkit -n '__fdkit_at torture' -l mode -d 'permission BITS of the socket of unix-listen:' -x
complete -c fdkit -n '__fdkit_at torture' -l owner -d 'USER[:GROUP] that owns the socket of unix-listen:, and whose named queue is trusted' -x -a '(__fdkit_user)'
complete -c fdkit -n '__fdkit_at torture' -l rounds -d 'try all N times, each with other bytes' -x
complete -c fdkit -n '__fdkit_at torture' -l run -d 'start a program for each case; the operands are the program'
complete -c fdkit -n '__fdkit_at torture' -l seed -d 'make the bytes, and the order of further rounds, from N' -x
complete -c fdkit -n '__fdkit_at torture' -l sender -d 'the peer sends: try the cases for senders'
complete -c fdkit -n '__fdkit_at torture' -l skip -d 'do not try this CASE' -r -F
complete -c fdkit -n '__fdkit_at torture' -l timeout -d 'give the peer TIME for each step of a case' -x
complete -c fdkit -n '__fdkit_at torture' -l type -d 'with --run: TYPE of the socket, stream or seqpacket' -r -F
complete -c fdkit -n '__fdkit_at torture' -s v -d 'tell of each case what was sent and seen'
complete -c fdkit -n '__fdkit_at torture' -l wait -d 'wait at most TIME for the peer to listen, or to connect' -x
complete -c fdkit -n '__fdkit_at torture' -l help -s h -d 'show help'
complete -c fdkit -n '__fdkit_operand torture' -a '(__fdkit_program)'

complete -c fdkit -n '__fdkit_at doctor' -l json -d 'print an object of JSON for each check'
complete -c fdkit -n '__fdkit_at doctor' -l pid -d 'look at the limits and the confinement of process PID' -x -a '(__fish_complete_pids)'
complete -c fdkit -n '__fdkit_at doctor' -l sndbuf -d 'measure a queue with an SO_SNDBUF of BYTES' -x
complete -c fdkit -n '__fdkit_at doctor' -l user -d 'count what is in flight of USER' -x -a '(__fdkit_user)'
complete -c fdkit -n '__fdkit_at doctor' -s v -d 'print all checks, also those that have found nothing'
complete -c fdkit -n '__fdkit_at doctor' -l help -s h -d 'show help'
complete -c fdkit -n '__fdkit_operand doctor' -F

complete -c fdkit -n '__fdkit_at tap' -l from -d 'receive from QUEUE instead of stdin' -r -F -a 'unix: unix-listen: unix-seqpacket: unix-seqpacket-listen: unix-dgram: fd:'
complete -c fdkit -n '__fdkit_at tap' -l to -d 'send to QUEUE instead of stdout' -r -F -a 'unix: unix-listen: unix-seqpacket: unix-seqpacket-listen: unix-dgram: fd:'
complete -c fdkit -n '__fdkit_at tap' -l wait -d 'wait at most TIME for somebody else to make the queue of --from' -x
complete -c fdkit -n '__fdkit_at tap' -l decode -d 'explain what is said in dialect NAME' -x
complete -c fdkit -n '__fdkit_at tap' -l json -d 'write an object of JSON for each message'
complete -c fdkit -n '__fdkit_at tap' -l hex -d 'write payloads in hexadecimal, as hexdump -C does'
complete -c fdkit -n '__fdkit_at tap' -l bytes -d 'write at most N bytes of each payload' -x
complete -c fdkit -n '__fdkit_at tap' -l output -d 'append to FILE what is to be shown, instead of writing it to stderr' -r -F
complete -c fdkit -n '__fdkit_at tap' -l mode -d 'permission BITS of a queue or socket that is made: who may write may attach or connect' -x
complete -c fdkit -n '__fdkit_at tap' -l owner -d 'USER[:GROUP] that owns a queue or socket that is made' -x -a '(__fdkit_user)'
complete -c fdkit -n '__fdkit_at tap' -s v -d 'say everything that happens'
complete -c fdkit -n '__fdkit_at tap' -s Q -d 'say errors only; the default'
complete -c fdkit -n '__fdkit_at tap' -s q -d 'say nothing'
complete -c fdkit -n '__fdkit_at tap' -l log -d 'write the log as FORMAT: text, or json with an object for each line' -x -a 'text json'
complete -c fdkit -n '__fdkit_at tap' -l help -s h -d 'show help'
complete -c fdkit -n '__fdkit_operand tap' -F

complete -c fdkit -n '__fdkit_at route' -l by -d 'go by KEY' -r -F
complete -c fdkit -n '__fdkit_at route' -l to -d 'send connections whose key matches to a queue: PATTERN=QUEUE, * being the default route' -r -F
complete -c fdkit -n '__fdkit_at route' -l from -d 'receive from QUEUE instead of stdin' -r -F -a 'unix: unix-listen: unix-seqpacket: unix-seqpacket-listen: unix-dgram: fd:'
complete -c fdkit -n '__fdkit_at route' -l consume -d 'take the key from the stream, so that the program does not see it'
complete -c fdkit -n '__fdkit_at route' -l silent -d 'send clients who have sent nothing when their time is up to QUEUE' -r -F -a 'unix: unix-listen: unix-seqpacket: unix-seqpacket-listen: unix-dgram: fd:'
complete -c fdkit -n '__fdkit_at route' -l timeout -d 'close connections whose key is not there after TIME' -x
complete -c fdkit -n '__fdkit_at route' -l max-waiting -d 'let at most N connections wait' -x
complete -c fdkit -n '__fdkit_at route' -l max-bytes -d 'look for the key in the first N bytes' -x
complete -c fdkit -n '__fdkit_at route' -l wait -d 'wait at most TIME for somebody else to make the queue of --from' -x
complete -c fdkit -n '__fdkit_at route' -l metrics -d 'tell Prometheus what happens, at http://ADDRESS/metrics' -r -F -a 'unix: tcp: tcp4: tcp6: fd: systemd:'
complete -c fdkit -n '__fdkit_at route' -l mode -d 'permission BITS of a named queue that is made: who may write may attach' -x
complete -c fdkit -n '__fdkit_at route' -l owner -d 'USER[:GROUP] that owns a named queue that is made, and whose queue is trusted' -x -a '(__fdkit_user)'
complete -c fdkit -n '__fdkit_at route' -s v -d 'say everything that happens'
complete -c fdkit -n '__fdkit_at route' -s Q -d 'say errors only; the default'
complete -c fdkit -n '__fdkit_at route' -s q -d 'say nothing'
complete -c fdkit -n '__fdkit_at route' -l log -d 'write the log as FORMAT: text, or json with an object for each line' -x -a 'text json'
complete -c fdkit -n '__fdkit_at route' -l log-anonymize -d 'shorten the addresses of clients in the log'
complete -c fdkit -n '__fdkit_at route' -l help -s h -d 'show help'
complete -c fdkit -n '__fdkit_operand route' -F

complete -c fdkit -n '__fdkit_at completion' -l help -s h -d 'show help'
complete -c fdkit -n '__fdkit_operand completion first' -a 'bash zsh fish'
