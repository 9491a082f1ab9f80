"use strict";
(() => {
	const svg = document.currentScript.closest("svg"), result = {};
	const frames = Array.from(svg.querySelector("#frames").children);
	const details = svg.querySelector("#details"), input = document.querySelector("input");
	const button = (text) => Array.from(document.querySelectorAll("button")).find((b) => b.textContent.startsWith(text));
	const frame = (name) => frames.find((f) => f.box.name === name);
	const visible = () => frames.filter((f) => f.style.display !== "none");
	const fire = (target, type, init) => target.dispatchEvent(new (type.startsWith("key") ? KeyboardEvent : type === "input" ? Event : MouseEvent)(type, { bubbles: true, cancelable: true, ...init }));
	const key = (k, target = document.activeElement) => fire(target, "keydown", { key: k });
	const focused = () => document.activeElement.box?.name ?? document.activeElement.localName;
	// What a zoom shows: how many boxes, which are below it, and how wide the one is.
	const zoomed = (name) => [visible().length, visible().filter((f) => f.classList.contains("above")).map((f) => f.box.name).join(" "), frame(name).getAttribute("width"), frame(name).getAttribute("x")];

	try {
		result.frames = frames.length;
		result.visible = visible().length;
		result.resetDisabled = button("reset").disabled;
		result.tabbable = frames.filter((f) => f.getAttribute("tabindex") === "0").map((f) => f.box.name).join(" ");
		result.spoken = frame("vfs_read").getAttribute("aria-label");

		fire(frame("vfs_read").firstElementChild, "mouseover");
		result.hover = details.textContent;
		fire(svg, "mouseleave");
		result.left = details.textContent;

		fire(frame("vfs_read").firstElementChild, "click");
		result.click = zoomed("vfs_read");
		result.clickFocus = focused();
		result.resetEnabled = !button("reset").disabled;
		fire(button("reset"), "click");
		result.reset = visible().length;

		input.value = "^VFS_";
		fire(input, "input");
		result.search = details.textContent;
		result.found = frames.filter((f) => f.classList.contains("found")).map((f) => f.box.name).join(" ");
		input.focus();
		key("Enter");
		result.enterSearch = focused();
		input.value = "operator&&(";
		fire(input, "input");
		result.wrong = input.classList.contains("wrong");
		result.literal = details.textContent;
		input.focus();
		key("Escape");
		result.cleared = [input.value, details.textContent, frames.filter((f) => f.classList.contains("found")).length];

		key("Home");
		result.keys = [focused()];
		for (const k of ["ArrowDown", "ArrowDown", "ArrowUp", "ArrowRight", "ArrowLeft"]) {
			key(k);
			result.keys.push(k + " " + focused());
		}
		key("ArrowDown");
		const inner = focused();
		key("Enter");
		result.enter = zoomed(inner);
		key("Backspace");
		result.backspace = zoomed(focused());
		key("0");
		result.zero = visible().length;
		key("/");
		result.slash = focused();
		key("Escape");

		const top = () => +frame("all").getAttribute("y");
		const before = top();
		key("i");
		result.turned = top() - before === (svg.dataset.depth - 1) * svg.dataset.row;
		key("i");
		result.turnedBack = top() === before;

		result.cut = frames.every((f) => f.box.name === f.box.label.textContent || f.box.label.textContent.endsWith("…"));
		result.page = getComputedStyle(svg.querySelector(".page")).fill;
		// What the browser fetched for it.
		result.fetched = performance.getEntriesByType("resource").length;
		result.links = document.querySelectorAll("a, img, image, link, use, iframe").length;
	} catch (e) {
		result.error = String(e.stack);
	}
	svg.dataset.result = JSON.stringify(result);
})();
