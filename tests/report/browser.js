// What a page looks like in each frame of the test's wrapper, as JSON in its DOM. No code of this is in the page itself.
const channels = (color) => color.match(/[\d.]+/g).map(Number);

function luminance([red, green, blue]) {
  const [r, g, b] = [red, green, blue].map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function background(element, view) {
  for (let e = element; e; e = e.parentElement) {
    const found = channels(view.getComputedStyle(e).backgroundColor);
    if (found.length === 3 || found[3] === 1) return found;
  }
  return [255, 255, 255];
}

// WCAG 2: (lighter + 0.05) / (darker + 0.05), of every visible text on what lies behind it.
function contrasts(page, view) {
  const found = [];
  const walker = page.createTreeWalker(page.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const text = walker.currentNode.data.trim();
    if (!text || !element.checkVisibility()) continue;
    const pair = [channels(view.getComputedStyle(element).color), background(element, view)].map(luminance);
    found.push({ text, contrast: (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05) });
  }
  return found.sort((a, b) => a.contrast - b.contrast);
}

function seen(frame) {
  const view = frame.contentWindow;
  const page = frame.contentDocument;
  const root = page.documentElement;
  page.querySelectorAll("details").forEach((details) => (details.open = true));
  const scroller = page.querySelector(".scroller");
  let held = null;
  if (scroller) {
    scroller.scrollLeft = 80;
    const head = scroller.querySelector("tbody th").getBoundingClientRect();
    held = { scrolled: scroller.scrollLeft, offset: head.left - scroller.getBoundingClientRect().left };
  }
  const skip = page.querySelector(".skip");
  let focus = null;
  if (skip) {
    skip.focus();
    focus = {
      skip: page.activeElement === skip && skip.getBoundingClientRect().left >= 0,
      outlined: view.getComputedStyle(skip).outlineStyle === "solid",
    };
  }
  return {
    name: frame.name,
    viewport: view.innerWidth,
    width: Math.max(root.scrollWidth, page.body.scrollWidth),
    dark: luminance(channels(view.getComputedStyle(root).backgroundColor)) < 0.2,
    images: [...page.images].map((image) => image.naturalWidth),
    title: page.title,
    contrasts: contrasts(page, view),
    held,
    focus,
  };
}

window.addEventListener("load", () => {
  document.getElementById("seen").textContent = JSON.stringify([...document.querySelectorAll("iframe")].map(seen));
});
