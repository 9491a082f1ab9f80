function burn_hot(n) {
	let s = 0;
	for (let i = 0; i < n; i++) s += (i * i) % 7;
	return s;
}
function burn_middle(n) { return burn_hot(n) + 1; }
function burn_main() {
	const end = Date.now() + 8000;
	let x = 0;
	while (Date.now() < end) x += burn_middle(20000);
	return x;
}
burn_main();
