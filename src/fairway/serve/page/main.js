// The page: what is asked, what is shown, and the view as a link.

import * as api from "./api.js";
import { card, nameOf } from "./cards.js";
import { difference } from "./difference.js";
import { EXAMPLE, box, choice, models } from "./form.js";
import { MODES, heat, legend, tells } from "./heat.js";
import { LONGEST, fold, unfold } from "./link.js";
import { height, sentences } from "./sentences.js";
import { DOCS, RUNS, VERSION } from "./server.js";
import { copy, csv, json, save } from "./take.js";
import { count, make, plain, several } from "./text.js";
import { tokenizer } from "./tokenizer.js";
import { read } from "./units.js";

const at = (id) => document.getElementById(id);
const VIEWS = { heat: "heat map", sentences: "sentences", difference: "difference", tokenizer: "tokenizer" };
const TOGETHER = 4;
/** Characters of a link's text that are scored without being asked. */
const UNASKED = 20000;

const view = { view: "heat", mode: "surprisal", pair: 0 };
let results = [];
let asked = null;
let running = null;
let idle = Promise.resolve();
let strips = [];

// What is said aloud: once, and not more often than one can listen.
let said = 0;
const say = (text) => {
  clearTimeout(said);
  said = setTimeout(() => (at("status").textContent = text), at("status").textContent ? 250 : 0);
};
const complain = (text) => {
  if (text) say("");
  at("problem").textContent = text;
  at("problem").hidden = !text;
};

const first = box(at("text"), at("file"), at("size"), complain);
const second = box(at("second"), at("second-file"), at("second-size"), complain);
let picker = null;

const two = (open) => {
  at("other").hidden = !open;
  at("two").setAttribute("aria-expanded", open);
  at("two").textContent = open ? "Leave the second text away" : "Compare with a second text";
};

/** Read the form; null, with a complaint, where it cannot be asked. */
function request() {
  const texts = [first.value(), ...(at("other").hidden ? [] : [second.value()])];
  const empty = texts.findIndex((text) => !text);
  if (empty >= 0) {
    complain(empty ? "The second text is empty; write one, or leave it away." : "There is no text; write, paste or drop one.");
    [first, second][empty].area.focus();
    return null;
  }
  const context = at("context").value;
  if (![...texts, context].every((text) => text.isWellFormed())) {
    complain("The text has half a character in it (a lone surrogate), which UTF-8 cannot write; take it out.");
    return null;
  }
  const names = picker?.chosen() ?? [];
  if (!names.length) {
    complain(picker ? "No model is chosen; choose one." : "The server's models are not known yet.");
    return null;
  }
  return { texts, context, models: names };
}

const run = () => (running ? idle : (idle = ask()));

async function ask() {
  complain("");
  const wanted = request();
  if (!wanted) return;
  running = new AbortController();
  at("stop").hidden = false;
  at("score").setAttribute("aria-disabled", "true");
  at("ask").setAttribute("aria-busy", "true");
  const jobs = wanted.texts.flatMap((text, place) => wanted.models.map((model) => ({ model, place, text })));
  say(jobs.length > 1 ? `Scoring ${jobs.length} times…` : "Scoring…");
  const waiting = [...jobs];
  const { signal } = running;
  const work = async () => {
    for (let job = waiting.shift(); job; job = waiting.shift()) {
      try {
        job.reading = read(await api.score(job.model, job.text, wanted.context, signal));
      } catch (problem) {
        if (problem.name === "AbortError") throw problem;
        if (!(problem instanceof api.Refusal)) console.error(problem);
        job.problem = plain(problem.message);
      }
    }
  };
  try {
    await Promise.all(Array.from({ length: TOGETHER }, work));
    finish(jobs, wanted);
  } catch (problem) {
    say(problem.name === "AbortError" ? "Stopped." : "");
    if (problem.name !== "AbortError") throw problem;
  } finally {
    running = null;
    if (document.activeElement === at("stop")) at("score").focus();
    at("stop").hidden = true;
    at("score").removeAttribute("aria-disabled");
    at("ask").removeAttribute("aria-busy");
  }
}

