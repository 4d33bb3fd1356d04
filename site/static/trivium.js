// What the theme leaves undone for keyboards and screen readers.

document.addEventListener("DOMContentLoaded", () => {
  // Blocks that scroll sideways must be reachable by keyboard; where nothing scrolls, no stop.
  const scrolling = "div.highlight pre, div.math, .bd-article table, mjx-container[display]";
  const reachable = () => {
    for (const block of document.querySelectorAll(scrolling)) {
      if (block.scrollWidth > block.clientWidth + 1) block.tabIndex = 0;
      else if (block.tabIndex === 0 && block.tagName !== "MJX-CONTAINER") block.removeAttribute("tabindex");
    }
  };
  reachable();
  window.addEventListener("load", reachable);
  window.addEventListener("resize", reachable);
  window.MathJax?.startup?.promise?.then(reachable);
});
