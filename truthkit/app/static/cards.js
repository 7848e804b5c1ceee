// One card per decoder: what it is, how strong, what it answered.

import { difference } from "./difference.js";
import { el } from "./dom.js";
import { clearProblems, showProblem, withSlider } from "./fields.js";
import { packed, unpacked } from "./history.js";
import { PatchMap } from "./patches.js";
import { Tokens } from "./tokens.js";

const AMATEUR_HELP = "what hallucinates more than the model does: adapters and models come from --amateur when the app starts.";
const WRITTEN = "written out …";
let ids = 0;

export class Card {
  /**
   * `facts` is what the server says about itself; `start` may name options and the use of each vector. `acts` are what
   * the page does: remove(card), goOn(card), changed(card).
   */
  constructor(facts, start, acts) {
    this.facts = facts;
    this.acts = acts;
    this.said = null;
    this.fields = new Map();
    this.id = `card${(ids += 1)}`;
    this.choice = el("select", { id: `${this.id}-decoder`, "aria-label": "Decoder", onchange: () => this.#choose({}, true) },
      [...facts.decoders.map((decoder) => decoder.name), WRITTEN].map((name) => el("option", { value: name }, name)));
    this.choice.value = facts.decoders.some((decoder) => decoder.name === start.decoder) ? start.decoder : WRITTEN;
    this.body = el("div", { class: "card-body", oninput: () => this.#note() });
    this.steering = facts.vectors.map((vector, i) => this.#steer(vector, start.steering?.[i] ?? { strength: 0, layers: "" }));
    this.label = start.decoder;
    this.command = el("code", { class: "command", title: "The same for truthkit generate" });
    this.answer = el("div", { class: "answer" });
    this.words = el("p", { class: "words", dir: "auto", hidden: true });
    this.figures = el("div", { class: "figures" });
    this.sheet = el("div", { class: "sheets" });
    this.summary = el("p", { class: "summary" });
    this.root = el("article", { class: "card" },
      el("header", {}, this.choice,
        el("button", { type: "button", class: "plain remove", onclick: () => acts.remove(this), "aria-label": "Remove this decoder" }, "×")),
      this.summary, this.answer, this.figures,
      el("div", { class: "setting" }, this.body,
        this.steering.length ? el("details", { class: "steering" }, el("summary", {}, "Steering"), this.steering.map((one) => one.root)) : null),
      this.command, this.sheet);
    this.clear("No answer yet.");
    this.#choose(start.options ?? {}, false);
    if (!this.decoder) this.fields.get("spec").value = start.options === null ? start.decoder : "";
    this.#note();
  }

  get decoder() {
    return this.facts.decoders.find((decoder) => decoder.name === this.choice.value);
  }

  get needsImage() {
    return this.decoder?.needs_image ?? false;
  }

  get needsContext() {
    return this.decoder?.needs_context ?? /\bcad\b/.test(this.fields.get("spec")?.value ?? "");
  }

  /** The card as the server reads it. */
  request() {
    const steering = this.steering.map((one) => ({ strength: one.strength.valueAsNumber || 0, layers: one.layers.value }));
    if (!this.decoder) return { decoder: this.fields.get("spec").value, options: null, steering };
    return { decoder: this.choice.value, options: this.#options(), steering };
  }

  /** Whether every field holds what it can; the browser says which doesn't. */
  valid() {
    const bad = [...this.root.querySelectorAll("input, select, textarea")].find((input) => !input.checkValidity());
    if (!bad) return true;
    bad.closest("details")?.setAttribute("open", "");
    return bad.reportValidity();
  }

  /** Whether every field that must be filled in is. */
  complete() {
    return [...this.root.querySelectorAll("input, select")].every((input) => input.checkValidity());
  }

  /** Say next to each field what the server found wrong with it. */
  showProblems(problems) {
    const found = problems.map(({ field, message }) => [this.#fieldOf(field), message]);
    clearProblems(this.root, found.map(([input]) => input));
    for (const [input, message] of found) showProblem(input, message);
    return found.map(([input]) => input);
  }

  #fieldOf(field) {
    const [name, vector] = field.split(" ");
    if (vector !== undefined) return this.steering[vector][name];
    return this.fields.get(field) ?? this.fields.get("spec") ?? this.choice;
  }

  clear(message) {
    this.tokens = new Tokens(this.label, (at, event) => this.map?.choose(at, event.token));
    this.map = null;
    this.said = null;
    this.words.replaceChildren();
    this.answer.replaceChildren(el("p", { class: "quiet" }, message));
    this.answer.classList.remove("stale", "busy");
    this.figures.replaceChildren();
    this.sheet.replaceChildren();
  }

  begin() {
    this.clear("");
    this.answer.replaceChildren(this.tokens.root, this.words);
    this.answer.classList.add("busy");
    this.answer.setAttribute("aria-busy", "true");
  }

  add(event) {
    this.tokens.add(event);
    this.figures.textContent = `${this.tokens.events.length} tokens`;
  }

  finish(event) {
    this.stop();
    this.said = event;
    this.tokens.finish(event);
    const facts = [
      `${event.tokens} ${event.tokens === 1 ? "token" : "tokens"}${event.finished ? "" : ", not at its end"}`,
      event.tokens_per_second === null ? null : `${event.tokens_per_second.toFixed(1)} tokens/s`,
      this.tokens.pushed || this.tokens.events[0]?.views.length > 1 ? `${this.tokens.pushed} pushed` : null,
      event.parts_at === null ? null : `parts at token ${event.parts_at + 1}`,
    ];
    this.figures.replaceChildren(el("p", {}, facts.filter(Boolean).join(" · ")), ...this.#objects(event.objects));
    if (!event.finished) this.tokens.root.append(el("span", { class: "quiet", title: "cut off here" }, " …"));
    if (this.facts.model.takes_images && this.seesOneImage && this.tokens.events.length) this.#addMap();
    if (this.facts.model.chats && event.text.trim()) {
      this.figures.append(el("button", { type: "button", class: "plain go-on", onclick: () => this.acts.goOn(this) }, "Go on with this answer"));
    }
  }

  #addMap() {
    this.map = new PatchMap(this.facts.model.layers, (layer, onPlace) => this.acts.compare(this, layer, onPlace));
    this.map.choose(0, this.tokens.events[0].token);
    this.sheet.append(this.map.root);
  }

  /** What the answer names of a drawn scene. */
  #objects(objects) {
    if (!objects) return [];
    const said = ([words, names, kind]) => el("p", { class: kind }, `${words}: ${names.join(", ")}`);
    return [["Not in the picture", objects.invented, "invented"], ["In the picture", objects.seen], ["Left out", objects.missed]]
      .filter(([, names]) => names.length)
      .map(said);
  }

  /** Show the answer's tokens, or its words beside those of `first`; the first answer itself has its words plain. */
  show(first) {
    const worded = first !== null && this.said !== null;
    this.tokens.root.hidden = worded;
    this.words.hidden = !worded;
    if (worded) this.words.replaceChildren(...(first === this ? [this.said.text.trim()] : difference(first.said.text, this.said.text)));
  }

  /** What is typed, and what was answered, to be kept. */
  record() {
    const error = this.answer.querySelector(".error")?.textContent ?? null;
    return { ...this.request(), label: this.label, answer: this.said, error, tokens: this.tokens.events.map(packed) };
  }

  /** Show an answer that was kept. */
  recall({ answer, error, tokens }) {
    this.begin();
    this.stop();
    for (const token of tokens ?? []) this.add(unpacked(token));
    if (answer) this.finish(answer);
    if (error) this.fail(error);
    if (!answer && !error && !tokens?.length) this.clear("No answer yet.");
  }

  stop() {
    this.answer.classList.remove("busy");
    this.answer.removeAttribute("aria-busy");
  }

  fail(message) {
    this.stop();
    if (!this.tokens.events.length) this.answer.replaceChildren();
    this.answer.append(el("p", { class: "error", role: "alert" }, message));
  }

  /** RITUAL's transforms of each image, the drawn one marked. */
  showTransforms({ sheets, reply, fell_back: fellBack }) {
    const asked = reply === null ? null : el("p", { class: "help" },
      `Asked for a transform, the model replied ‘${reply}’.`, fellBack ? " That names none, so one was drawn." : "");
    this.#pictures("Transforms of the image", asked ?? "",
      ...sheets.map((cells) => el("ul", { class: "sheet" }, cells.map((cell) =>
        el("li", { class: cell.drawn ? "drawn" : undefined },
          el("img", { src: cell.src, alt: cell.name === "original" ? "the image" : `the image after ${cell.name}`, loading: "lazy" }),
          el("span", {}, cell.name, cell.drawn ? el("strong", {}, reply === null || fellBack ? " drawn" : " chosen") : "")))))); 
  }

  /** The image beside what VCD's noise leaves of it. */
  showNoised({ step, seen, noised }) {
    if (!noised) {
      return this.#pictures("The image under noise", el("p", { class: "help" }, "This model’s pixels are packed in patches, and are not shown."));
    }
    const cell = (src, words) => el("li", {}, el("img", { src, alt: words, loading: "lazy" }), el("span", {}, words));
    this.#pictures("The image under noise",
      el("ul", { class: "sheet wide-sheet" }, cell(seen, "as the model sees it"), cell(noised, `as its second view does, step ${step} of 1000`)),
      el("p", { class: "help" }, "What the noise carries beyond black and white is cut off here."));
  }

  #pictures(title, ...content) {
    this.sheet.append(el("details", {}, el("summary", {}, title), content));
  }

  #choose(options, byHand) {
    this.fields.clear();
    clearProblems(this.root);
    const decoder = this.decoder;
    if (!decoder) {
      const input = this.#input("spec", el("input", { type: "text", required: true, placeholder: "ritual:alpha=2+vcd", spellcheck: false }));
      this.summary.textContent = "A decoder as on the command line; several at once are joined by +.";
      this.body.replaceChildren(
        el("div", { class: "field" }, el("label", { for: input.id }, "Decoder"), input));
    } else {
      const fields = decoder.options.map((option) => this.#field(option, options[option.name] ?? ""));
      const open = byHand && fields.length > 0;
      this.summary.textContent = decoder.summary;
      this.body.replaceChildren(...(fields.length ? [el("details", { class: "options", open }, el("summary", {}, "Options"), fields)] : []));
    }
    this.#note();
  }

  #field(option, value) {
    const helpId = `${this.id}-${option.name}-help`;
    const input = this.#input(option.name, this.#widget(option, value));
    input.setAttribute("aria-describedby", helpId);
    const name = option.name.replaceAll("_", " ");
    return el("div", { class: "field" },
      el("label", { for: input.id }, name), option.range ? withSlider(input, option.range, option.default, name) : input,
      option.choices.length ? datalist(input, option.choices) : null,
      el("p", { class: "help", id: helpId }, option.name === "amateur" ? AMATEUR_HELP : option.help));
  }

  #input(name, input) {
    input.id = `${this.id}-${name}`;
    this.fields.set(name, input);
    return input;
  }