function finish(jobs, wanted) {
  const good = jobs.filter((one) => one.reading);
  if (!good.length) {
    const same = new Set(jobs.map((one) => one.problem)).size === 1;
    complain(same ? jobs[0].problem : jobs.map((one) => `${plain(one.model)}: ${one.problem}`).join(" "));
    say("");
    return;
  }
  asked = wanted;
  // Another form has other pairs; the same one keeps what is looked at.
  const before = JSON.stringify(results.map(({ model, place }) => [model, place]));
  results = good;
  const after = JSON.stringify(results.map(({ model, place }) => [model, place]));
  if (before !== after && before !== "[]") view.pair = 0;
  at("cards").replaceChildren(...jobs.map((one) => card(one, jobs, copied)));
  at("results").hidden = false;
  stale();
  show();
  const bad = jobs.length - good.length;
  const heard = good.length > 4 ? [several(good.length, "result")] : good.map((one) => {
    const name = one.reading.report.perplexity_name ?? "perplexity";
    const value = at("cards").children[jobs.indexOf(one)].querySelector("[data-metric]").textContent;
    return `${nameOf(one, good)}: ${name.replaceAll("_", " ")} ${value}`;
  });
  say(`Done. ${heard.join("; ")}.${bad ? ` ${several(bad, "request")} failed.` : ""}`);
}

/** Say that what is shown is of another text than what stands in the form. */
function stale() {
  if (!asked) return;
  const texts = [first.value(), ...(at("other").hidden ? [] : [second.value()])];
  const same = texts.length === asked.texts.length && texts.every((text, i) => text === asked.texts[i]);
  at("results").querySelector("h2").textContent = same && at("context").value === asked.context
    ? "Results" : "Results of the text before it was changed";
}

const name = (one) => nameOf(one, results);
const details = (nodes) => {
  if (nodes) at("details").replaceChildren(...nodes);
};

/** Pairs of results whose difference means something: one text or one model, one kind of number. */
function pairs() {
  const kind = ({ reading }) => reading.report.perplexity_name;
  const alike = (a, b) => kind(a) === kind(b) && (a.place === b.place || a.model === b.model);
  return results.flatMap((a, i) => results.slice(i + 1).filter((b) => alike(a, b)).map((b) => [a, b]));
}

function show() {
  const couples = pairs();
  if (!couples[view.pair]) view.pair = 0;
  if (view.view === "difference" && !couples.length) view.view = "heat";
  if (!(view.view in VIEWS)) view.view = "heat";
  if (!(view.mode in MODES)) view.mode = "surprisal";
  const told = (mode) => results.some((one) => tells(one.reading, mode));
  if (!told(view.mode)) view.mode = "surprisal";
  const unlike = "Log-probabilities of different kinds have no difference.";
  const shown = Object.entries(VIEWS).filter(([value]) => value !== "difference" || results.length > 1);
  const views = shown.map(([value, title]) => ({ value, title, off: value === "difference" && !couples.length && unlike }));
  choice(at("view"), views, view.view, (value) => {
    view.view = value;
    show();
  });
  const untold = "This kind of model does not tell it.";
  const modes = Object.entries(MODES).map(([value, { title }]) => ({ value, title, off: told(value) ? "" : untold }));
  choice(at("mode"), modes, view.mode, (value) => {
    view.mode = value;
    at("legend").replaceChildren(...legend(view.mode, results.map((one) => one.reading)), ...lacking());
    for (const one of strips) one.repaint();
  });
  at("mode").hidden ||= view.view !== "heat";
  choice(at("pair"), couples.map(([a, b], index) => ({ value: String(index), title: `${name(b)} against ${name(a)}` })), String(view.pair), (value) => {
    view.pair = Number(value);
    show();
  });
  at("pair").hidden ||= view.view !== "difference";
  at("details").hidden = view.view === "sentences";
  at("legend").hidden = view.view !== "heat" && view.view !== "difference";
  at("details").replaceChildren(make("p", { class: "dim", text: "Choose a token: click it, or reach it with Tab and go on with the arrow keys." }));
  draw(couples);
}

/** Say which models do not tell rank and entropy. */
function lacking() {
  const silent = results.filter((one) => !tells(one.reading, "rank") || !tells(one.reading, "entropy"));
  const names = [...new Set(silent.map((one) => plain(one.model)))];
  return names.length ? [make("span", { class: "dim", text: `${names.join(", ")}: no rank, entropy and alternatives from this kind of model.` })] : [];
}

