// What the theme leaves undone for keyboards and screen readers.

document.addEventListener("DOMContentLoaded", () => {
  // Blocks that scroll sideways must be reachable by keyboard; where nothing scrolls, no stop.
  const scrolling = "div.highlight pre, div.math, .bd-article table, mjx-container[display]";
  const mark = (block) => {
    if (block.scrollWidth > block.clientWidth + 1) block.tabIndex = 0;
    else if (block.tabIndex === 0 && block.tagName !== "MJX-CONTAINER") block.removeAttribute("tabindex");
  };
  // A block inside a folded answer has no size until the answer is opened.
  const sizes = new ResizeObserver((entries) => entries.forEach((entry) => mark(entry.target)));
  const watch = () => document.querySelectorAll(scrolling).forEach((block) => sizes.observe(block));
  watch();
  window.addEventListener("load", () => document.querySelectorAll(scrolling).forEach(mark));
  window.MathJax?.startup?.promise?.then(watch);
});
