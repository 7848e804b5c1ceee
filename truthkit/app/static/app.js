// The page: asks the server what it has, sends runs, and shows what comes back.

import * as api from "./api.js";
import { Card } from "./cards.js";
import { chosen, scaleOf, showLegend } from "./colours.js";
import { fill, goOn, prepare, promptField, promptRequest, promptState, showScene } from "./composer.js";
import { byId, el, hideAlert, recall, remember, showAlert } from "./dom.js";
import { clearProblems, showProblem } from "./fields.js";
import { forgetRuns, holdLink, keepRun, linkTo, linkedState, readRuns, saveFile, showRuns } from "./history.js";
import { closeDetail, hideDetail } from "./tokens.js";

const CHECK_AFTER = 350; // milliseconds without a key

const cards = [];
let facts = null;
let running = null;
let shown = null; // the run whose answers are on the cards: what was asked, and when
let checking = 0;

addEventListener("error", (event) => showAlert(`The page has a fault: ${event.message}`));
addEventListener("unhandledrejection", (event) => showAlert(event.reason?.message ?? String(event.reason)));
addEventListener("hashchange", () => location.reload());
start();

async function start() {
  setUpTheme();
  byId("alert-close").addEventListener("click", hideAlert);
  if (/Mac|iP(hone|ad)/.test(navigator.platform)) byId("shortcut").textContent = "⌘ ↵";
  try {
    facts = await api.about();
  } catch (error) {
    return showAlert(holdLink() ? `${error.message} What the link restores waits for it in this tab.` : error.message);
  }
  byId("main").hidden = false;
  const { model, decoders, vectors } = facts;
  const size = model.parameters >= 1e9 ? `${(model.parameters / 1e9).toFixed(1)}B` : `${(model.parameters / 1e6).toFixed(1)}M`;
  byId("model").textContent = `${model.name} · ${size} parameters · ${model.layers} layers · ${model.dtype} on ${model.device}`;
  document.title = `truthkit · ${model.name}`;
  prepare(model, facts.limits, api.scene);
  if (model.takes_images) byId("prompt").placeholder = "What is in the picture?";
  byId("add").append(...[...decoders.map((decoder) => decoder.name), "written out …"].map((name) => el("option", { value: name }, name)));
  byId("add").value = decoders.some((decoder) => decoder.name === "ritual") ? "vcd" : "dola";
  setUpColours(vectors);
  setUpKeeping();
  setCards(firstCards());
  showExamples();
  byId("add-button").addEventListener("click", () => addCard({ decoder: byId("add").value })?.choice.focus());
  byId("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    run();
  });
  byId("composer").addEventListener("input", (event) => clearProblems(event.target.closest(".field") ?? event.target));
  byId("cancel").addEventListener("click", cancel);
  addEventListener("keydown", shortcuts);
  byId("prompt").focus();
  const linked = linkedState();
  if (linked) await restore(linked, "Restored from the link. Nothing has run.");
}

// -- cards -------------------------------------------------------------------------------------------------------------

function firstCards() {
  const steering = facts.vectors.map(({ strength }) => ({ strength, layers: "" }));
  if (steering.length) return [{ decoder: "greedy" }, { decoder: "greedy", steering }];
  if (facts.model.takes_images) return [{ decoder: "greedy" }, { decoder: "ritual" }];
  return [{ decoder: "greedy" }, { decoder: "icd", options: { amateur: facts.amateurs[0] ?? "" } }];
}

function setCards(starts) {
  for (const card of cards.splice(0)) card.root.remove();
  shown = null;
  starts.forEach(addCard);
  repaint();
}

function addCard(start) {
  if (cards.length >= facts.limits.cards) return showAlert(`At most ${facts.limits.cards} decoders answer at once.`);
  const card = new Card(facts, start, { remove: removeCard, goOn: goOnWith, changed: checkSoon, compare });
  cards.push(card);
  byId("cards").append(card.root);
  card.root.addEventListener("change", openPassage);
  openPassage();
  return card;
}

function removeCard(card) {
  cards.splice(cards.indexOf(card), 1);
  card.root.remove();
  repaint();
  byId("add").focus();
}

/** Show the passage's field once a decoder needs it. */
function openPassage() {
  if (cards.some((card) => card.needsContext)) byId("more").open = true;
}

/** Once nothing has been typed for a moment, ask what is wrong with the cards. */
function checkSoon() {
  clearTimeout(checking);
  checking = setTimeout(async () => {
    const asked = cards.filter((card) => card.complete());
    if (!asked.length || running) return;
    const problems = await api.check(asked.map((card) => card.request())).catch(() => null);
    if (!problems) return; // the run will tell
    asked.forEach((card, i) => card.showProblems(problems.filter((problem) => problem.card === i)));
  }, CHECK_AFTER);
}

function goOnWith(card) {
  const { prompt, messages } = shown.prompt;
  goOn([...messages, { role: "user", content: prompt }, { role: "assistant", content: card.said.text }]);
  say(`Goes on with the answer of ${card.label}.`);
}

