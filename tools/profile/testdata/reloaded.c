// A library whose frames are of another size in each build; NAME is that of its inner function.
#include <string.h>

static volatile unsigned sink;

__attribute__((noinline)) void NAME(unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		sink += i;
	__asm__ volatile("" ::: "memory");
}

__attribute__((noinline)) void enter(unsigned n)
{
	char buffer[SIZE];

	memset(buffer, 1, sizeof(buffer));
	__asm__ volatile("" ::"r"(buffer) : "memory");
	NAME(n);
	sink += buffer[sink % sizeof(buffer)];
}
