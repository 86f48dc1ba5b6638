/* prefork listening | reuseport | shared | private WORKERS IP PORT PROGRAM [ARGUMENT...]
 *
 * Starts workers that have as descriptor 0: the same socket that listens; each its own,
 * with SO_REUSEPORT; one queue, or each its own, over which this process hands over what
 * it accepts, to one after the other: the limit of what fdkit can reach with workers. */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <signal.h>
#include <unistd.h>

static int listener(struct sockaddr_in *a)
{
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one) < 0 ||
	    bind(fd, (struct sockaddr *)a, sizeof *a) < 0 || listen(fd, 4096) < 0)
		err(111, "listen");
	return fd;
}

static void start(int number, int fd, char **program)
{
	char text[16];
	snprintf(text, sizeof text, "%d", number);
	pid_t pid = fork();
	if (pid < 0)
		err(111, "fork");
	if (pid > 0)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setenv("FDKIT_WORKER", text, 1);
	dup2(fd, 0);
	execv(program[0], program);
	err(111, "%s", program[0]);
}

static void hand_over(int queue, int fd)
{
	char byte = 'x';
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = {&byte, 1};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	*CMSG_FIRSTHDR(&m) = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd)};
	memcpy(CMSG_DATA(CMSG_FIRSTHDR(&m)), &fd, sizeof fd);
	while (sendmsg(queue, &m, MSG_NOSIGNAL) < 0)
		if (errno == ETOOMANYREFS)
			usleep(1000);
		else
			err(111, "sendmsg");
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc < 6)
		errx(100, "usage: prefork MODE WORKERS IP PORT PROGRAM [ARGUMENT...]");
	const char *mode = argv[1];
	int workers = atoi(argv[2]), queues = 1, pair[2];
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[4]))};
	if (workers < 1 || workers > 1000 || inet_pton(AF_INET, argv[3], &a.sin_addr) != 1)
		errx(100, "wrong number of workers, or address");
	int accepts = strcmp(mode, "shared") == 0 || strcmp(mode, "private") == 0, queue[1000];
	int fd = strcmp(mode, "reuseport") == 0 ? -1 : listener(&a);
	for (int i = 0; i < workers; i++) {
		if (!accepts) {
			start(i, fd < 0 ? listener(&a) : fd, argv + 5);
			continue;
		}
		if (i == 0 || strcmp(mode, "private") == 0) {
			if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
				err(111, "socketpair");
			queue[i] = pair[0];
			queues = i + 1;
		}
		start(i, pair[1], argv + 5);
	}
	for (unsigned turn = 0;; turn++) {
		if (!accepts)
			pause();
		int c = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
		if (c < 0)
			err(111, "accept");
		hand_over(queue[turn % queues], c);
	}
}
