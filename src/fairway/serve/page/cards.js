// The numbers of each result.

import { count, figure, make, plain, real } from "./text.js";

const RULE = /^(the )?rule of thumb/i;

/** What a result is called among the others. */
export function nameOf(result, results) {
  const texts = new Set(results.map((one) => one.place)).size > 1;
  const models = new Set(results.map((one) => one.model)).size > 1;
  const text = `text ${result.place + 1}`;
  if (texts && !models) return text;
  return plain(result.model) + (texts ? `, ${text}` : "");
}

/** Draw the card of a result; `copy(text, name)` copies. */
export function card(result, results, copy) {
  const name = plain(result.model) + (results.some((one) => one.place) ? `, text ${result.place + 1}` : "");
  const found = make("article", { class: "card" }, make("h3", { text: name }));
  if (result.problem) {
    found.append(make("p", { class: "problem", text: result.problem }));
    return found;
  }
  const { report, entry } = result.reading;
  const perplexity = report.perplexity_name ?? "perplexity";
  const byte = perplexity.replace(/perplexity$/, "bits_per_byte");
  const { metrics, sentence_intervals: spans = {} } = entry;
  const big = make("dl", { class: "big" });
  for (const [key, unit] of [[perplexity, "per token"], [byte, "across tokenizers"]]) {
    const span = spans[key];
    const range = span ? `${figure(real(span.low))} to ${figure(real(span.high))}` : "";
    const value = make("dd", {}, make("strong", { text: figure(real(metrics[key]), 5) }));
    value.firstChild.dataset.metric = key;
    value.append(make("span", { class: "dim", text: range ? `${range}` : unit }));
    big.append(make("div", {}, make("dt", { text: key.replaceAll("_", " ") }), value));
  }
  found.append(big);
  const span = spans[perplexity];
  const basis = span
    ? `Intervals: ${Math.round(100 * span.level)}%, ${span.method}: how far single sentences carry the number, not how other texts would do.`
    : `${capital(entry.sentence_reason ?? "no interval")}.`;
  found.append(make("p", { class: "dim", text: plain(basis) }));
  const counts = [
    `${count(metrics.tokens)} tokens`, `${count(metrics.bytes)} bytes`,
    `${figure(real(metrics.bytes_per_token), 3)} bytes a token`,
  ];
  if (metrics.tokens_skipped) counts.push(`${count(metrics.tokens_skipped)} not scored`);
  found.append(make("p", { class: "counts", text: counts.join(", ") }));
  const lines = report.explain ?? [];
  for (const line of lines.filter((one) => RULE.test(one))) found.append(make("p", { class: "rule", text: plain(line) }));
  for (const note of report.notes) found.append(make("p", { class: "note", text: `Note: ${plain(note)}` }));
  // What it says of an interval over documents, of which there is one here, stands above by sentence.
  const others = lines.filter((one) => !RULE.test(one) && !(span && one.startsWith("It has no interval")));
  if (others.length) {
    found.append(make("details", {}, make("summary", { text: "In plain words" }), ...others.map((text) => make("p", { text: plain(text) }))));
  }
  const button = make("button", { type: "button", class: "small", text: "Copy", "aria-label": `Copy the signature of ${name}` });
  button.addEventListener("click", () => copy(report.signature, "The signature"));
  found.append(make("details", { class: "signed" }, make("summary", { text: "Signature: how the number was made" }),
    make("p", { class: "signature" }, make("code", { text: plain(report.signature) }), button)));
  return found;
}

const capital = (text) => text.slice(0, 1).toUpperCase() + text.slice(1);
