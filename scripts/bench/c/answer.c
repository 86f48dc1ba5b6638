/* A resident worker: receives connections on descriptor 0, and sends back the one line
 * that comes over each. It ends when its queue does. */
#include <err.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(void)
{
	for (;;) {
		char b[512];
		union {
			struct cmsghdr header;
			char bytes[CMSG_SPACE(sizeof(int))];
		} control;
		struct iovec iov = {b, 1}; /* the rest of the payload is cut off */
		struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1,
			.msg_control = &control, .msg_controllen = sizeof control};
		ssize_t n = recvmsg(0, &m, MSG_CMSG_CLOEXEC);
		if (n < 0)
			err(111, "recvmsg");
		if (n == 0)
			return 0;
		int c;
		if (!CMSG_FIRSTHDR(&m))
			continue;
		memcpy(&c, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof c);
		size_t got = 0;
		while (got < sizeof b && (n = read(c, b + got, sizeof b - got)) > 0) {
			got += n;
			if (memchr(b, '\n', got))
				break;
		}
		if (write(c, b, got) < 0)
			warn("write");
		close(c);
	}
}
