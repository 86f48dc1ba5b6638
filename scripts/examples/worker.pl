#!/usr/bin/perl
# Greets each client and says again what it says, one client after the other. It asks for
# each (READY, DONE). Debian has Socket::MsgHdr in the package libsocket-msghdr-perl.
use strict;
use warnings;
use IO::Handle;
use Socket qw(MSG_CTRUNC SHUT_RDWR);
use Socket::MsgHdr;
use constant MSG_CMSG_CLOEXEC => 0x40000000;    # Socket has no name for it

$SIG{PIPE} = 'IGNORE';                          # a client may go at any time
open my $queue, '+<&=', $ENV{FDKIT_QUEUE_FD} // 0 or die "queue: $!\n";
while (send $queue, 'READY', 0) {
    my $m = Socket::MsgHdr->new(buflen => 3776, controllen => 1280);
    defined recvmsg($queue, $m, MSG_CMSG_CLOEXEC) or die "recvmsg: $!\n";
    my (undef, undef, $fds) = $m->cmsghdr;
    last if $m->buflen == 0 && !$fds;           # the end of the queue
    my ($client, @further) = map { IO::Handle->new_from_fd($_, '+<') // () } unpack 'i*', $fds // '';
    my %env = map { split /=/, $_, 2 } grep { /=/ } split /\0/, $m->buf;
    if ($m->flags & MSG_CTRUNC || !$client) {
        warn "a connection is lost on the way\n";
    } else {
        $client->blocking(1);                   # whoever had it before may have changed that
        $client->autoflush(1);
        print $client 'hello ', $env{TCPREMOTEIP} // '?', "\n";
        while (sysread $client, my $data, 65536) { print $client $data or last }
        shutdown $client, SHUT_RDWR;            # as the pool still holds a copy
    }
    send $queue, 'DONE', 0;                     # what came is closed here
}
