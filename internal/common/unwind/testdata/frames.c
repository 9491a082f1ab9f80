/* Functions whose frames differ in how they are laid out. Nothing runs them. */
#include <stdarg.h>

void *alloca(unsigned long);
int elsewhere(void *, int);

#define NOINLINE __attribute__((noinline))

NOINLINE int leaf(int a)
{
	return a * 3 + 1;
}

NOINLINE int small(int a)
{
	int b[4] = { a };

	return elsewhere(b, leaf(a)) + b[1];
}

NOINLINE int large(int a)
{
	char b[100000];

	b[a] = 1;
	return elsewhere(b, a) + b[99999 - a];
}

NOINLINE int dynamic(int a)
{
	char *b = alloca(a * 16);

	return elsewhere(b, a) + b[0];
}

NOINLINE int aligned(int a)
{
	char b[64] __attribute__((aligned(64)));

	b[a] = 2;
	return elsewhere(b, a) + b[1];
}

NOINLINE int aligned_dynamic(int a, int b, int c, int d, int e, int f, int g)
{
	char h[64] __attribute__((aligned(64)));
	char *i = alloca(a * 16);

	h[a] = 2;
	return elsewhere(h, b + c) + elsewhere(i, d + e + f + g) + h[1] + i[0];
}

NOINLINE int variadic(int a, ...)
{
	va_list list;
	int sum = a;

	va_start(list, a);
	for (int i = 0; i < a; i++)
		sum += elsewhere(&list, va_arg(list, int));
	va_end(list);
	return sum;
}

NOINLINE int early(int a, int b)
{
	if (a < 0)
		return b;
	for (int i = 0; i < a; i++) {
		int c[8] = { i };

		if (elsewhere(c, b) == 3)
			return c[2];
		b += c[1];
	}
	return elsewhere(&b, a) + b;
}

NOINLINE int tail(int a)
{
	small(a);
	return variadic(2, a, small(a + 1));
}

__attribute__((noreturn, noinline)) void never(int a)
{
	for (;;)
		elsewhere(&a, large(a));
}

NOINLINE double floating(double a, double b, double c, double d)
{
	double e = elsewhere(&a, 1), f = elsewhere(&b, 2);

	return a * b + c * d + e * f;
}

int all(int a)
{
	if (a == 77)
		never(a);
	return leaf(a) + small(a) + large(a) + dynamic(a) + aligned(a) +
	       aligned_dynamic(1, 2, 3, 4, 5, 6, a) + variadic(3, a, a, a) + early(a, 2) + tail(a) +
	       (int)floating(a, a, a, a);
}
