public class Burn {
	static long burn_hot(int n) {
		long s = 0;
		for (int i = 0; i < n; i++)
			s += (long) i * i % 7;
		return s;
	}

	static long burn_middle(int n) {
		return burn_hot(n) + 1;
	}

	static void burn_main() {
		long end = System.currentTimeMillis() + 8000, x = 0;
		while (System.currentTimeMillis() < end)
			x += burn_middle(20000);
		System.out.println(x);
	}

	public static void main(String[] args) {
		burn_main();
	}
}
