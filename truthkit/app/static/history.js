// Earlier runs, kept in this browser alone: a list that survives a reload, files of them, and links to their prompts.

import { byId, el, showAlert } from "./dom.js";

const KEY = "truthkit-runs";
const HELD = "truthkit-link";
const MOST_RUNS = 30;
const MOST_CHARACTERS = 2_000_000;
const MOST_OF_IMAGES = 150_000; // characters of base64 in one run; larger images are left out

/** What a token's event is in a list: its numbers, without what the views said. */
const FIELDS = ["piece", "token", "id", "probability", "entropy", "rank", "push", "pushed_by", "instead_of"];

export const packed = (event) => FIELDS.map((name) => event[name] ?? null);
export const unpacked = (list) => ({ ...Object.fromEntries(FIELDS.map((name, i) => [name, list[i]])), views: [], combined: [] });

export function readRuns() {
  try {
    const runs = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    return Array.isArray(runs) ? runs : [];
  } catch {
    return [];
  }
}

/** Keep a run, the newest first; the oldest make room. */
export function keepRun(run) {
  const small = run.prompt.images.reduce((sum, image) => sum + (image.content?.length ?? 0), 0) <= MOST_OF_IMAGES;
  const images = run.prompt.images.map(({ name, content }) => ({ name, content: small ? content : null }));
  let runs = [{ ...run, prompt: { ...run.prompt, images } }, ...readRuns()].slice(0, MOST_RUNS);
  while (runs.length) {
    const text = JSON.stringify(runs);
    if (text.length <= MOST_CHARACTERS) {
      try {
        localStorage.setItem(KEY, text);
        return;
      } catch {
        // no room, or none allowed
      }
    }
    runs = runs.slice(0, -1);
  }
}

export function forgetRuns() {
  try {
    localStorage.removeItem(KEY);
  } catch {
    // there is none
  }
}

/** List the runs; `restore` is given the one that was chosen. */
export function showRuns(restore) {
  const runs = readRuns();
  byId("runs").hidden = !runs.length;
  byId("runs-title").textContent = `Earlier runs (${runs.length})`;
  byId("runs-list").replaceChildren(...runs.map((run) => {
    const when = new Date(run.at);
    const said = run.prompt.messages.length ? `… ${run.prompt.prompt}` : run.prompt.prompt;
    return el("li", {}, el("button", { type: "button", class: "plain run", onclick: () => restore(run) },
      el("span", { class: "run-prompt" }, said.slice(0, 120)),
      el("span", { class: "quiet" }, `${when.toLocaleString([], { dateStyle: "short", timeStyle: "short" })} · ${run.model} · ${run.cards.map((card) => card.label).join(", ")}`)));
  }));
}

/** Give the browser a JSON file to save. */
export function saveFile(name, content) {
  const url = URL.createObjectURL(new Blob([JSON.stringify(content, null, 1)], { type: "application/json" }));
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

// -- links: all that is typed, in the part of an address that browsers do not send -----------------------------------------

export function linkTo(state) {
  const bytes = new TextEncoder().encode(JSON.stringify(state));
  const binary = Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
  const encoded = btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  return `${location.origin}${location.pathname}#state=${encoded}`;
}

/** What this page's address says, or what `holdLink` held in this tab, or null. */
export function linkedState() {
  const encoded = new URLSearchParams(location.hash.slice(1)).get("state") ?? held();
  if (!encoded) return null;
  try {
    const binary = atob(encoded.replaceAll("-", "+").replaceAll("_", "/"));
    const state = JSON.parse(new TextDecoder().decode(Uint8Array.from(binary, (one) => one.charCodeAt(0))));
    if (!Array.isArray(state.cards) || typeof state.prompt !== "object") throw new Error("no state of this page");
    return { prompt: state.prompt, cards: state.cards };
  } catch {
    showAlert("The link is damaged: what it should restore cannot be read.");
    return null;
  }
}

/** Keep the link of this address for the next page in this tab; whether there is one. */
export function holdLink() {
  const encoded = new URLSearchParams(location.hash.slice(1)).get("state");
  if (!encoded) return false;
  try {
    sessionStorage.setItem(HELD, encoded);
    return true;
  } catch {
    return false;
  }
}

function held() {
  try {
    const encoded = sessionStorage.getItem(HELD);
    sessionStorage.removeItem(HELD);
    return encoded;
  } catch {
    return null;
  }
}
