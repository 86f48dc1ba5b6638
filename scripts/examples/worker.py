#!/usr/bin/env python3
# Greets each client and says again what it says; a thread for each, at most 64. It asks the
# pool for connections (READY, DONE), so that those it has not touched survive its death.
import os, socket, sys, threading

queue = socket.socket(fileno=int(os.environ.get("FDKIT_QUEUE_FD", 0)))

def serve(fds, env):
    try:
        if not fds:
            raise OSError("a connection is lost on the way")
        with socket.socket(fileno=fds[0]) as client:
            fds = fds[1:]  # what else came is closed below
            client.setblocking(True)  # whoever had it before may have changed that
            client.sendall(b"hello %s\n" % env.get(b"TCPREMOTEIP", b"?"))
            while data := client.recv(65536):
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)  # as the pool still holds a copy
    except OSError as error:
        print("worker.py:", error, file=sys.stderr)
    for fd in fds:
        os.close(fd)
    queue.send(b"=".join([b"DONE", *env.get(b"FDKIT_LEASE", b"").split()]) + b"\nREADY")

queue.send(b"READY=64")
while (m := socket.recv_fds(queue, 3776, 253, socket.MSG_CMSG_CLOEXEC))[:2] != (b"", []):
    env = dict(v.split(b"=", 1) for v in m[0].split(b"\0") if b"=" in v)
    while m[2] & socket.MSG_CTRUNC and m[1]:
        os.close(m[1].pop())  # at once: there is no room for the next
    threading.Thread(target=serve, args=(m[1], env)).start()