function draw(couples) {
  strips = [];
  const each = (paint) => results.map((one) => make("div", { class: "part" },
    ...(results.length > 1 ? [make("h3", { text: name(one) })] : []), ...paint(one)));
  const picture = at("picture");
  picture.className = results.length > 1 && view.view !== "difference" ? "parts" : "";
  if (view.view === "heat") {
    picture.replaceChildren(...each((one) => {
      const drawn = heat(one.reading, `Tokens, ${name(one)}`, () => view.mode, details);
      strips.push(drawn);
      return [drawn.element];
    }));
    at("legend").replaceChildren(...legend(view.mode, results.map((one) => one.reading)), ...lacking());
  } else if (view.view === "sentences") {
    const top = height(results.map((one) => one.reading));
    picture.replaceChildren(...each((one) => sentences(one.reading, name(one), top)));
  } else if (view.view === "tokenizer") {
    picture.replaceChildren(...each((one) => tokenizer(one.reading, `Tokens, ${name(one)}`, details)));
  } else {
    const [a, b] = couples[view.pair];
    const drawn = difference(a.reading, b.reading, [name(a), name(b)], details);
    picture.replaceChildren(...drawn.nodes);
    at("legend").replaceChildren(...drawn.legend);
  }
}

async function copied(text, what) {
  const done = await copy(text);
  say(done ? `${what} is copied.` : "");
  complain(done ? "" : "The browser does not let this page copy; select and copy by hand.");
}

async function link() {
  const fragment = await fold({ ...asked, ...view });
  if (fragment.length > LONGEST) {
    complain(`The text is too long for a link: it would have ${count(fragment.length)} characters, and ${count(LONGEST)} are the most; download the report instead.`);
    return;
  }
  history.replaceState(null, "", `#${fragment}`);
  const done = await copy(location.href);
  const long = fragment.length > 2000 ? " Some programs cut links of this length." : "";
  say((done ? "The link is copied, and stands in the address bar." : "The link stands in the address bar.") + long);
}

async function report() {
  say("Making the report…");
  try {
    save(await api.page(asked.models, asked.texts, asked.context), "fairway-report.html");
    say("The report is downloaded.");
  } catch (problem) {
    say("");
    complain(plain(problem.message));
  }
}

/** Show what a link holds. */
async function restore() {
  let held;
  try {
    held = await unfold(location.hash.slice(1));
  } catch {
    complain("The link is damaged: what stands behind its # cannot be read. Ask for it again.");
    return;
  }
  if (!held) return;
  running?.abort();
  await idle;
  first.set(held.texts[0] ?? "");
  two(held.texts.length > 1);
  second.set(held.texts[1] ?? "");
  at("context").value = held.context;
  at("before").open = Boolean(held.context);
  Object.assign(view, { view: held.view, mode: held.mode, pair: held.pair });
  results = [];
  const lost = picker?.choose(held.models) ?? [];
  // Whoever made the link must not make this server work for long by its being followed.
  if ([...held.texts, held.context].join("").length > UNASKED) {
    say("The link holds a long text; press Score to have it scored.");
  } else {
    await run();
  }
  if (lost.length) complain(`This server does not have ${lost.map(plain).join(", ")}, which the link names.`);
}

async function begin() {
  try {
    picker = models(at("models"), await api.models());
  } catch (problem) {
    complain(plain(problem.message));
    return;
  }
  await restore();
}

at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  run();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  run();
});
at("ask").addEventListener("input", stale);
at("stop").addEventListener("click", () => running?.abort());
at("example").addEventListener("click", () => {
  first.set(EXAMPLE);
  stale();
  at("text").focus();
});
at("two").addEventListener("click", () => {
  two(at("other").hidden);
  stale();
  if (!at("other").hidden) at("second").focus();
});
at("link").addEventListener("click", link);
at("save").addEventListener("click", report);
at("json").addEventListener("click", () => copied(json(results), "The JSON"));
at("csv").addEventListener("click", () => copied(csv(results), "The table of tokens"));
// A file that misses the boxes would take the page's place.
for (const type of ["dragover", "drop"]) {
  addEventListener(type, (event) => {
    if (event.defaultPrevented || !event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    if (type === "drop") first.load(event.dataTransfer.files[0]);
  });
}
addEventListener("hashchange", restore);
at("version").textContent = VERSION;
if (RUNS) at("links").append(make("a", { href: "runs", text: "Runs" }));
if (DOCS) at("links").append(make("a", { href: "docs", text: "API" }));
await begin();
document.documentElement.dataset.ready = "yes";
