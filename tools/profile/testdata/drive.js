// TestSVGBrowser puts this into the picture of testReport. It uses the picture as a reader
// does, and leaves what was wrong in an attribute.
addEventListener("load", () => {
	const svg = document.documentElement, details = svg.querySelector("#details");
	const wrong = [];
	const check = (what, got, want) => { if (got !== want) wrong.push(`${what}: ${got}, not ${want}`); };
	const by = (name) => Array.from(svg.querySelectorAll("#frames > *")).find((el) => el.getAttribute("aria-label").startsWith(name + ": "));
	const shown = () => Array.from(svg.querySelectorAll("#frames > *")).filter((el) => el.style.display !== "none").length;
	const focused = () => (document.activeElement.getAttribute("aria-label") || "").split(": ")[0];
	const key = (k) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key: k, bubbles: true, cancelable: true }));
	const mouse = (el, type) => el.dispatchEvent(new MouseEvent(type, { bubbles: true }));
	try {
		const all = shown();
		check("frames", all, 24);

		mouse(by("helper;a"), "mouseover");
		check("what is said", details.textContent, "helper;a: 1,234 samples, 23.53 % (23.58 % of its caller), user, /usr/lib/libfoo.so.1");

		mouse(by("helper;a"), "click");
		check("zoomed", by("helper;a").getAttribute("width"), "100%");
		check("its caller", by("serve").getAttribute("width"), "100%");
		check("what is shown", shown(), 9);
		check("focus", focused(), "helper;a");
		key("ArrowDown");
		check("down", focused(), "entry_SYSCALL_64_after_hwframe");
		key("ArrowUp");
		key("ArrowUp");
		check("up", focused(), "std::vector<int>::push_back");
		key("Escape");
		check("all", shown(), all);
		check("the first", focused(), "all");

		key("ArrowDown");
		check("the widest", focused(), "server");
		key("ArrowLeft");
		check("left", focused(), "kworker/0:1");
		key("Enter");
		check("zoomed to a narrow one", shown(), 4);
		check("which has a name now", by("kthread").querySelector("text").textContent, "kthread");
		key("Backspace");
		check("back", shown(), all);

		key("/");
		const input = document.activeElement;
		check("search", input.localName, "input");
		const search = (text) => {
			input.value = text;
			input.dispatchEvent(new Event("input"));
		};
		search("VFS|push_back");
		check("found", details.textContent, "99.81 % of all samples (5,235) in 3 frames found");
		check("marked", svg.querySelectorAll("#frames > .found").length, 3);
		key("Enter");
		check("the first that was found", focused(), "std::vector<int>::push_back");
		key("n");
		check("the next", focused(), "vfs_read");
		search("&&(");
		check("no pattern", input.classList.contains("wrong"), true);
		check("as it is", details.textContent, "99.81 % of all samples (5,235) in 2 frames found");
		input.focus();
		key("Escape");
		check("no search", svg.querySelectorAll("#frames > .found").length, 0);

		const y = by("server").getAttribute("y"), last = by("vfs_read").getAttribute("y");
		key("i");
		check("turned", by("all").getAttribute("y") > by("server").getAttribute("y"), true);
		check("the highest", +by("vfs_read").getAttribute("y") < +last, true);
		key("i");
		check("turned back", by("server").getAttribute("y"), y);

		check("scripts", svg.querySelectorAll("script").length, 2);
		check("what was loaded", performance.getEntriesByType("resource").length, 0);
	} catch (e) {
		wrong.push(e.stack);
	}
	svg.setAttribute("data-wrong", wrong.join("\n") || "nothing");
});
