// The tokens of an answer: coloured, walked through by keyboard, and explained one by one.

import { isNumeric, numbers, shareOf, slotOf } from "./colours.js";
import { byId, el, percent, quoted, signed } from "./dom.js";

export class Tokens {
  /** `onToken(at, event)` is called with each token that the keyboard or a click goes to. */
  constructor(label, onToken = () => {}) {
    this.onToken = onToken;
    this.events = [];
    this.spans = [];
    this.partsAt = null;
    this.invented = [];
    this.projections = [];
    this.root = el("div", {
      class: "tokens",
      dir: "auto",
      role: "group",
      "aria-label": `Answer of ${label}. Arrow keys go through its tokens, up and down from one coloured token to the next.`,
      onkeydown: (event) => this.#walk(event),
      onfocusin: (event) => {
        this.#explain(event.target);
        const at = this.spans.indexOf(event.target);
        if (at >= 0) this.onToken(at, this.events[at]);
      },
      onfocusout: hideDetail,
      onpointerover: (event) => event.pointerType === "mouse" && this.#explain(event.target),
      onpointerout: hideDetailSoon,
    });
  }

  add(event) {
    const partial = event.piece === "" && event.token.includes("\uFFFD");
    const special = event.piece === "" && !partial;
    const begun = this.root.textContent !== "";
    const text = begun ? event.piece : event.piece.trimStart();
    const span = el("span", { class: "token", tabIndex: this.spans.length ? -1 : 0 }, text);
    if (special) span.dataset.mark = event.token;
    if (partial) span.dataset.mark = "·";
    if (event.piece.includes("\n")) span.dataset.newline = "";
    this.events.push(event);
    this.spans.push(span);
    this.root.append(span);
  }

  /** The end of the text that no token could be given: half a character. */
  finish(answer) {
    this.partsAt = answer.parts_at;
    const shown = this.events.map((event) => event.piece).join("");
    if (answer.text.startsWith(shown) && answer.text.length > shown.length) {
      this.spans.at(-1)?.append(answer.text.slice(shown.length));
    }
    this.#mark(answer.objects?.places ?? []);
  }

  /** Mark the tokens that name what is not in the picture; `places` are of characters, by code points. */
  #mark(places) {
    let at = 0;
    this.events.forEach((event, i) => {
      const end = at + [...event.piece].length;
      if (places.some(([start, stop]) => start < end && at < stop)) {
        this.spans[i].dataset.invented = "";
        this.invented[i] = true;
      }
      at = end;
    });
  }

  get pushed() {
    return this.events.filter((event) => event.pushed_by !== null).length;
  }

  /** Numbers along the chosen vector and layer, one per token, or none. */
  along({ vector, layer }) {
    return this.projections[vector]?.[layer] ?? [];
  }

  /** Colour every token; `scale` is that of all answers, from `scaleOf`. */
  paint(colouring, scale) {
    this.colouring = colouring;
    const values = this.along(colouring);
    this.spans.forEach((span, i) => this.#paintOne(span, i, colouring, scale, values[i] ?? null));
  }

  /** Colour the token that came last, which has no projection yet. */
  paintLast(colouring, scale) {
    this.colouring = colouring;
    this.#paintOne(this.spans.at(-1), this.spans.length - 1, colouring, scale, null);
  }

  #paintOne(span, i, { mode }, scale, value) {
    const { pushed_by: by } = this.events[i];
    for (const name of ["slot", "side", "parted"]) delete span.dataset[name];
    span.style.removeProperty("--share");
    const give = (share, low, high) => {
      span.dataset.side = share < 0 ? low : high;
      span.style.setProperty("--share", Math.min(1, Math.abs(share)).toFixed(3));
    };
    const share = isNumeric(mode) ? shareOf(this.events[i], mode, scale) : null;
    if (share !== null) give(share, "below", mode === "far" ? "above" : "heat");
    if (mode === "push" && by !== null) span.dataset.slot = slotOf(by);
    if (mode === "parting" && this.partsAt !== null && i >= this.partsAt) span.dataset.parted = i === this.partsAt ? "first" : "";
    if (mode === "projection" && value !== null) {
      give(scale.spread ? (value - scale.centre) / scale.spread : 0, "below", "above");
    }
  }

  #walk(event) {
    const at = this.spans.indexOf(event.target);
    if (at < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const coloured = (i) => {
      const { dataset, style } = this.spans[i];
      return ["slot", "parted", "invented"].some((name) => name in dataset) || Number(style.getPropertyValue("--share")) >= 0.5;
    };
    const forward = this.spans.findIndex((_, i) => i > at && coloured(i));
    const backward = this.spans.findLastIndex((_, i) => i < at && coloured(i));
    const last = this.spans.length - 1;
    const goal = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: last, ArrowDown: forward, ArrowUp: backward }[event.key];
    if (goal === undefined) return;
    event.preventDefault();
    if (goal < 0 || goal > last) return;
    this.spans[at].tabIndex = -1;
    this.spans[goal].tabIndex = 0;
    this.spans[goal].focus();
  }

  #explain(span) {
    const at = this.spans.indexOf(span);
    if (at >= 0) showDetail(span, this.events[at], at, this, this.along(this.colouring ?? {})[at]);
  }
}