/** The map of the card's answer in a layer; `onPlace` is told how many runs are before. */
async function compare(card, layer, onPlace) {
  const { images, ...prompt } = shown.prompt;
  const answer = card.tokens.events.map((token) => token.id);
  let found = null;
  const asking = { run: newId(), ...prompt, images: images.map((image) => image.content), cards: [card.asked], answer, layer };
  await api.map(asking, (event) => {
    if (event.event === "waiting") onPlace(event.ahead);
    if (event.event === "error") throw new Error(event.message);
    if (event.event === "cosines") found = event;
  });
  return found;
}

function shortcuts(event) {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    if (!running) byId("composer").requestSubmit();
  } else if (event.key === "Escape" && !closeDetail() && running) {
    cancel();
  }
}

// -- a run -------------------------------------------------------------------------------------------------------------

async function run() {
  if (running) return;
  if (!cards.length) return showAlert("There is no decoder to answer; add one.");
  if (!cards.every((card) => card.valid())) return;
  hideAlert();
  hideDetail();
  clearTimeout(checking);
  clearProblems(document);
  const asked = [...cards];
  byId("examples").open = false;
  running = { id: newId(), abort: new AbortController(), cards: asked, begun: false };
  shown = { at: new Date().toISOString(), model: facts.model.name, prompt: promptState() };
  for (const card of asked) {
    card.asked = card.request();
    card.seesOneImage = shown.prompt.images.length === 1;
  }
  showRunning(true);
  say("Asking …");
  try {
    const asking = { run: running.id, ...promptRequest(), cards: asked.map((card) => card.request()) };
    await api.run(asking, receive, running.abort.signal);
  } catch (error) {
    if (error.name === "AbortError") say("Cancelled.");
    else if (error instanceof api.Refused) showRefusal(error.problems, asked);
    else {
      showAlert(error.message);
      say("Not answered.");
    }
  } finally {
    if (running.begun) {
      for (const card of asked) {
        card.stop();
        if (!card.tokens.events.length && !card.answer.querySelector(".error")) card.clear("No answer.");
      }
      if (asked.some((card) => card.tokens.events.length)) keepRun(record(asked));
      showRuns(restore);
    }
    running = null;
    showRunning(false);
    repaint();
  }
}

const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");

/** Each problem next to its field, and the first one in view. */
function showRefusal(problems, asked) {
  const fields = problems.filter(({ card }) => card === null).map(({ field, message }) => {
    const input = promptField(field);
    showProblem(input, message);
    return input;
  });
  asked.forEach((card, i) => fields.push(...card.showProblems(problems.filter((problem) => problem.card === i))));
  fields[0]?.focus();
  say(`Not run: ${problems.length === 1 ? "one field is" : `${problems.length} fields are`} to be mended.`);
}

async function cancel() {
  if (!running) return;
  const { id, abort } = running;
  say("Cancelling …");
  const known = await api.cancel(id).catch(() => false);
  if (!known && running?.id === id) abort.abort();
}

function receive(event) {
  if (!running.begun) {
    running.begun = true;
    running.cards.forEach((card) => card.clear("Waiting …"));
    repaint();
  }
  const card = running.cards[event.index];
  switch (event.event) {
    case "waiting": {
      const place = `Waiting: ${event.ahead === 1 ? "one run is" : `${event.ahead} runs are`} before yours …`;
      say(place);
      running.cards.forEach((one) => one.clear(place));
      break;
    }
    case "answering":
      say(`${card.label} answers (${event.index + 1} of ${running.cards.length}) …`);
      card.begin();
      if (event.index === 0 && card.answer.getBoundingClientRect().top > innerHeight - 120) {
        card.answer.scrollIntoView({ block: "center" });
      }
      break;
    case "token":
      card.add(event);
      card.tokens.paintLast(chosen(), scaleOf([card], chosen()));
      if (event.pushed_by !== null) legend();
      break;
    case "answer":
      card.finish(event);
      byId("said").textContent = `${card.label}: ${event.text}`;
      repaint();
      break;
    case "projections":
      card.tokens.projections[event.vector] = event.layers;
      repaint();
      break;
    case "transforms":
      card.showTransforms(event);
      break;
    case "noised":
      card.showNoised(event);
      break;
    case "error":
      card.fail(event.message);
      break;
    case "end": {
      const failed = running.cards.filter((one) => one.answer.querySelector(".error")).length;
      const outcome = event.limit ? "Stopped" : event.cancelled ? "Cancelled" : failed ? `${failed} of ${running.cards.length} failed` : "Done";
      const reason = event.limit ? `, for ${event.limit} s are the most that one run may take` : "";
      say(`${outcome} after ${event.seconds.toFixed(1)} s${reason}.`);
    }
  }
}

function showRunning(on) {
  byId("run").setAttribute("aria-disabled", String(on));
  byId("cancel").hidden = !on;
  byId("launch").classList.toggle("running", on);
  if (!on && document.activeElement === document.body) byId("run").focus();
}

const say = (message) => {
  byId("status").textContent = message;
};

// -- examples, earlier runs, files, links ------------------------------------------------------------------------------------

