// Tokens by surprisal, rank or entropy, and what is known of one of them.

import { LEVELS, RANKS } from "./server.js";
import { strip } from "./strip.js";
import { bits, count, figure, make, nth, plain, real, several, utf8, visible } from "./text.js";

const above = (edges, value) => edges.filter((edge) => value > edge).length;

/** What tokens can be coloured by: value of a unit, edges of the levels, words. */
export const MODES = {
  surprisal: { title: "surprisal", value: (unit) => unit.bits, edges: LEVELS },
  rank: { title: "rank", value: (unit) => unit.rank + 1, edges: RANKS },
  entropy: { title: "entropy", value: (unit) => unit.entropy, edges: LEVELS },
};

/** Whether a reading has what a mode shows. */
export const tells = (reading, mode) =>
  mode === "surprisal" || reading.entry.tokens.some((token) => token[mode] !== undefined);

const classOf = (unit, mode) => {
  if (Number.isNaN(unit.bits)) return "unscored";
  const value = MODES[mode].value(unit);
  return Number.isNaN(value) ? "untold" : `l${above(MODES[mode].edges, value)}`;
};

const probability = (surprisal) => {
  const p = 2 ** -surprisal;
  return p >= 0.001 ? `${figure(100 * p, 3)}%` : figure(p, 3);
};

/** Say a unit in a line. */
export function tell(unit) {
  const name = visible(unit.text) || "a further token of no characters";
  if (Number.isNaN(unit.bits)) return `${name}: not scored`;
  const rank = Number.isNaN(unit.rank) ? "" : `, ${nth(unit.rank + 1)} likeliest`;
  return `${name}: ${figure(unit.bits, 3)} bits, probability ${probability(unit.bits)}${rank}`;
}

/** Draw a reading; `mode()` is asked at every painting. */
export function heat(reading, label, mode, choose) {
  const items = reading.units.map((unit) => ({
    text: unit.text,
    paint: () => ({ name: classOf(unit, mode()) }),
  }));
  return strip(items, {
    label,
    tell: (index) => tell(reading.units[index]),
    choose: (index) => choose(index === null ? null : details(reading.units[index])),
  });
}

/** Draw the scale of a mode. */
export function legend(mode, readings) {
  const { edges } = MODES[mode];
  const unit = mode === "rank" ? "place among all tokens" : "bits";
  const found = [make("span", { text: `${unit}:` })];
  for (let level = 0; level <= edges.length; level++) {
    const from = level ? edges[level - 1] : 0;
    let text = level < edges.length ? `${from} to ${edges[level]}` : `over ${count(from)}`;
    if (mode === "rank" && level < edges.length) {
      text = edges[level] === from + 1 ? nth(edges[level]) : `to ${count(edges[level])}`;
    }
    found.push(make("span", { class: `swatch l${level}`, text }));
  }
  if (readings.some((one) => one.units.some((unit) => Number.isNaN(unit.bits)))) {
    found.push(make("span", { class: "swatch unscored", text: "not scored" }));
  }
  if (readings.some((one) => one.units.some((unit) => !unit.text))) {
    found.push(make("span", { text: "∅ a token of no characters" }));
  }
  return found;
}

const row = (name, value) => [make("dt", { text: name }), make("dd", { text: value })];
const hex = (text) => Array.from(utf8(text), (byte) => byte.toString(16).padStart(2, "0"));

/** Lay out all that is known of a unit. */
export function details(unit) {
  const found = [make("h3", { class: "token", text: visible(unit.text) || "∅", dir: "auto" })];
  const bytes = hex(unit.text);
  const spelt = bytes.slice(0, 16).join(" ") + (bytes.length > 16 ? " …" : "");
  const list = make("dl");
  if (Number.isNaN(unit.bits)) list.append(...row("surprisal", "not scored: nothing stands before it"));
  else {
    list.append(...row("surprisal", `${figure(unit.bits)} bits`));
    list.append(...row("probability", probability(unit.bits)));
  }
  if (unit.tokens.length === 1) list.append(...numbers(unit.tokens[0]));
  list.append(...row(several(bytes.length, "byte"), spelt || "-"));
  found.push(list);
  if (unit.tokens.length > 1) {
    found.push(make("p", { class: "dim", text: `${unit.tokens.length} tokens share these characters; their bits are added.` }));
  }
  for (const token of unit.tokens) {
    if (unit.tokens.length > 1) {
      const part = make("dl");
      part.append(...row("surprisal", `${figure(token.bits)} bits`), ...numbers(token));
      found.push(make("h4", { text: `token ${token.id}` }), part);
    }
    const table = alternatives(token);
    if (table) found.push(table);
  }
  return found;
}

function numbers(token) {
  const found = [];
  const rank = real(token.rank);
  const entropy = real(token.entropy);
  if (!Number.isNaN(rank)) found.push(...row("rank", rank ? `${nth(rank + 1)} likeliest` : "likeliest of all"));
  if (!Number.isNaN(entropy)) found.push(...row("entropy", `${figure(entropy / Math.LN2)} bits were expected`));
  found.push(...row("id", token.id < 0 ? "-" : count(token.id)));
  return found;
}

/** Name an alternative: its text, its raw bytes, or its id. */
function spelling(one) {
  if (one.text === null) return `#${one.id}`;
  if (one.bytes) return one.text;
  return one.special ? plain(one.text) : visible(one.text) || "∅";
}

function alternatives(token) {
  if (!token.top) return null;
  const body = make("tbody");
  for (const one of token.top) {
    const surprisal = bits(real(one.logprob));
    const chosen = one.id === token.id;
    const name = make("td", { class: "token", dir: "auto", text: spelling(one) });
    if (chosen) name.append(make("span", { class: "dim", text: " ← in the text" }));
    if (one.bytes) name.append(make("span", { class: "dim", text: " bytes" }));
    body.append(make("tr", {}, name, make("td", { text: probability(surprisal) }), make("td", { text: figure(surprisal, 3) })));
  }
  const head = make("tr", {}, ...["likeliest here", "probability", "bits"].map((text) => make("th", { scope: "col", text })));
  return make("table", { class: "top" }, make("thead", {}, head), body);
}
