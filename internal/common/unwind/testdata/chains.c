// Programs whose every chain of calls is known: chains WHAT DEPTH burns CPU time at the end of one.
#define _GNU_SOURCE
#include <alloca.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PLAIN __attribute__((noinline, noclone))
#define AFTER __asm__ volatile("" ::: "memory") // so that a call is not the last thing that is done

static volatile unsigned sink;

PLAIN void spin(void)
{
	for (unsigned i = 0; i < SPINS; i++)
		sink += i;
	AFTER;
}

PLAIN int chain(int n)
{
	if (n <= 1)
		spin();
	else
		sink += chain(n - 1);
	AFTER;
	return n;
}

static int left;
static PLAIN int compare(const void *a, const void *b);

PLAIN int sort(void)
{
	int v[2] = {1, 2};

	if (left-- <= 0)
		spin();
	else
		qsort(v, 2, sizeof(v[0]), compare);
	AFTER;
	return v[0];
}

static PLAIN int compare(const void *a, const void *b)
{
	sink += sort();
	AFTER;
	return *(int *)a - *(int *)b;
}

PLAIN void with_alloca(int n)
{
	char *p = alloca(n * 16);

	memset(p, n, n * 16);
	if (n > 1)
		with_alloca(n - 1);
	else
		spin();
	sink += p[n];
}

PLAIN void aligned(int n)
{
	char buffer[64] __attribute__((aligned(64)));

	memset(buffer, n, sizeof(buffer));
	__asm__ volatile("" ::"r"(buffer) : "memory");
	with_alloca(n);
	sink += buffer[n & 63];
}

PLAIN void aligned_and_alloca(int n)
{
	char *p = alloca(n * 16);

	memset(p, n, n * 16);
	__asm__ volatile("" ::"r"(p) : "memory");
	aligned(n);
	sink += p[n];
}

PLAIN void many_arguments(int a, int b, int c, int d, int e, int f, int g, int h, int i, int j)
{
	spin();
	sink += a + b + c + d + e + f + g + h + i + j;
}

PLAIN void last(void) { spin(); AFTER; }
PLAIN void tail_call(int n) { sink += n; last(); }

#ifdef __x86_64__
// The first instruction of the second function faults: the one before is not where it was called.
__asm__(".text\n"
	".type before_faulty, @function\nbefore_faulty: .cfi_startproc\nnop\nret\n.cfi_endproc\n.size before_faulty, . - before_faulty\n"
	".globl faulty\n.type faulty, @function\nfaulty: .cfi_startproc\nud2\nret\n.cfi_endproc\n.size faulty, . - faulty\n");
#else
__asm__(".text\n"
	".type before_faulty, %function\nbefore_faulty: .cfi_startproc\nnop\nret\n.cfi_endproc\n.size before_faulty, . - before_faulty\n"
	".globl faulty\n.type faulty, %function\nfaulty: .cfi_startproc\nudf #0\nret\n.cfi_endproc\n.size faulty, . - faulty\n");
#endif
void faulty(void);

static void handler(int sig)
{
	spin();
	AFTER;
	_exit(0);
}

PLAIN void interrupted(int n)
{
	if (n > 1)
		interrupted(n - 1);
	else
		faulty();
	AFTER;
}

PLAIN void catch_signals(int flags)
{
	struct sigaction act = {.sa_handler = handler, .sa_flags = flags};
	stack_t stack = {.ss_sp = malloc(1 << 16), .ss_size = 1 << 16};

	sigaltstack(&stack, NULL);
	sigaction(SIGILL, &act, NULL);
}

static PLAIN void *thread(void *arg)
{
	chain((int)(long)arg);
	AFTER;
	return arg;
}

PLAIN void start_thread_and_wait(int n)
{
	pthread_t t;

	pthread_create(&t, NULL, thread, (void *)(long)n);
	pthread_join(t, NULL);
	AFTER;
}

static jmp_buf jump;

PLAIN void jumped(int n)
{
	if (setjmp(jump) == 0) {
		char *p = alloca(n * 16);

		sink += p[0];
		longjmp(jump, 1);
	}
	chain(n);
	AFTER;
}

// Through the PLT, again and again.
PLAIN void library_calls(void)
{
	for (unsigned i = 0; i < SPINS / 16; i++)
		sink += abs((int)i) + ffs((int)i);
	AFTER;
}

PLAIN void system_calls(void)
{
	for (unsigned i = 0; i < SPINS / 256; i++)
		sink += getppid();
	AFTER;
}

int main(int argc, char **argv)
{
	const char *what = argv[1];
	int n = atoi(argv[2]);

	if (!strcmp(what, "chain"))
		chain(n);
	else if (!strcmp(what, "qsort")) {
		left = n;
		sort();
	} else if (!strcmp(what, "alloca"))
		with_alloca(n);
	else if (!strcmp(what, "aligned"))
		aligned_and_alloca(n);
	else if (!strcmp(what, "arguments"))
		many_arguments(1, 2, 3, 4, 5, 6, 7, 8, 9, n);
	else if (!strcmp(what, "tail"))
		tail_call(n);
	else if (!strcmp(what, "signal")) {
		catch_signals(0);
		interrupted(n);
	} else if (!strcmp(what, "altstack")) {
		catch_signals(SA_ONSTACK);
		interrupted(n);
	} else if (!strcmp(what, "thread"))
		start_thread_and_wait(n);
	else if (!strcmp(what, "setjmp"))
		jumped(n);
	else if (!strcmp(what, "plt"))
		library_calls();
	else if (!strcmp(what, "syscall"))
		system_calls();
	AFTER;
	return 0;
}