function showExamples() {
  byId("examples").hidden = !facts.examples.length;
  byId("examples-list").replaceChildren(...facts.examples.map((example) => {
    const button = el("button", { type: "button", onclick: () => take(example) }, el("span", {}, example.title));
    if (example.scene !== null) {
      const picture = el("img", { alt: "", width: 48, height: 48 });
      button.prepend(picture);
      api.scene(example.scene).then((blob) => {
        picture.src = URL.createObjectURL(blob);
      });
    }
    return el("li", {}, button);
  }));
}

async function take({ title, prompt, context, raw, scene, sample, new_tokens: newTokens, cards: starts }) {
  if (running) return;
  await fill({ prompt, context, raw, settings: { max_new_tokens: newTokens, sample } });
  if (scene !== null) await showScene(await api.scene(scene));
  setCards(starts);
  say(`${title}: filled in, not run yet.`);
  byId("run").focus();
}

const typed = () => ({ prompt: shown?.prompt ?? promptState(), cards: cards.map((card) => card.record()) });

const record = (asked) => ({ ...shown, truthkit: facts.version, cards: asked.map((card) => card.record()) });

/** Bring back what was typed, and what was answered where it was kept. */
async function restore(state, word) {
  if (running) return;
  hideAlert();
  const known = (card) => card.options === null || facts.decoders.some((decoder) => decoder.name === card.decoder);
  const starts = state.cards.filter(known).slice(0, facts.limits.cards);
  await fill(state.prompt);
  setCards(starts);
  shown = state.at ? { at: state.at, model: state.model, prompt: state.prompt } : null;
  if (state.at) {
    cards.forEach((card, i) => {
      card.asked = card.request();
      card.seesOneImage = state.prompt.images.length === 1 && state.prompt.images[0].content !== null && state.model === facts.model.name;
      card.recall(starts[i]);
    });
  }
  repaint();
  if (starts.length < state.cards.length) showAlert("A decoder of that run needs another model, and was left out.");
  say(word ?? `The run of ${new Date(state.at).toLocaleString()}${state.model === facts.model.name ? "" : `, of ${state.model}`}.`);
}

function setUpKeeping() {
  showRuns(restore);
  byId("save").addEventListener("click", () => saveFile("truthkit-run.json", { model: facts.model.name, truthkit: facts.version, ...shown, ...typed() }));
  byId("save-runs").addEventListener("click", () => saveFile("truthkit-runs.json", readRuns()));
  byId("forget-runs").addEventListener("click", () => {
    forgetRuns();
    showRuns(restore);
    say("The earlier runs are forgotten.");
    byId("prompt").focus();
  });
  byId("link").addEventListener("click", showLink);
}

async function showLink() {
  const hidden = !byId("link-box").hidden;
  byId("link-box").hidden = hidden;
  byId("link").setAttribute("aria-expanded", String(!hidden));
  if (hidden) return;
  const { images, ...prompt } = promptState();
  const text = linkTo({ prompt, cards: cards.map((card) => card.request()) });
  byId("link-text").value = text;
  byId("link-text").select();
  const copied = await navigator.clipboard?.writeText(text).then(() => true, () => false);
  byId("link-help").textContent = [
    copied ? "Copied." : "Copy it from here.",
    "All of it stands behind the #, which browsers send to nobody; it opens where this app has been opened before, and runs nothing by itself.",
    images.length ? "The image is not in it." : "",
  ].join(" ");
}

// -- colours -----------------------------------------------------------------------------------------------------------

function setUpColours(vectors) {
  const steered = vectors.map((vector, i) => ({ ...vector, i })).filter((vector) => vector.site !== "vision");
  byId("projection-mode").hidden = byId("projection-mode").disabled = !steered.length;
  byId("vector").append(...steered.map((vector) => el("option", { value: vector.i }, vector.name)));
  const layers = () => {
    const vector = vectors[byId("vector").value || 0];
    byId("layer").replaceChildren(...(vector?.all_layers ?? []).map((layer) => el("option", { value: layer }, layer)));
    const preferred = vector?.layers.split("+")[0];
    if (preferred) byId("layer").value = preferred;
  };
  layers();
  byId("vector").addEventListener("change", layers);
  for (const id of ["mode", "vector", "layer"]) byId(id).addEventListener("change", repaint);
}

const legend = () => showLegend(cards, chosen(), scaleOf(cards, chosen()));

function repaint() {
  const now = chosen();
  const scale = scaleOf(cards, now);
  byId("projection-choice").hidden = now.mode !== "projection";
  const first = now.mode === "words" ? cards.find((card) => card.said) ?? null : null;
  for (const card of cards) {
    card.tokens.paint(now, scale);
    card.show(first);
  }
  showLegend(cards, now, scale);
}

function setUpTheme() {
  const apply = (theme) => {
    document.documentElement.style.colorScheme = theme;
    byId("theme").value = theme;
  };
  apply(recall("truthkit-theme") ?? "light dark");
  byId("theme").addEventListener("change", () => {
    apply(byId("theme").value);
    remember("truthkit-theme", byId("theme").value);
  });
}
