/* The worker of epollworker/main.go in C, without its care for slow readers and for limits:
 * it answers each question of 64 bytes with the same 64.
 *
 *	cc -O2 -o epollworker scripts/examples/epollworker.c
 *	fdkit listen :9000 | fdkit pool --resident -n 8 ./epollworker
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static int listens;

/* The next connection, or -1 if there is none now, or -2 at the end of the queue. */
static int next(void)
{
	if (listens)
		return accept4(0, NULL, NULL, SOCK_CLOEXEC);
	char byte, control[CMSG_SPACE(sizeof(int))];
	struct iovec io = { &byte, 1 };
	struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	ssize_t n = recvmsg(0, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	return n == 0 ? -2 : n < 0 || !c || c->cmsg_type != SCM_RIGHTS ? -1 : *(int *)CMSG_DATA(c);
}

int main(void)
{
	int ep = epoll_create1(EPOLL_CLOEXEC), open = 0, ended = 0;
	getsockopt(0, SOL_SOCKET, SO_ACCEPTCONN, &listens, &(socklen_t){ sizeof listens });
	if (listens)
		fcntl(0, F_SETFL, O_NONBLOCK); /* another worker may be faster */
	struct epoll_event e = { .events = EPOLLIN | (listens ? EPOLLEXCLUSIVE : 0) }, events[256];
	if (ep < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, 0, &e) < 0)
		err(111, "epoll");
	while (!ended || open > 0)
		for (int n = epoll_wait(ep, events, 256, -1), i = 0; i < n; i++) {
			int fd = events[i].data.fd;
			if (fd == 0) {
				e = (struct epoll_event){ .events = EPOLLIN, .data.fd = next() };
				if (e.data.fd == -2)
					ended = 1, epoll_ctl(ep, EPOLL_CTL_DEL, 0, NULL);
				else if (e.data.fd > 0 && epoll_ctl(ep, EPOLL_CTL_ADD, e.data.fd, &e) == 0)
					open++;
				continue;
			}
			char question[64];
			if (recv(fd, question, 64, MSG_WAITALL) == 64 && send(fd, question, 64, MSG_NOSIGNAL) == 64)
				continue;
			close(fd);
			open--;
		}
	exit(0);
}
