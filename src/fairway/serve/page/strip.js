// A row of pieces of text that is walked through with the arrow keys; long ones are drawn in steps.

import { make, visible } from "./text.js";

const STEP = 800;
const BLOCK = [150, 1500];

/**
 * Draw pieces.
 *
 * An item is {text, paint}: `paint()` gives {name: classes, below, mark}. `tell(index)` gives what
 * a screen reader says of an item when it is reached; `choose(index)` is called for the one that is
 * reached or pointed at, and with null when the pointer leaves. Returns {element, repaint, focus}.
 */
export function strip(items, { label, tell, choose }) {
  const element = make("div", { class: "strip", role: "listbox", "aria-label": label, dir: "auto" });
  const nodes = [];
  let current = 0;
  let block = null;
  let held = 0;

  const add = (item, index) => {
    if (block === null) {
      block = make("div", { class: "lines", role: "none" });
      element.append(block);
      held = 0;
    }
    const node = make("span", { role: "option", tabindex: index === current ? 0 : -1 });
    node.dataset.index = index;
    nodes.push(node);
    dress(node, item);
    block.append(node);
    held += 1;
    const broken = item.text.includes("\n");
    if (broken) block.append(make("br"));
    if (held >= BLOCK[broken ? 0 : 1]) block = null;
  };

  const dress = (node, item) => {
    const { name, below, mark } = item.paint();
    node.className = name;
    const shown = (mark ?? "") + (item.shown ?? (visible(item.text) || "∅"));
    if (below === undefined) node.textContent = shown;
    else node.replaceChildren(shown, make("small", { text: below }));
  };

  const draw = (until) => {
    while (nodes.length < Math.min(until, items.length)) add(items[nodes.length], nodes.length);
  };
  const go = () => {
    draw(nodes.length + STEP);
    if (nodes.length < items.length) requestAnimationFrame(go);
    else element.dataset.drawn = "all";
  };

  const move = (index) => {
    draw(index + 1);
    nodes[current].tabIndex = -1;
    current = index;
    const node = nodes[current];
    node.tabIndex = 0;
    node.setAttribute("aria-label", tell(current));
    node.focus();
  };

  /** Find the item nearest below (or above) the current one, on the next line. */
  const line = (way) => {
    const here = nodes[current].getBoundingClientRect();
    let best = current;
    let distance = Infinity;
    let top = null;
    for (let i = current + way; i >= 0 && i < nodes.length; i += way) {
      const box = nodes[i].getBoundingClientRect();
      if (way * (box.top - here.top) < here.height / 2) continue;
      top ??= box.top;
      if (Math.abs(box.top - top) > here.height / 2) break;
      const away = Math.abs(box.left - here.left);
      if (away < distance) [best, distance] = [i, away];
    }
    return best;
  };

  const KEYS = {
    ArrowRight: () => Math.min(items.length - 1, current + 1),
    ArrowLeft: () => Math.max(0, current - 1),
    ArrowDown: () => line(1),
    ArrowUp: () => line(-1),
    Home: () => 0,
    End: () => items.length - 1,
  };
  const at = (target) => {
    const node = target.closest?.("[data-index]");
    return node ? Number(node.dataset.index) : null;
  };
  element.addEventListener("keydown", (event) => {
    const next = KEYS[event.key];
    if (!next || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    move(next());
  });
  element.addEventListener("click", (event) => {
    const index = at(event.target);
    if (index !== null) move(index);
  });
  element.addEventListener("focusin", (event) => {
    const index = at(event.target);
    if (index === null) return;
    if (index !== current) nodes[current].tabIndex = -1;
    current = index;
    nodes[index].tabIndex = 0;
    nodes[index].setAttribute("aria-label", tell(index));
    for (const old of element.querySelectorAll("[aria-selected]")) old.removeAttribute("aria-selected");
    nodes[index].setAttribute("aria-selected", "true");
    choose(index);
  });
  element.addEventListener("pointerover", (event) => {
    if (event.pointerType !== "mouse") return;
    const index = at(event.target);
    if (index !== null) choose(index);
  });
  element.addEventListener("pointerleave", () => choose(element.contains(document.activeElement) ? current : null));

  go();
  return {
    element,
    repaint: () => nodes.forEach((node, index) => dress(node, items[index])),
  };
}