  #widget(option, value) {
    const select = (pairs) => {
      const made = el("select", {}, pairs.map(([key, text]) => el("option", { value: key }, text)));
      made.value = value;
      return made;
    };
    if (option.name === "amateur") {
      return select([["", "its own, if it has one"], ["prompt", "the model, told to be dishonest"], ...this.facts.amateurs.map((name) => [name, name])]);
    }
    if (option.kinds.length === 1 && option.kinds[0] === "true or false") {
      return select([["", option.default], ...["true", "false"].filter((word) => word !== option.default).map((word) => [word, word])]);
    }
    const numeric = option.kinds.every((kind) => kind === "a number" || kind === "an integer");
    return el("input", {
      type: numeric ? "number" : "text",
      step: numeric ? (option.kinds.includes("a number") ? "any" : "1") : undefined,
      placeholder: option.default.replaceAll("\n", " "),
      spellcheck: false,
      value,
    });
  }

  #options() {
    const written = [...this.fields].map(([name, input]) => [name, input.value.trim()]);
    return Object.fromEntries(written.filter(([, value]) => value !== ""));
  }

  #steer(vector, use) {
    const id = `${this.id}-${vector.name}`;
    const one = {
      strength: el("input", { id: `${id}-strength`, type: "number", step: "any", value: String(use.strength), required: true }),
      layers: el("input", { id: `${id}-layers`, type: "text", value: use.layers, placeholder: vector.layers || "all of it", spellcheck: false }),
    };
    const most = 4 * Math.abs(vector.strength) || 4;
    one.root = el("fieldset", { class: "steer" },
      el("legend", {}, "Steer by ", el("bdi", {}, vector.name)),
      el("div", { class: "field" }, el("label", { for: one.strength.id }, "strength"), withSlider(one.strength, [-most, most, most / 100], 0, "strength")),
      el("div", { class: "field" }, el("label", { for: one.layers.id }, "layers"), one.layers));
    one.root.addEventListener("input", () => this.#note());
    one.vector = vector;
    return one;
  }

  /** Write down the card as the command line would have it. */
  #note() {
    const options = this.decoder ? Object.entries(this.#options()).map(([name, value]) => `${name}=${value}`).join(",") : "";
    const spec = this.decoder ? this.choice.value + (options && `:${options}`) : this.fields.get("spec").value;
    const steers = this.steering.filter((one) => one.strength.valueAsNumber).map((one) => {
      const layers = one.layers.value.trim() || one.vector.layers;
      return `${one.vector.name}:${one.strength.value}${layers && `,layers=${layers}`}`;
    });
    this.label = [spec || "?", ...steers].join(" + ");
    this.command.textContent = [`--decoder ${shell(spec)}`, ...steers.map((text) => `--steer ${shell(text)}`)].join(" ");
    this.root.setAttribute("aria-label", this.label);
    this.acts.changed(this);
  }
}

const shell = (text) => (/^[\w.:=+,/-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

function datalist(input, choices) {
  const list = el("datalist", { id: `${input.id}-choices` }, choices.map((choice) => el("option", { value: choice })));
  input.setAttribute("list", list.id);
  return list;
}
