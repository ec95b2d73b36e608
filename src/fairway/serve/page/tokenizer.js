// A text as a tokenizer cuts it.

import { details } from "./heat.js";
import { strip } from "./strip.js";
import { count, figure, make, real, visible } from "./text.js";

/** Draw every token by itself, with its id. */
export function tokenizer(reading, label, choose) {
  const items = [];
  for (const unit of reading.units) {
    unit.tokens.forEach((token, place) => {
      const part = unit.tokens.length > 1 ? ` ${place + 1}/${unit.tokens.length}` : "";
      const tone = `tone${items.length % 2}`;
      items.push({
        unit,
        token,
        text: place === unit.tokens.length - 1 ? unit.text : "",
        shown: (visible(unit.text) || "∅") + part,
        paint: () => ({ name: `cut ${tone}`, below: token.id < 0 ? "-" : String(token.id) }),
      });
    });
  }
  const { tokens, bytes } = totals(reading);
  const distinct = new Set(items.map((one) => one.token.id)).size;
  const line = `${count(tokens)} tokens, ${count(bytes)} bytes: ${figure(bytes / tokens, 3)} bytes a token; ${count(distinct)} distinct tokens`;
  const drawn = strip(items, {
    label,
    tell: (index) => `${items[index].shown}: token ${items[index].token.id}`,
    choose: (index) => choose(index === null ? null : details(items[index].unit)),
  });
  return [make("p", { class: "count", text: line }), drawn.element];
}

/** All tokens of the text, and its bytes, whether scored or not. */
function totals(reading) {
  const bytes = new TextEncoder().encode(reading.entry.text).length;
  return { tokens: reading.entry.tokens.length, bytes: real(bytes) };
}
