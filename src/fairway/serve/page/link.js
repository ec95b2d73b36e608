// The view as a link: everything stands behind the #, which browsers send nowhere.

const MARK = "v1.";

/** Characters that a link may have, and bytes that it may unfold to. */
export const LONGEST = 30000;
const UNFOLDED = 4 << 20;

const through = async (bytes, stream, most = Infinity) => {
  const reader = new Blob([bytes]).stream().pipeThrough(stream).getReader();
  const parts = [];
  let size = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    size += value.length;
    if (size > most) {
      await reader.cancel();
      throw new RangeError("too large");
    }
    parts.push(value);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
};

/** Write a view as a fragment, without the #. */
export async function fold(view) {
  const packed = await through(
    new TextEncoder().encode(JSON.stringify(view)),
    new CompressionStream("deflate-raw"),
  );
  let binary = "";
  for (const byte of packed) binary += String.fromCharCode(byte);
  return MARK + btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

const isText = (value) => typeof value === "string";
const areTexts = (value) => Array.isArray(value) && value.every(isText);

/** Read a view back from a fragment; null where it holds none. Throws where it is damaged. */
export async function unfold(fragment) {
  if (!fragment.startsWith(MARK)) return null;
  if (fragment.length > LONGEST) throw new RangeError("too long");
  const binary = atob(fragment.slice(MARK.length).replaceAll("-", "+").replaceAll("_", "/"));
  const packed = Uint8Array.from(binary, (char) => char.charCodeAt(0));
  const bytes = await through(packed, new DecompressionStream("deflate-raw"), UNFOLDED);
  const view = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  if (typeof view !== "object" || view === null || !areTexts(view.texts) || !areTexts(view.models)) {
    throw new TypeError("no view");
  }
  return {
    texts: view.texts.slice(0, 2),
    models: view.models,
    context: isText(view.context) ? view.context : "",
    view: isText(view.view) ? view.view : "",
    mode: isText(view.mode) ? view.mode : "",
    pair: Number.isInteger(view.pair) ? view.pair : 0,
  };
}
