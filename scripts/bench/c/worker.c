/* worker [block | epoll | exclusive]
 *
 * Answers each connection's first bytes with the number of the worker and closes it, one
 * connection after the other. Descriptor 0 is a socket that listens, or a queue of
 * messages with connections. SLOW=NUMBER makes the worker of that number sleep for 50 ms
 * each time. */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static int listens;

/* Returns the next connection, -1 if there is none, and ends with the queue. */
static int next(void)
{
	if (listens)
		return accept4(0, NULL, NULL, SOCK_CLOEXEC);
	char byte;
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = {&byte, 1};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	ssize_t n = recvmsg(0, &m, MSG_CMSG_CLOEXEC);
	if (n == 0)
		exit(0);
	struct cmsghdr *c = n < 0 ? NULL : CMSG_FIRSTHDR(&m);
	if (!c || c->cmsg_type != SCM_RIGHTS)
		return -1;
	int fd;
	memcpy(&fd, CMSG_DATA(c), sizeof fd);
	return fd;
}

int main(int argc, char **argv)
{
	const char *self = getenv("FDKIT_WORKER"), *slow = getenv("SLOW");
	char answer[32], question[512];
	int length = snprintf(answer, sizeof answer, "%s\n", self ? self : "?");
	int pause = self && slow && strcmp(self, slow) == 0;
	socklen_t size = sizeof listens;
	if (getsockopt(0, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) < 0)
		err(111, "getsockopt");
	int epoll = -1;
	if (argc > 1 && strcmp(argv[1], "block") != 0) {
		struct epoll_event e = {.events = EPOLLIN};
		if (strcmp(argv[1], "exclusive") == 0)
			e.events |= EPOLLEXCLUSIVE;
		epoll = epoll_create1(EPOLL_CLOEXEC);
		if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &e) < 0 || fcntl(0, F_SETFL, O_NONBLOCK) < 0)
			err(111, "epoll");
	}
	for (;;) {
		struct epoll_event e;
		if (epoll >= 0 && epoll_wait(epoll, &e, 1, -1) < 0 && errno != EINTR)
			err(111, "epoll_wait");
		int fd = next();
		if (fd < 0)
			continue;
		if (pause)
			usleep(50000);
		if (recv(fd, question, sizeof question, 0) > 0)
			send(fd, answer, length, MSG_NOSIGNAL);
		close(fd);
	}
}
