// Greets each client and says again what it says, one client after the other: cc -o worker worker.c
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
int main(void) {
	char *number = getenv("FDKIT_QUEUE_FD"), payload[3777], data[65536], *p;
	union { struct cmsghdr h; char room[CMSG_SPACE(253 * sizeof(int))]; } control;
	for (;;) {
		struct iovec iov = {payload, sizeof payload - 1};
		struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
		ssize_t n = recvmsg(number ? atoi(number) : 0, &m, MSG_CMSG_CLOEXEC);
		if (n < 0) return perror("recvmsg"), 111;
		struct cmsghdr *c = CMSG_FIRSTHDR(&m);
		int *fds = c ? (int *)CMSG_DATA(c) : NULL, count = c ? (c->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;
		if (n == 0 && count == 0) return 0; // the end of the queue
		for (p = payload, payload[n] = 0; p < payload + n && strncmp(p, "TCPREMOTEIP=", 12); p += strlen(p) + 1);
		if (m.msg_flags & MSG_CTRUNC) fprintf(stderr, "a connection is lost on the way\n");
		else if (count > 0) { // blocking, whatever it was before
			fcntl(fds[0], F_SETFL, fcntl(fds[0], F_GETFL) & ~O_NONBLOCK);
			for (n = sprintf(data, "hello %s\n", p < payload + n ? p + 12 : "?"); n > 0; n = read(fds[0], data, sizeof data))
				for (ssize_t sent = 0, k = 0; sent < n && k >= 0; sent += k)
					k = send(fds[0], data + sent, n - sent, MSG_NOSIGNAL);
		}
		while (count > 0) close(fds[--count]);
	}
}
