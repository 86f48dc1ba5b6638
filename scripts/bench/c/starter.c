/* starter [-m | -c IP PORT] COUNT PROGRAM [ARGUMENT...]
 *
 * Starts the program so often, one after the other, and prints for each start how long it
 * took from vfork(2) until the process had ended, and its CPU time, both in microseconds.
 * With -m the program's stdin is a SEQPACKET socket on which a message with a descriptor
 * waits; with -c a connection to IP PORT is made before each start. */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static double micros(struct timeval t) { return t.tv_sec * 1e6 + t.tv_usec; }

static void send_one(int queue, int fd)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof fd)];
	} c;
	struct iovec iov = {"x", 1};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof c};
	c.header = (struct cmsghdr){CMSG_LEN(sizeof fd), SOL_SOCKET, SCM_RIGHTS};
	memcpy(CMSG_DATA(&c.header), &fd, sizeof fd);
	if (sendmsg(queue, &m, MSG_NOSIGNAL) < 0)
		err(111, "sendmsg");
}

static pid_t start(char **program, int in)
{
	pid_t pid = vfork();
	if (pid == 0) {
		if (in >= 0)
			dup2(in, 0);
		execvp(program[0], program);
		_exit(127);
	}
	if (pid < 0)
		err(111, "vfork");
	return pid;
}

/* Waits for who listens, at most ten seconds. */
static int connected(struct sockaddr_in *a)
{
	for (int tries = 0;; tries++) {
		int c = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (c < 0)
			err(111, "socket");
		if (connect(c, (struct sockaddr *)a, sizeof *a) == 0)
			return c;
		if (errno != ECONNREFUSED || tries == 10000)
			err(111, "cannot connect");
		close(c);
		usleep(1000);
	}
}

int main(int argc, char **argv)
{
	int messages = 0, clients = 0, queue[2] = {-1, -1}, null = -1;
	struct sockaddr_in a = {.sin_family = AF_INET};
	char **arg = argv + 1;
	if (argc > 1 && !strcmp(argv[1], "-m")) {
		messages = 1;
		arg++;
		null = open("/dev/null", O_RDWR | O_CLOEXEC);
		if (null < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, queue) < 0)
			err(111, "cannot make a queue");
	} else if (argc > 3 && !strcmp(argv[1], "-c")) {
		clients = 1;
		a.sin_addr.s_addr = inet_addr(argv[2]);
		a.sin_port = htons(atoi(argv[3]));
		arg += 3;
	}
	if (!arg[0] || !arg[1])
		errx(100, "usage: starter [-m | -c IP PORT] COUNT PROGRAM [ARGUMENT...]");
	for (int i = 0, count = atoi(arg[0]); i < count; i++) {
		int c = -1, status;
		struct rusage used;
		if (messages)
			send_one(queue[0], null);
		if (clients)
			c = connected(&a);
		double begin = now();
		pid_t pid = start(arg + 1, queue[1]);
		if (wait4(pid, &status, 0, &used) < 0)
			err(111, "wait4");
		double end = now();
		if (status != 0)
			errx(111, "%s has ended with status %#x", arg[1], status);
		printf("%.1f %.0f\n", end - begin, micros(used.ru_utime) + micros(used.ru_stime));
		if (c >= 0)
			close(c);
	}
	return 0;
}
