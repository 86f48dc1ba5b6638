/* spawner PROCESSES IP PORT PROGRAM
 *
 * Accepts connections and starts the program on each, in so many processes that share
 * the listening socket: what accepting and starting cost at the least. */
#include <arpa/inet.h>
#include <err.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc != 5)
		errx(100, "usage: spawner PROCESSES IP PORT PROGRAM");
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[3]))};
	a.sin_addr.s_addr = inet_addr(argv[2]);
	int on = 1, l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (l < 0 || setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
	    bind(l, (struct sockaddr *)&a, sizeof a) < 0 || listen(l, 4096) < 0)
		err(111, "cannot listen");
	signal(SIGCHLD, SIG_IGN); /* the kernel reaps, sigaction(2) */
	for (int i = 1; i < atoi(argv[1]); i++)
		if (fork() == 0)
			break;
	for (;;) {
		int c = accept4(l, 0, 0, SOCK_CLOEXEC);
		if (c < 0)
			err(111, "accept4");
		pid_t pid = vfork();
		if (pid == 0) {
			signal(SIGCHLD, SIG_DFL); /* the child's own, CLONE_SIGHAND is not set */
			dup2(c, 0);
			dup2(c, 1);
			execl(argv[4], argv[4], (char *)0);
			_exit(127);
		}
		if (pid < 0)
			err(111, "vfork");
		close(c);
	}
}
