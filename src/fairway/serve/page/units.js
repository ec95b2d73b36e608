// From a report to what is drawn: tokens that share a character are one unit; units that no token
// crosses are where two readings of a text can be cut.

import { bits, real } from "./text.js";

/**
 * Read one text of a report.
 *
 * Returns {text: characters, units, entry, report}; a unit is {start, end, text, tokens, bits,
 * rank, entropy, sentence}: its characters with the gap before it, which belongs to it as in
 * fairway.text.close_gaps, its tokens' bits and entropies (bits) summed, their largest rank; NaN
 * where a token is not scored or the model does not tell.
 */
export function read(report) {
  const entry = report.texts[0];
  // Offsets count code points, which are not what JavaScript's strings are made of.
  const characters = Array.from(entry.text);
  const units = [];
  let reached = 0;
  entry.tokens.forEach((token, index) => {
    const last = units.at(-1);
    const row = { ...token, index, bits: bits(real(token.logprob)) };
    if (last && token.start < reached) {
      last.tokens.push(row);
      reached = last.end = Math.max(reached, token.end);
    } else {
      units.push({ start: reached, end: Math.max(reached, token.end), tokens: [row] });
      reached = Math.max(reached, token.end);
    }
  });
  if (units.length) units.at(-1).end = characters.length;
  for (const unit of units) {
    unit.text = characters.slice(unit.start, unit.end).join("");
    unit.bits = unit.tokens.reduce((sum, one) => sum + one.bits, 0);
    unit.entropy = unit.tokens.reduce((sum, one) => sum + real(one.entropy), 0) / Math.LN2;
    unit.rank = Math.max(...unit.tokens.map((one) => real(one.rank)));
  }
  return { report, entry, characters, units };
}

/** Sum of the bits of units, those that are not scored left out. */
export const sum = (units) =>
  units.reduce((all, unit) => unit.tokens.reduce((part, one) => part + (one.bits || 0), all), 0);

/** Pair the units of two readings of the same text between their common ends. */
function common(first, second) {
  const spans = [];
  let i = 0;
  let j = 0;
  while (i < first.length || j < second.length) {
    const a = [];
    const b = [];
    // An empty unit goes with what stands before it, so ends are compared when both stand still.
    do {
      const left = a.length ? a.at(-1).end : -1;
      const right = b.length ? b.at(-1).end : -1;
      if (j >= second.length || (i < first.length && left <= right)) a.push(first[i++]);
      else b.push(second[j++]);
    } while (!(a.length && b.length && a.at(-1).end === b.at(-1).end) && (i < first.length || j < second.length));
    while (i < first.length && first[i].end === first[i].start) a.push(first[i++]);
    while (j < second.length && second[j].end === second[j].start) b.push(second[j++]);
    spans.push({ a, b, same: true });
  }
  return spans;
}

/** Longest run of edits that is looked for; texts that differ more are one span between. */
const EDITS = 600;

/** Find the units that two texts have in common, by Myers' greedy algorithm (1986). */
function matches(first, second) {
  const n = first.length;
  const m = second.length;
  const most = Math.min(n + m, EDITS);
  let reach = new Map([[1, 0]]);
  const trace = [];
  for (let d = 0; d <= most; d++) {
    trace.push(new Map(reach));
    for (let k = -d; k <= d; k += 2) {
      const down = k === -d || (k !== d && (reach.get(k - 1) ?? -1) < (reach.get(k + 1) ?? -1));
      let x = down ? reach.get(k + 1) : reach.get(k - 1) + 1;
      while (x < n && x - k < m && first[x].text === second[x - k].text) x++;
      reach.set(k, x);
      if (x >= n && x - k >= m) return walk(trace, d, n, m);
    }
  }
  return [];
}

function walk(trace, edits, n, m) {
  const pairs = [];
  let x = n;
  let y = m;
  for (let d = edits; d >= 0; d--) {
    const reach = trace[d];
    const k = x - y;
    const down = k === -d || (k !== d && (reach.get(k - 1) ?? -1) < (reach.get(k + 1) ?? -1));
    const before = down ? k + 1 : k - 1;
    const from = d === 0 ? 0 : reach.get(before);
    const row = d === 0 ? 0 : from - before;
    while (x > from && y > row) pairs.push([--x, --y]);
    x = from;
    y = row;
  }
  return pairs.reverse();
}

/** Pair the units of two texts: what they have in common, and what stands in its place. */
function between(first, second) {
  const spans = [];
  let low = 0;
  while (low < first.length && low < second.length && first[low].text === second[low].text) low++;
  let top = 0;
  while (
    top < first.length - low &&
    top < second.length - low &&
    first.at(-1 - top).text === second.at(-1 - top).text
  ) top++;
  const middle = matches(
    first.slice(low, first.length - top),
    second.slice(low, second.length - top),
  ).map(([i, j]) => [i + low, j + low]);
  const pairs = [];
  for (let i = 0; i < low; i++) pairs.push([i, i]);
  pairs.push(...middle);
  for (let i = top; i > 0; i--) pairs.push([first.length - i, second.length - i]);
  let [i, j] = [0, 0];
  for (const [at, to] of [...pairs, [first.length, second.length]]) {
    if (at > i || to > j) spans.push({ a: first.slice(i, at), b: second.slice(j, to), same: false });
    if (at < first.length && to < second.length) {
      spans.push({ a: [first[at]], b: [second[to]], same: true });
    }
    [i, j] = [at + 1, to + 1];
  }
  return spans;
}

/**
 * Pair two readings: spans {a, b, same, first, second, difference, whole} with the bits of either
 * side; whole = every token in them is scored.
 *
 * Every unit is in one span, so the differences sum to that of the texts' bits.
 */
export function pair(first, second) {
  const alike = first.entry.text === second.entry.text;
  const spans = (alike ? common : between)(first.units, second.units);
  for (const span of spans) {
    span.first = sum(span.a);
    span.second = sum(span.b);
    span.difference = span.second - span.first;
    span.whole = [...span.a, ...span.b].every((unit) => !Number.isNaN(unit.bits));
  }
  return { spans, alike };
}
