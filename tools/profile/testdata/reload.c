// Loads a library, burns CPU time in it, and unloads it; then another one at the same place, again and again.
#include <dlfcn.h>
#include <stdlib.h>

typedef void burn(unsigned n);

int main(int argc, char **argv)
{
	for (int i = 0;; i++) {
		void *lib = dlopen(argv[1 + i % (argc - 1)], RTLD_NOW);

		if (!lib)
			return 1;
		// Some are there for as long as it takes to be known.
		((burn *)dlsym(lib, "enter"))(i % 7 ? 10000000 : 200000000);
		dlclose(lib);
	}
}
