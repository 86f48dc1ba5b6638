/* handover RECEIVERS IP PORT PROGRAM
 *
 * Accepts connections and hands each over with SCM_RIGHTS, over a SEQPACKET pair, to the
 * first of the receivers that is free, which starts the program on it: the limit of what
 * fdkit listen | fdkit pool can reach. */
#include <arpa/inet.h>
#include <err.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct message {
	char byte;
	struct iovec iov;
	struct msghdr header;
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
};

static void prepare(struct message *m)
{
	m->byte = 'x';
	m->iov = (struct iovec){&m->byte, 1};
	m->header = (struct msghdr){.msg_iov = &m->iov, .msg_iovlen = 1,
		.msg_control = m->control.bytes, .msg_controllen = sizeof m->control.bytes};
}

static void receive(int queue, char *program)
{
	struct message m;
	for (;;) {
		prepare(&m);
		ssize_t n = recvmsg(queue, &m.header, MSG_CMSG_CLOEXEC);
		if (n < 0)
			err(111, "recvmsg");
		if (n == 0)
			exit(0);
		int c;
		memcpy(&c, CMSG_DATA(CMSG_FIRSTHDR(&m.header)), sizeof c);
		pid_t pid = vfork();
		if (pid == 0) {
			signal(SIGCHLD, SIG_DFL); /* the child's own, CLONE_SIGHAND is not set */
			dup2(c, 0);
			dup2(c, 1);
			execl(program, program, (char *)0);
			_exit(127);
		}
		if (pid < 0)
			err(111, "vfork");
		close(c);
	}
}

int main(int argc, char **argv)
{
	if (argc != 5)
		errx(100, "usage: handover RECEIVERS IP PORT PROGRAM");
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[3]))};
	a.sin_addr.s_addr = inet_addr(argv[2]);
	int on = 1, queue[2], l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (l < 0 || setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
	    bind(l, (struct sockaddr *)&a, sizeof a) < 0 || listen(l, 4096) < 0)
		err(111, "cannot listen");
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, queue) < 0)
		err(111, "socketpair");
	signal(SIGCHLD, SIG_IGN); /* the kernel reaps, sigaction(2) */
	for (int i = 0; i < atoi(argv[1]); i++)
		if (fork() == 0) {
			close(queue[0]);
			close(l);
			receive(queue[1], argv[4]);
		}
	close(queue[1]);
	struct message m;
	for (;;) {
		int c = accept4(l, 0, 0, SOCK_CLOEXEC);
		if (c < 0)
			err(111, "accept4");
		prepare(&m);
		struct cmsghdr *h = CMSG_FIRSTHDR(&m.header);
		*h = (struct cmsghdr){CMSG_LEN(sizeof c), SOL_SOCKET, SCM_RIGHTS};
		memcpy(CMSG_DATA(h), &c, sizeof c);
		if (sendmsg(queue[0], &m.header, MSG_NOSIGNAL) < 0)
			err(111, "sendmsg");
		close(c);
	}
}
