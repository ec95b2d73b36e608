// Bars by sentence, and the table behind them.

import { count, figure, make, plain, real, several } from "./text.js";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 190;
const [TOP, BOTTOM, AXIS] = [12, 22, 44];
const ROWS = 300;

const shape = (tag, attributes, text) => {
  const found = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) found.setAttribute(name, value);
  if (text !== undefined) found.textContent = text;
  return found;
};

/** Round up to a number with a plain half. */
const round = (value) => {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 1.5, 2, 3, 4, 5, 8, 10].find((one) => one * power >= value * 0.999999);
};

const nameOf = ({ report }) => (report.perplexity_name ?? "perplexity").replace(/perplexity$/, "bits_per_byte");
const valuesOf = (reading) => (reading.entry.sentences ?? []).map((one) => real(one.metrics[nameOf(reading)]));

/** Find the height of one scale for all readings. */
export const height = (readings) =>
  round(Math.max(...readings.flatMap(valuesOf).filter((one) => one > 0 && Number.isFinite(one)), 0) || 1);

/** Draw a reading's sentences by their bits per byte, up to `top`. */
export function sentences(reading, label, top) {
  const { entry, characters } = reading;
  const rows = entry.sentences ?? [];
  const byte = nameOf(reading);
  const values = valuesOf(reading);
  const finite = values.filter(Number.isFinite);
  if (!finite.length) return [make("p", { text: "No sentence has a number here." })];
  const mean = real(entry.metrics[byte]);
  const name = byte.replaceAll("_", " ");
  const summary = `${label}: ${several(rows.length, "sentence")}, ${name} from ${figure(Math.min(...finite), 3)} to ${figure(Math.max(...finite), 3)}, ${figure(mean, 3)} in all`;
  const words = (index) => {
    const one = rows[index];
    return plain(characters.slice(one.start, one.end).join("").replace(/\s+/g, " ").trim());
  };
  return [
    make("p", { class: "dim", text: `${name} by sentence (dashed: ${figure(mean)} in all). Sentences are found by ${entry.sentence_rule}.` }),
    picture(values, mean, top, summary, words),
    table(reading, values, name, words),
  ];
}

function picture(values, mean, top, summary, words) {
  const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top);
  const axis = shape("svg", { class: "bars", width: AXIS, height: HEIGHT, "aria-hidden": true });
  const svg = shape("svg", { class: "bars", width: "100%", height: HEIGHT, role: "img", "aria-label": summary });
  for (const part of [0, 0.5, 1]) {
    const height = y(part * top);
    svg.append(shape("line", { class: "grid", x1: 0, x2: "100%", y1: height, y2: height }));
    axis.append(shape("text", { x: AXIS - 6, y: height + 4, "text-anchor": "end" }, figure(part * top, 2)));
  }
  const step = 100 / values.length;
  values.forEach((value, index) => {
    if (Number.isNaN(value)) return;
    const height = Math.max(1, y(0) - y(Math.min(value, top)));
    const width = Math.min(step * 0.86, 6);
    const x = step * index + (step - width) / 2;
    const bar = shape("rect", { class: "bar", x: `${x}%`, width: `${width}%`, y: y(0) - height, height });
    bar.append(shape("title", {}, `${index + 1}: ${figure(value)}; ${words(index).slice(0, 120)}`));
    svg.append(bar);
  });
  if (Number.isFinite(mean)) {
    svg.append(shape("line", { class: "mean", x1: 0, x2: "100%", y1: y(mean), y2: y(mean) }));
  }
  const steps = Math.max(1, Math.ceil(values.length / 12));
  for (let index = 0; index < values.length; index += steps) {
    const x = step * (index + 0.5);
    svg.append(shape("text", { x: `${x}%`, y: HEIGHT - 6, "text-anchor": "middle" }, index + 1));
  }
  return make("div", { class: "chart" }, axis, svg);
}

function table(reading, values, name, words) {
  const rows = reading.entry.sentences;
  const perplexity = reading.report.perplexity_name ?? "perplexity";
  const titles = ["", "sentence", name, perplexity.replaceAll("_", " "), "bits", "tokens", "bytes"];
  const body = make("tbody");
  rows.slice(0, ROWS).forEach((one, index) => {
    const { metrics } = one;
    const cells = [
      figure(values[index]), figure(real(metrics[perplexity])), figure(real(metrics.nll) / Math.LN2),
      count(metrics.tokens), count(metrics.bytes),
    ];
    body.append(make("tr", {},
      make("th", { scope: "row", text: index + 1 }),
      make("td", { class: "words", dir: "auto", text: words(index) }),
      ...cells.map((text) => make("td", { text })),
    ));
  });
  const head = make("tr", {}, ...titles.map((text) => make(text ? "th" : "td", { scope: text ? "col" : false, class: text === "sentence" && "words", text })));
  const scroll = make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Sentences as a table" },
    make("table", {}, make("thead", {}, head), body));
  const found = make("details", {}, make("summary", { text: "The numbers as a table" }), scroll);
  if (rows.length > ROWS) {
    found.append(make("p", { class: "dim", text: `${count(rows.length - ROWS)} further sentences are in the JSON.` }));
  }
  return found;
}
