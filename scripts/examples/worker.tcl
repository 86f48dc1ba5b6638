#!/usr/bin/env tclsh
# Greets each client and says again what it says, all clients at once, each in a coroutine. Tcl
# itself receives no descriptors, so critcl (Debian has it) compiles some C at the start.
package require critcl; critcl::tcl 8.6; critcl::ccode { #include <sys/socket.h> }
critcl::cache [set cache [exec mktemp -d]] ;# one that is shared breaks if two compile at once
critcl::ccommand receive {data interp objc objv} { // room for one: the kernel closes what else comes
    char payload[3776], control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8)));
    struct iovec iov = {payload, sizeof payload};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = CMSG_LEN(sizeof(int))};
    int n = recvmsg(0, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT), came = n >= 0 && CMSG_FIRSTHDR(&m);
    Tcl_Channel c = came ? Tcl_MakeTcpClientChannel((ClientData)(long)*(int *)CMSG_DATA(CMSG_FIRSTHDR(&m))) : NULL;
    if (came) Tcl_RegisterChannel(interp, c);
    Tcl_SetObjResult(interp, Tcl_ObjPrintf("%d {%s}", n, came ? Tcl_GetChannelName(c) : ""));
    return Tcl_ListObjAppendElement(interp, Tcl_GetObjResult(interp), Tcl_NewByteArrayObj(payload, n < 0 ? 0 : n));
}
critcl::load; file delete -force $cache
proc wait {channel what} { fileevent $channel $what [info coroutine]; yield; fileevent $channel $what {} }
proc serve {client text} {
    catch { for {fconfigure $client -blocking 0 -translation binary} {![eof $client]} {set text [read $client 65536]} {
        puts -nonewline $client $text; flush $client; wait $client writable; wait $client readable
    } }
    catch { close $client }; if {[incr ::open -1] == 0} exit
}
set open 1; coroutine queue apply {{} { while 1 {
    wait stdin readable; lassign [receive] n client payload; set ip "?"
    if {$n == 0 && $client eq ""} { if {[incr ::open -1] == 0} exit return } ;# the end of the queue
    if {$n > 0 && $client eq ""} { puts stderr "a connection is lost on the way" }
    regexp {\0TCPREMOTEIP=([^\0]*)\0} $payload -> ip
    if {$client ne ""} { incr ::open; coroutine $client.serve serve $client "hello $ip\n" }
} } }; vwait forever
