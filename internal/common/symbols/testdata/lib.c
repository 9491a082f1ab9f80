int visible(int x) { return x + 1; }
extern int alias(int x) __attribute__((alias("visible")));
extern int __alias(int x) __attribute__((alias("visible")));
__attribute__((noinline)) static int hidden(int x) { return x * 3; }
int uses(int x) { return hidden(x) + visible(x); }

/* Without a size, as assembler often is. */
__asm__(".text\n"
	".globl sizeless\n"
	"sizeless:\n"
	"	ret\n"
	"	nop\n"
	"	nop\n"
	"	nop\n"
	".globl sized\n"
	".type sized, %function\n"
	"sized:\n"
	"	nop\n"
	"inside:\n"
	"	nop\n"
	"	ret\n"
	".size sized, .-sized\n");
