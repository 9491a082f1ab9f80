// Computes at the end of calls that go through qsort of the C library, for ever.
//
// Usage: recurse LEVELS
//
// A level is four frames: call, qsort_r, the library's msort_with_tmp, and left or right.
#define _GNU_SOURCE
#include <stdlib.h>

static volatile unsigned long sink;
static unsigned path;

__attribute__((noinline)) static void hot(void)
{
	unsigned long x = sink;

	for (int i = 0; i < 200000; i++)
		x = x * 6364136223846793005 + 1442695040888963407;
	sink = x;
}

static void call(long levels);

__attribute__((noinline)) static int left(const void *a, const void *b, void *levels)
{
	call((long)levels - 1);
	return *(const int *)a - *(const int *)b;
}

__attribute__((noinline)) static int right(const void *a, const void *b, void *levels)
{
	call((long)levels - 1);
	return *(const int *)b - *(const int *)a;
}

__attribute__((noinline)) static void call(long levels)
{
	int two[2] = { 1, 2 };

	if (levels <= 0) {
		hot();
		sink++;
		return;
	}
	qsort_r(two, 2, sizeof(two[0]), path >> levels & 1 ? left : right, (void *)levels);
	sink += two[0];
}

int main(int argc, char **argv)
{
	for (;; path += 2)
		call(argc > 1 ? atol(argv[1]) : 7);
}
