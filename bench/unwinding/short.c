// Computes until the process has had so many milliseconds of CPU time, and ends.
//
// Usage: short MILLISECONDS
#include <stdlib.h>
#include <time.h>

static volatile unsigned long sink;

__attribute__((noinline)) static void hot(void)
{
	for (int i = 0; i < 20000; i++)
		sink = sink * 6364136223846793005 + 1442695040888963407;
}

__attribute__((noinline)) static void burn(long ns)
{
	struct timespec t;

	do {
		hot();
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	} while (t.tv_sec * 1000000000 + t.tv_nsec < ns);
}

int main(int argc, char **argv)
{
	burn(argc > 1 ? atol(argv[1]) * 1000000 : 0);
}
