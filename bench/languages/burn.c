#include <time.h>

__attribute__((noinline)) long burn_hot(int n)
{
	long s = 0;

	for (int i = 0; i < n; i++)
		s += (long)i * i % 7;
	return s;
}

__attribute__((noinline)) long burn_middle(int n)
{
	return burn_hot(n) + 1;
}

__attribute__((noinline)) long burn_main(void)
{
	time_t end = time(NULL) + 8;
	long x = 0;

	while (time(NULL) < end)
		x += burn_middle(20000);
	return x;
}

int main(void)
{
	return burn_main() == 1;
}
