// The page: asks the server what it has, sends runs, and shows what comes back.

import * as api from "./api.js";
import { Card } from "./cards.js";
import { prepare, promptRequest } from "./composer.js";
import { byId, el, hideAlert, showAlert, signed } from "./dom.js";
import { closeDetail, hideDetail, scaleOf, slotOf } from "./tokens.js";

const cards = [];
let facts = null;
let running = null;

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
    return showAlert(error.message);
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
  firstCards().forEach(addCard);
  repaint();
  byId("add-button").addEventListener("click", () => addCard({ decoder: byId("add").value })?.choice.focus());
  byId("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    run();
  });
  byId("cancel").addEventListener("click", cancel);
  addEventListener("keydown", shortcuts);
  byId("prompt").focus();
}

function firstCards() {
  const strengths = facts.vectors.map((vector) => vector.strength);
  if (strengths.length) return [{ decoder: "greedy" }, { decoder: "greedy", strengths }];
  if (facts.model.takes_images) return [{ decoder: "greedy" }, { decoder: "ritual" }];
  return [{ decoder: "greedy" }, { decoder: "icd", options: { amateur: facts.amateurs[0] ?? "" } }];
}

function addCard(start) {
  if (cards.length >= facts.limits.cards) return showAlert(`At most ${facts.limits.cards} decoders answer at once.`);
  const card = new Card(facts, start, removeCard);
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
  const asked = [...cards];
  running = { id: crypto.randomUUID(), abort: new AbortController(), cards: asked };
  showRunning(true);
  asked.forEach((card) => card.clear("Waiting …"));
  repaint();
  try {
    const asking = { run: running.id, ...promptRequest(), cards: asked.map((card) => card.request()) };
    await api.run(asking, receive, running.abort.signal);
  } catch (error) {
    if (error.name === "AbortError") say("Cancelled.");
    else {
      showAlert(error.message);
      say("Not answered.");
    }
  } finally {
    for (const card of asked) {
      card.stop();
      if (!card.tokens.events.length && !card.answer.querySelector(".error")) card.clear("No answer.");
    }
    running = null;
    showRunning(false);
    repaint();
  }
}

async function cancel() {
  if (!running) return;
  const { id, abort } = running;
  say("Cancelling …");
  const known = await api.cancel(id).catch(() => false);
  if (!known && running?.id === id) abort.abort();
}

function receive(event) {
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
      card.tokens.paintLast(colouring());
      if (event.pushed_by !== null) showLegend();
      break;
    case "answer":
      card.finish(event);
      repaint();
      break;
    case "projections":
      card.tokens.projections[event.vector] = event.layers;
      repaint();
      break;
    case "transforms":
      card.showTransforms(event);
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

// -- colours -----------------------------------------------------------------------------------------------------------

function setUpColours(vectors) {
  const shown = vectors.map((vector, i) => ({ ...vector, i })).filter((vector) => vector.site !== "vision");
  byId("projection-mode").hidden = !shown.length;
  byId("vector").append(...shown.map((vector) => el("option", { value: vector.i }, vector.name)));
  const layers = () => {
    const vector = vectors[byId("vector").value || 0];
    byId("layer").replaceChildren(...(vector?.all_layers ?? []).map((layer) => el("option", { value: layer }, layer)));
    const preferred = vector?.layers.split("+")[0];
    if (preferred) byId("layer").value = preferred;
  };
  layers();
  byId("vector").addEventListener("change", layers);
  for (const id of ["modes", "vector", "layer"]) byId(id).addEventListener("change", repaint);
}

const colouring = () => ({
  mode: document.querySelector("input[name=mode]:checked").value,
  vector: Number(byId("vector").value || 0),
  layer: byId("layer").value,
});

const scale = () => scaleOf(cards.flatMap((card) => card.tokens.along(colouring())));

function repaint() {
  const chosen = colouring();
  const common = scale();
  byId("projection-choice").hidden = chosen.mode !== "projection";
  cards.forEach((card) => card.tokens.paint(chosen, common));
  showLegend();
}

function showLegend() {
  const { mode } = colouring();
  const item = (sample, text) => el("li", {}, sample, text);
  let items = [];
  if (mode === "push") {
    const counts = new Map();
    for (const { pushed_by: by } of cards.flatMap((card) => card.tokens.events)) {
      if (by !== null) counts.set(by, (counts.get(by) ?? 0) + 1);
    }
    items = [...counts].map(([name, count]) => item(el("span", { class: "swatch", "data-slot": slotOf(name) }, "Ab"), `${name} (${count})`));
    items.push(item(el("span", { class: "swatch" }, "Ab"), "nobody: the model’s own first choice"));
  } else if (mode === "parting") {
    items = [item(el("span", { class: "swatch", "data-parted": "" }, "‖ Ab"), "where an answer’s tokens part from the first answer’s")];
  } else {
    const { least, most, centre } = scale();
    items = least === null
      ? [item("", "nothing to show yet: run a prompt")]
      : [item(el("span", { class: "gradient" }), `from ${signed(least)} over ${signed(centre)}, the median, to ${signed(most)} along the unit vector`)];
  }
  byId("legend").replaceChildren(...items);
}

function setUpTheme() {
  const apply = (theme) => {
    document.documentElement.style.colorScheme = theme;
    byId("theme").value = theme;
  };
  apply(localStorage.getItem("truthkit-theme") ?? "light dark");
  byId("theme").addEventListener("change", () => {
    apply(byId("theme").value);
    localStorage.setItem("truthkit-theme", byId("theme").value);
  });
}