// -- the detail of a token ---------------------------------------------------------------------------------------------

let explained = null;
let hiding = 0;

function showDetail(span, event, at, answer, value) {
  clearTimeout(hiding);
  const { pushed_by: by, instead_of: instead } = event;
  const largest = Math.max(...event.views.map((view) => Math.abs(view.push ?? 0)), 1e-9);
  const row = (name, push, top, slot) =>
    el("tr", { class: push === undefined ? "sum" : undefined },
      el("th", { scope: "row" }, name, slot === undefined ? null : el("span", { class: "swatch", "data-slot": slot })),
      el("td", { class: "number" }, push === undefined ? "" : signed(push)),
      el("td", { class: "bar-cell" }, push === undefined || push === null ? null : bar(push / largest)),
      el("td", { class: "candidates" }, top.map(([token, probability]) => el("span", { class: "candidate" }, el("bdi", {}, quoted(token)), ` ${percent(probability)}`))));
  const name = (view) => (view.layers.length ? `${view.name}, layer ${ranges(view.layers)}` : view.name);
  const slot = (view) => (view.name === by ? slotOf(by) : undefined);
  const detail = byId("detail");
  detail.replaceChildren(
    el("p", { class: "detail-head" },
      el("bdi", { class: "detail-token" }, quoted(event.token)),
      el("span", { class: "quiet" }, `token ${at + 1} of ${answer.spans.length}`)),
    el("p", {}, numbers(event)),
    el("p", {}, by === null ? "The model’s own first choice." : ["Instead of ", el("bdi", {}, quoted(instead)), ", pushed by ", el("strong", {}, by), "."]),
    ...(answer.invented[at] ? [el("p", {}, "It names what is not in the picture.")] : []),
    ...(value === undefined || value === null ? [] : [el("p", {}, `Along the vector at layer ${answer.colouring.layer}: ${signed(value, 3)}`)]),
    event.views.length === 0 ? "" : el("table", {},
      el("thead", {}, el("tr", {}, ["View", "Push", "", "Most probable"].map((text) => el("th", { scope: "col", class: text ? undefined : "bar-cell" }, text)))),
      el("tbody", {},
        event.views.map((view) => row(name(view), view.push, view.top, slot(view))),
        event.views.length > 1 ? row("combined", undefined, event.combined) : null)),
    event.views.length > 1
      ? el("p", { class: "help" }, "Push: nats in favour of this token against the model’s own choice; the views’ pushes add up to its lead. Rank, entropy and how far it was moved are of the decoder’s distribution, before temperature and top-p.")
      : "");
  detail.hidden = false;
  if (explained !== span) explained?.removeAttribute("aria-describedby");
  explained = span;
  span.setAttribute("aria-describedby", "detail");
  place();
}

function bar(share) {
  const fill = el("span", { class: share < 0 ? "fill minus" : "fill plus" });
  fill.style.width = `${Math.round(Math.abs(share) * 50)}%`;
  return el("span", { class: "bar-track", "aria-hidden": "true" }, fill);
}

const ranges = (layers) => (layers.length > 3 ? `${layers[0]}…${layers.at(-1)}` : layers.join(" + "));

function place() {
  const detail = byId("detail");
  if (!explained?.isConnected) return hideDetail();
  const token = explained.getClientRects()[0] ?? explained.getBoundingClientRect();
  const { width, height } = detail.getBoundingClientRect();
  const below = token.bottom + 8;
  const top = below + height > innerHeight && token.top - height - 8 > 0 ? token.top - height - 8 : below;
  detail.style.left = `${Math.max(8, Math.min(token.left - 12, document.documentElement.clientWidth - width - 8))}px`;
  detail.style.top = `${top}px`;
}

export function hideDetail() {
  clearTimeout(hiding);
  byId("detail").hidden = true;
  explained?.removeAttribute("aria-describedby");
  explained = null;
}

/** After a moment, in which the pointer may move onto the detail. */
function hideDetailSoon() {
  clearTimeout(hiding);
  if (explained !== document.activeElement) hiding = setTimeout(hideDetail, 200);
}

/** Whether Escape had a detail to close. */
export function closeDetail() {
  const open = !byId("detail").hidden;
  hideDetail();
  return open;
}

byId("detail").addEventListener("pointerenter", () => clearTimeout(hiding));
byId("detail").addEventListener("pointerleave", hideDetailSoon);
addEventListener("scroll", () => explained && place(), { passive: true, capture: true });
addEventListener("resize", () => explained && place());
