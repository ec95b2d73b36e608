// Two readings against each other: where one needs more bits than the other.

import { strip } from "./strip.js";
import { figure, make, real, several, signed, visible } from "./text.js";
import { pair } from "./units.js";

/** Bits of a span from which on its colour is stronger. */
const EDGES = [0.25, 1, 2, 4, 8];
const MOST = 5;

const side = (value) => (value < 0 ? "less" : "more");
const levelOf = (value) => EDGES.filter((edge) => Math.abs(value) >= edge).length;
const classOf = (span) => {
  const level = levelOf(span.difference);
  const place = span.same ? "" : " changed";
  return (level ? `${side(span.difference)} d${level}` : "even") + place;
};
const markOf = (span) => (levelOf(span.difference) ? (span.difference < 0 ? "−" : "+") : "");
const wordsOf = (units) => units.map((one) => one.text).join("");

/** Draw the difference of two readings, named by `names`; gives {nodes, legend}. */
export function difference(first, second, names, choose) {
  const { spans, alike } = pair(first, second);
  const tell = (index) => {
    const span = spans[index];
    const [a, b] = [visible(wordsOf(span.a)), visible(wordsOf(span.b))];
    const what = span.same ? a : `${a || "nothing"}, then ${b || "nothing"}`;
    return `${what}: ${signed(span.difference)} bits, ${figure(span.first, 3)} and ${figure(span.second, 3)}`;
  };
  const row = (units, label) =>
    strip(
      spans.map((span) => ({ text: wordsOf(units(span)), paint: () => ({ name: classOf(span), mark: markOf(span) }) })),
      { label, tell, choose: (index) => choose(index === null ? null : details(spans[index], names)) },
    ).element;
  const drawn = alike
    ? [row((span) => span.a, "Difference by span")]
    : [
        make("div", { class: "sides" },
          make("div", {}, make("h3", { text: names[0] }), row((span) => span.a, `Difference by span, ${names[0]}`)),
          make("div", {}, make("h3", { text: names[1] }), row((span) => span.b, `Difference by span, ${names[1]}`))),
      ];
  const facts = make("div", { class: "sides facts" }, sums(first, second, spans, names), ...extremes(spans, names));
  return { nodes: [facts, ...drawn], legend: legend(names) };
}

function sums(first, second, spans, names) {
  const total = (reading) => real(reading.entry.metrics.nll) / Math.LN2;
  const apart = total(second) - total(first);
  const added = spans.reduce((all, one) => all + one.difference, 0);
  const body = make("tbody", {},
    ...[
      [names[0], figure(total(first), 6)],
      [names[1], figure(total(second), 6)],
      ["difference", signed(apart, 6)],
      [`sum over ${several(spans.length, "span")}`, signed(added, 6)],
    ].map(([name, value]) => make("tr", {}, make("th", { scope: "row", text: name }), make("td", { text: value }))));
  const head = make("tr", {}, make("td"), make("th", { scope: "col", text: "bits" }));
  const found = make("table", { class: "sums" }, make("thead", {}, head), body);
  found.dataset.difference = apart;
  found.dataset.sum = added;
  return make("div", {}, make("h3", { text: "In all" }), found);
}

function extremes(spans, names) {
  const order = spans.filter((one) => levelOf(one.difference)).sort((a, b) => a.difference - b.difference);
  const list = (some, title) => {
    const rows = some.map((one) => {
      const [a, b] = [wordsOf(one.a), wordsOf(one.b)];
      const shown = one.same ? visible(a) : `${visible(a) || "∅"} ⇢ ${visible(b) || "∅"}`;
      const cut = Array.from(shown).slice(0, 60).join("");
      return make("li", {}, make("span", { class: "token", dir: "auto", text: cut }), ` ${signed(one.difference)}`);
    });
    return make("div", {}, make("h3", { text: title }), rows.length ? make("ol", {}, ...rows) : make("p", { class: "dim", text: "none" }));
  };
  const less = order.filter((one) => one.difference < 0).slice(0, MOST);
  const more = order.filter((one) => one.difference > 0).reverse().slice(0, MOST);
  return [list(less, `Where ${names[1]} needs fewer bits`), list(more, `Where ${names[1]} needs more bits`)];
}

function legend(names) {
  const swatch = (way, level) => {
    const from = EDGES[level - 1];
    const mark = way === "less" ? "−" : "+";
    return make("span", { class: `swatch ${way} d${level}`, text: `${mark}${from}${level === EDGES.length ? " and over" : ""}` });
  };
  const levels = EDGES.map((_, index) => index + 1);
  return [
    make("span", { text: `bits of ${names[1]} less those of ${names[0]}:` }),
    ...levels.toReversed().map((level) => swatch("less", level)),
    make("span", { class: "swatch even", text: "about even" }),
    ...levels.map((level) => swatch("more", level)),
  ];
}

function details(span, names) {
  const list = make("dl");
  const add = (name, value) => list.append(make("dt", { text: name }), make("dd", { text: value }));
  const tokens = (units) => several(units.reduce((n, one) => n + one.tokens.length, 0), "token");
  add(names[0], `${figure(span.first)} bits, ${tokens(span.a)}`);
  add(names[1], `${figure(span.second)} bits, ${tokens(span.b)}`);
  add("difference", `${signed(span.difference, 4)} bits${span.whole ? "" : "; not every token is scored"}`);
  const [a, b] = [visible(wordsOf(span.a)) || "∅", visible(wordsOf(span.b)) || "∅"];
  const shown = span.same ? a : `${a} ⇢ ${b}`;
  return [make("h3", { class: "token", dir: "auto", text: shown }), list];
}
