// What is taken along: copies and files.

import { bits, real } from "./text.js";

/** Copy a text; gives whether that worked. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without https, browsers have only the old way.
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "unseen";
    document.body.append(area);
    const before = document.activeElement;
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    before?.focus();
    return done;
  }
}

/** Give a file to the browser to keep. */
export function save(blob, name) {
  const address = URL.createObjectURL(blob);
  const anchor = document.createElement("a");
  anchor.href = address;
  anchor.download = name;
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

/** Write a cell; text that a spreadsheet would take for a formula gets a quote in front. */
function cell(value) {
  if (typeof value === "number") return Number.isNaN(value) ? "" : String(value);
  const safe = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

const HEADER = ["model", "text", "sentence", "index", "id", "token", "start", "end", "logprob", "bits", "rank", "entropy_bits"];

/** Write the tokens of results as CSV; logprob in nats. */
export function csv(results) {
  const lines = [HEADER];
  for (const { model, place, reading } of results) {
    const sentences = reading.entry.sentences ?? [];
    let sentence = 0;
    reading.entry.tokens.forEach((token, index) => {
      while (sentence < sentences.length && index >= sentences[sentence].last_token) sentence++;
      const logprob = real(token.logprob);
      lines.push([
        model, place + 1, sentences.length ? sentence + 1 : NaN, index, token.id, token.text,
        token.start, token.end, logprob, bits(logprob), real(token.rank), real(token.entropy) / Math.LN2,
      ]);
    });
  }
  return lines.map((line) => line.map(cell).join(",") + "\r\n").join("");
}

/** Write the reports as the server gave them. */
export function json(results) {
  const reports = results.map((one) => one.reading.report);
  return JSON.stringify(reports.length === 1 ? reports[0] : { reports }, null, 2);
}
