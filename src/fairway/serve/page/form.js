// What is asked for: texts typed, pasted or dropped, and models.

import { BODY, LENGTH } from "./server.js";
import { count, make, plain, several, utf8 } from "./text.js";

export const EXAMPLE = `The keeper of the lighthouse had not spoken to anyone for three weeks. He counted the ships and wrote their names into a book.

“Nobody will ever read it,” he said. Then the storm came, and the lamp turned purple with bagpipes. The town was cut off from the world until the morning.`;

/**
 * Tie a text area to its file button and to what is dropped on it.
 *
 * Text areas change line ends; a file's text is kept as it is until somebody edits it.
 */
export function box(area, input, size, complain) {
  let loaded = null;
  const value = () => (loaded && loaded.shown === area.value ? loaded.text : area.value);
  const measure = () => {
    const text = value();
    size.textContent = text ? `${several(Array.from(text).length, "character")}, ${several(utf8(text).length, "byte")}` : "";
  };
  const set = (text) => {
    area.value = text;
    loaded = { text, shown: area.value };
    measure();
  };
  const load = async (file) => {
    if (file.size > BODY) {
      complain(`${plain(file.name)} has ${count(file.size)} bytes, and the server takes ${count(BODY)} at most; use fairway eval for it.`);
      return;
    }
    try {
      const text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
      const long = text.length > LENGTH ? `${plain(file.name)} is longer than the ${count(LENGTH)} characters that this server takes at a time.` : "";
      set(text);
      complain(long);
    } catch {
      complain(`${plain(file.name)} is not UTF-8 text; convert it, for instance with iconv.`);
    }
  };
  let waiting = 0;
  area.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(measure, 150);
  });
  input.addEventListener("change", () => {
    if (input.files.length) load(input.files[0]);
    input.value = "";
  });
  area.addEventListener("dragover", (event) => {
    if (event.dataTransfer.types.includes("Files")) event.preventDefault();
    area.classList.add("over");
  });
  area.addEventListener("dragleave", () => area.classList.remove("over"));
  area.addEventListener("drop", (event) => {
    area.classList.remove("over");
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    load(event.dataTransfer.files[0]);
  });
  return { value, set, load, area };
}

/** Draw the models to choose from; gives a function for those chosen. */
export function models(fieldset, list) {
  const legend = fieldset.querySelector("legend");
  fieldset.replaceChildren(legend);
  const inputs = list.map((model, index) => {
    const input = make("input", { type: "checkbox", name: "model", value: model.id, id: `model-${index}` });
    input.checked = index === 0;
    const kind = model.fairway?.kind ? `${model.fairway.kind}` : "";
    const needs = model.fairway?.needs_context ? ", needs a context" : "";
    fieldset.append(make("label", { class: "model", for: input.id }, input,
      make("span", { text: plain(model.id) }), make("small", { class: "dim", text: plain(kind + needs) })));
    return input;
  });
  if (!inputs.length) fieldset.append(make("p", { text: "This server has no models." }));
  const chosen = () => inputs.filter((one) => one.checked).map((one) => one.value);
  /** Choose by name; gives those that the server lacks. */
  const choose = (names) => {
    for (const one of inputs) one.checked = names.includes(one.value);
    return names.filter((name) => !inputs.some((one) => one.value === name));
  };
  return { chosen, choose };
}

/** More choices than this are a list to open. */
const ROW = 4;

/** Draw choices of which one holds. */
export function choice(fieldset, options, held, change) {
  const legend = fieldset.querySelector("legend");
  if (options.length > ROW) {
    const list = make("select", { "aria-label": legend.textContent }, ...options.map(({ value, title }) => make("option", { value, text: title })));
    list.value = held;
    list.addEventListener("change", () => change(list.value));
    fieldset.replaceChildren(legend, list);
    fieldset.hidden = false;
    return;
  }
  fieldset.replaceChildren(legend, ...options.map(({ value, title, off }) => {
    const input = make("input", { type: "radio", name: fieldset.id, value, disabled: Boolean(off) });
    input.checked = value === held;
    input.addEventListener("change", () => change(value));
    return make("label", { title: off || undefined }, input, make("span", { text: title }));
  }));
  fieldset.hidden = options.length < 2;
}
