"use strict";
// The picture is whole without this: what is here is the search, the zoom, the keys and
// what is said of a frame.
(() => {
	const svg = document.currentScript.closest("svg");
	const total = +svg.dataset.total, rows = +svg.dataset.depth, rowHeight = +svg.dataset.row, top = +svg.dataset.top;
	const details = svg.querySelector("#details");
	const files = Array.from(svg.querySelectorAll("metadata > *"), (f) => f.textContent);
	const kinds = { a: "", p: "process", u: "user", k: "kernel", i: "inlined", j: "JIT", x: "unknown", m: "" };

	// Boxes are in the order of a walk: one's callees come after it, and before its
	// neighbour.
	const boxes = [], path = [];
	for (const el of svg.querySelector("#frames").children) {
		const label = el.localName === "svg" ? el.lastElementChild : null;
		const box = {
			el, label, name: label ? label.textContent : el.dataset.t, shown: true, found: false,
			start: +el.dataset.s, count: +el.dataset.n, depth: (+el.getAttribute("y") - top) / rowHeight,
			kind: kinds[el.classList[0]], file: files[el.dataset.f] || "", index: boxes.length,
		};
		path.length = box.depth;
		box.parent = path[box.depth - 1] || null;
		path.push(box);
		boxes.push(box);
		meet(box);
	}

	// meet has the keyboard and what reads the picture aloud find the element of a box.
	function meet(box) {
		box.el.box = box;
		box.el.setAttribute("tabindex", "-1");
		box.el.setAttribute("role", "button");
		box.el.setAttribute("aria-label", describe(box));
	}

	// widen gives a box that had no room for it a label.
	function widen(box) {
		const make = (name) => document.createElementNS("http://www.w3.org/2000/svg", name);
		const el = make("svg"), rect = make("rect");
		for (const a of box.el.attributes) el.setAttribute(a.name, a.value);
		el.setAttribute("height", rowHeight);
		rect.setAttribute("width", "100%");
		rect.setAttribute("height", rowHeight - 1);
		box.label = make("text");
		box.label.setAttribute("x", 4);
		box.label.setAttribute("y", 13);
		el.append(rect, box.label);
		box.el.replaceWith(el);
		box.el = el;
		meet(box);
	}

	const root = boxes[0];
	let zoomed = root, current = root, pattern = null, upward = false;

	function share(n, of) { return (100 * n / of).toFixed(2) + " %"; }

	function describe(box) {
		let s = `${box.name}: ${box.count.toLocaleString("en")} ${box.count === 1 ? "sample" : "samples"}, ${share(box.count, total)}`;
		if (box.parent && box.parent.parent) s += ` (${share(box.count, box.parent.count)} of its caller)`;
		if (box.kind) s += `, ${box.kind}`;
		if (box.file) s += `, ${box.file}`;
		return s;
	}

	function within(box, outer) {
		return box.depth >= outer.depth && box.start >= outer.start && box.start + box.count <= outer.start + outer.count;
	}

	// set changes what is not so already: that is most of the work with many boxes.
	function set(box, what, value) {
		if (box["last " + what] === value) return;
		box["last " + what] = value;
		if (what === "above") box.el.classList.toggle("above", value);
		else if (what === "text") box.label.textContent = value;
		else box.el.setAttribute(what, value);
	}

	// place puts each box where the zoom has it, and cuts names to the room that there is.
	function place() {
		const width = svg.getBoundingClientRect().width;
		const probe = details.textContent;
		details.textContent = "0".repeat(50);
		const letter = details.getComputedTextLength() / 50 || 7.3;
		details.textContent = probe;
		for (const box of boxes) {
			const above = box !== zoomed && within(zoomed, box);
			const shown = above || within(box, zoomed);
			if (shown !== box.shown) box.el.style.display = shown ? "" : "none";
			box.shown = shown;
			if (!shown) continue;
			const portion = above ? 1 : box.count / zoomed.count;
			const letters = Math.floor((portion * width - 8) / letter);
			if (letters >= 2 && !box.label) widen(box);
			set(box, "above", above);
			set(box, "x", above ? "0%" : 100 * (box.start - zoomed.start) / zoomed.count + "%");
			set(box, "width", 100 * portion + "%");
			set(box, "y", top + rowHeight * (upward ? rows - 1 - box.depth : box.depth));
			if (box.label) set(box, "text", letters < 2 ? "" : letters >= box.name.length ? box.name : box.name.slice(0, letters - 1) + "…");
		}
		buttons.reset.disabled = zoomed === root;
	}

	function zoom(box) {
		zoomed = box;
		place();
		focus(box);
	}

	function focus(box) {
		current.el.setAttribute("tabindex", "-1");
		current = box;
		box.el.setAttribute("tabindex", "0");
		box.el.focus();
	}

	function show(box) { details.textContent = box ? describe(box) : found; }

	let found = "";
	function search(text) {
		pattern = null;
		input.classList.remove("wrong");
		if (text) {
			try {
				pattern = new RegExp(text, "i");
			} catch {
				input.classList.add("wrong"); // It is looked for as it is.
				pattern = new RegExp(text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "i");
			}
		}
		let sum = 0, boxesFound = 0, end = 0; // Up to end, samples have been counted.
		for (const box of boxes) {
			const hit = pattern !== null && box !== root && pattern.test(box.name);
			if (hit !== box.found) box.el.classList.toggle("found", hit);
			box.found = hit;
			if (!hit) continue;
			boxesFound++;
			if (box.start >= end) {
				sum += box.count;
				end = box.start + box.count;
			}
		}
		found = pattern ? `${share(sum, total)} of all samples (${sum.toLocaleString("en")}) in ${boxesFound.toLocaleString("en")} frames found` : "";
		show(null);
	}

	const isFound = (box) => box.found;

	// next gives the next box that is shown, in the direction of step, for which ok holds.
	function next(from, step, ok) {
		for (let i = from.index + step; i >= 0 && i < boxes.length; i += step) {
			if (boxes[i].shown && ok(boxes[i])) return boxes[i];
		}
		return null;
	}

	function widest(box) {
		let best = null;
		for (let i = box.index + 1; i < boxes.length && boxes[i].depth > box.depth; i++) {
			if (boxes[i].parent === box && boxes[i].shown && (!best || boxes[i].count > best.count)) best = boxes[i];
		}
		return best;
	}

	function turn() {
		upward = !upward;
		place();
		current.el.scrollIntoView({ block: "nearest" });
	}

	const html = (name) => document.createElementNS("http://www.w3.org/1999/xhtml", name);
	const bar = html("div"), input = html("input"), buttons = {};
	bar.className = "controls";
	input.type = "search";
	input.placeholder = "search /";
	input.setAttribute("aria-label", "search, by regular expression");
	input.addEventListener("input", () => search(input.value));
	bar.append(input);
	for (const [name, label, act] of [["reset", "reset 0", () => zoom(root)], ["turn", "turn i", turn]]) {
		const b = buttons[name] = html("button");
		b.type = "button";
		b.textContent = label;
		b.addEventListener("click", act);
		bar.append(b);
	}
	const holder = document.createElementNS("http://www.w3.org/2000/svg", "foreignObject");
	for (const [key, value] of Object.entries({ x: 10, y: 72, width: "96%", height: 28 })) holder.setAttribute(key, value);
	holder.append(bar);
	svg.querySelector("#controls").append(holder);

	const boxOf = (e) => e.target.closest && e.target.closest("#frames > *")?.box;
	svg.addEventListener("click", (e) => { const box = boxOf(e); if (box) zoom(box); });
	svg.addEventListener("mouseover", (e) => show(boxOf(e)));
	svg.addEventListener("mouseleave", () => show(null));
	svg.addEventListener("focusin", (e) => {
		const box = boxOf(e);
		if (!box) return;
		if (box !== current) {
			current.el.setAttribute("tabindex", "-1");
			current = box;
			box.el.setAttribute("tabindex", "0");
		}
		show(box);
	});
	document.addEventListener("keydown", (e) => {
		if (e.ctrlKey && e.key === "f" || e.key === "/" && e.target !== input) {
			input.focus();
			input.select();
			e.preventDefault();
			return;
		}
		if (e.ctrlKey || e.altKey || e.metaKey) return;
		if (e.target === input) {
			if (e.key === "Escape") {
				input.value = "";
				search("");
				focus(current);
				show(current);
			} else if (e.key === "Enter") {
				const hit = next(root, 1, isFound);
				if (hit) focus(hit);
			}
			return;
		}
		if (e.target.localName === "button" && (e.key === "Enter" || e.key === " ")) return;
		const level = (b) => b.depth === current.depth;
		const caller = current.parent, callee = widest(current);
		let to = null;
		switch (e.key) {
		case "ArrowLeft": to = next(current, -1, level); break;
		case "ArrowRight": to = next(current, 1, level); break;
		case "ArrowUp": to = upward ? callee : caller; break;
		case "ArrowDown": to = upward ? caller : callee; break;
		case "Home": to = root; break;
		case "n": to = next(current, 1, isFound) || next(root, 1, isFound); break;
		case "N": to = next(current, -1, isFound); break;
		case "Enter": case " ": zoom(current); e.preventDefault(); return;
		case "Backspace": zoom(zoomed.parent || root); e.preventDefault(); return;
		case "Escape": case "0": zoom(root); return;
		case "i": turn(); return;
		default: return;
		}
		e.preventDefault();
		if (to) focus(to);
	});
	addEventListener("resize", place);

	svg.setAttribute("width", "100%");
	root.el.setAttribute("tabindex", "0");
	place();
	show(null);
})();
