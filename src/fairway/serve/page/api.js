// What is asked of the server; what goes wrong comes back as a sentence.

import { DETAILED } from "./server.js";

export class Refusal extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { ...options, credentials: "same-origin", cache: "no-store" });
  } catch (problem) {
    if (problem.name === "AbortError") throw problem;
    throw new Refusal("The server cannot be reached; is it still running?", 0);
  }
  if (!answer.ok) throw new Refusal(await sentence(answer), answer.status);
  return answer;
}

async function sentence(answer) {
  let said = "";
  try {
    said = (await answer.json()).error.message;
  } catch {
    said = `The server answered ${answer.status} and did not say why.`;
  }
  if (answer.status === 429 || answer.status === 503) {
    const wait = Number(answer.headers.get("retry-after"));
    said += wait > 0 ? ` Try again in ${wait} second${wait === 1 ? "" : "s"}.` : " Try again soon.";
  }
  if (answer.status === 401) said += " Load this page again to give it.";
  return String(said);
}

/** Read an answer to its end. */
async function whole(answer, how) {
  try {
    return await answer[how]();
  } catch (problem) {
    if (problem.name === "AbortError") throw problem;
    throw new Refusal("The server's answer broke off; try again.", 0);
  }
}

/** Give the server's models. */
export const models = async () => (await whole(await ask("v1/models"), "json")).data;

const post = (path, data, signal) =>
  ask(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(data),
    signal,
  });

/** Score one text with one model, with all that the page shows. */
export async function score(model, text, context, signal) {
  const columns = ["entropy", "rank", ...(text.length > DETAILED ? [] : ["top5"])];
  const wanted = { columns, sentences: true, explain: true };
  return whole(await post("v1/score", { model, text, context, ...wanted }, signal), "json");
}

/** Give the report as a self-contained file. */
export async function page(models, texts, context) {
  return whole(await post("v1/page", { model: models, text: texts, context }), "blob");
}
