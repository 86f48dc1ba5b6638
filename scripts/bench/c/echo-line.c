/* Sends back one line, and ends: the least that a program can do for a connection.
 * It has no C library, whose start runs some thirty CPUID instructions: in a virtual
 * machine each of them traps, which would cost more than all that is measured. */
#if defined __x86_64__
enum { SYS_READ = 0, SYS_WRITE = 1, SYS_EXIT = 60 };

static long call(long number, long a, long b, long c)
{
	long result;
	__asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
	return result;
}
#elif defined __aarch64__
enum { SYS_READ = 63, SYS_WRITE = 64, SYS_EXIT = 93 };

static long call(long number, long a, long b, long c)
{
	register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
	return x0;
}
#else
#error "its system calls are written for amd64 and arm64"
#endif

void _start(void)
{
	char b[512];
	long n = 0, got;
	while (n < (long)sizeof b && (n == 0 || b[n - 1] != '\n')) {
		got = call(SYS_READ, 0, (long)(b + n), sizeof b - n);
		if (got <= 0)
			call(SYS_EXIT, 1, 0, 0);
		n += got;
	}
	call(SYS_EXIT, call(SYS_WRITE, 1, (long)b, n) != n, 0, 0);
	for (;;)
		;
}
