#include <stdio.h>
#include <string.h>
#include <stdlib.h>

__attribute__((noinline)) static int local(int x) { return x * 7; }
int global(int x) { return local(x) + 1; }

static int add(int x) { return x + 1; }
static void *choose(void) { return add; }
int chosen(int) __attribute__((ifunc("choose")));

int main(int argc, char **argv)
{
	char buf[64];
	char *(*copy)(char *, const char *) = strcpy;

	qsort(buf, sizeof(buf), 1, (int (*)(const void *, const void *))strcmp);
	copy(buf, argv[0]);
	printf("%d %s\n", global(argc) + chosen(argc), getenv(buf));
	return 0;
}
