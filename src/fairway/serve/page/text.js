// Text from anywhere made visible and harmless, and numbers in words: as fairway/render/visible.py.

const HIDDEN = /[\p{C}\p{Z}]/u;

const code = (char) => {
  const point = char.codePointAt(0);
  const digits = point.toString(16);
  return point < 256 ? `\\x${digits.padStart(2, "0")}` : `\\u${digits.padStart(4, "0")}`;
};

const shown = (char) =>
  char === "\n" ? "⏎" : char === "\t" ? "→" : HIDDEN.test(char) ? code(char) : char;

/** Replace what is no printable character by its code; blanks stay. */
export const plain = (text) => Array.from(text, (char) => (char === " " ? char : shown(char))).join("");

/** Show blanks too. */
export const visible = (text) => Array.from(text, (char) => (char === " " ? "·" : shown(char))).join("");

/** Read a number of a report: null is none, and infinities come as text. */
export function real(value) {
  if (value === null || value === undefined) return NaN;
  if (value === "inf") return Infinity;
  if (value === "-inf") return -Infinity;
  return Number(value);
}

/** Nats of log-probability to bits of surprisal. */
export const bits = (logprob) => (Number.isNaN(logprob) ? NaN : -logprob / Math.LN2 + 0);

/** Write a number with so many significant digits. */
export function figure(value, digits = 4) {
  if (Number.isNaN(value)) return "-";
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  if (value === 0) return "0";
  const size = Math.floor(Math.log10(Math.abs(value)));
  if (size >= 9 || size < -5) {
    const [mantissa, power] = value.toExponential(digits - 1).split("e");
    return `${mantissa}e${power[0]}${power.slice(1).padStart(2, "0")}`;
  }
  const places = Math.max(0, digits - 1 - size);
  return value.toLocaleString("en-US", {
    minimumFractionDigits: places,
    maximumFractionDigits: places,
    roundingMode: "halfEven",
  });
}

/** Write a difference, its sign always told. */
export const signed = (value, digits = 3) =>
  Number.isNaN(value) ? "-" : (value > 0 ? "+" : value < 0 ? "−" : "±") + figure(Math.abs(value), digits);

export const count = (value) => value.toLocaleString("en-US");

/** Say a number of things. */
export const several = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;

export const nth = (n) => {
  const tens = n % 100;
  const end = tens > 10 && tens < 14 ? "th" : ["th", "st", "nd", "rd"][n % 10] ?? "th";
  return `${count(n)}${end}`;
};

const encoder = new TextEncoder();

/** UTF-8 bytes of a text. */
export const utf8 = (text) => encoder.encode(text);

/** Make an element: its text is only ever text. */
export function make(tag, { text, ...rest } = {}, ...children) {
  const found = document.createElement(tag);
  if (text !== undefined) found.textContent = text;
  for (const [name, value] of Object.entries(rest)) {
    if (value !== undefined && value !== false) found.setAttribute(name, value === true ? "" : value);
  }
  found.append(...children);
  return found;
}
