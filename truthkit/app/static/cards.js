// One card per decoder: what it is, how strong, what it answered.

import { el } from "./dom.js";
import { Tokens } from "./tokens.js";

const AMATEUR_HELP = "what hallucinates more than the model does: adapters and models come from --amateur when the app starts.";
const WRITTEN = "written out …";
let ids = 0;

export class Card {
  /** `facts` is what the server says about itself; `start` may name options and a strength for each vector. */
  constructor(facts, start, onRemove) {
    this.facts = facts;
    this.fields = new Map();
    this.id = `card${(ids += 1)}`;
    this.choice = el("select", { id: `${this.id}-decoder`, "aria-label": "Decoder", onchange: () => this.#choose({}) },
      [...facts.decoders.map((decoder) => decoder.name), WRITTEN].map((name) => el("option", { value: name }, name)));
    this.choice.value = start.decoder;
    this.body = el("div", { class: "card-body", oninput: () => this.#note() });
    this.steering = facts.vectors.map((vector, i) => this.#steer(vector, start.strengths?.[i] ?? 0));
    this.label = start.decoder;
    this.command = el("code", { class: "command", title: "The same for truthkit generate" });
    this.answer = el("div", { class: "answer" });
    this.figures = el("p", { class: "figures" });
    this.sheet = el("div", { class: "sheets" });
    this.root = el("article", { class: "card" },
      el("header", {}, this.choice,
        el("button", { type: "button", class: "plain remove", onclick: () => onRemove(this), "aria-label": "Remove this decoder" }, "×")),
      this.body,
      el("div", { class: "steering" }, this.steering.map((one) => one.root)),
      this.command, this.answer, this.figures, this.sheet);
    this.clear("No answer yet.");
    this.#choose(start.options ?? {});
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

  clear(message) {
    this.tokens = new Tokens(this.label);
    this.answer.replaceChildren(el("p", { class: "quiet" }, message));
    this.answer.classList.remove("stale", "busy");
    this.figures.replaceChildren();
    this.sheet.replaceChildren();
  }

  begin() {
    this.clear("");
    this.answer.replaceChildren(this.tokens.root);
    this.answer.classList.add("busy");
    this.answer.setAttribute("aria-busy", "true");
  }

  add(event) {
    this.tokens.add(event);
    this.figures.textContent = `${this.tokens.events.length} tokens`;
  }

  finish(event) {
    this.stop();
    this.tokens.finish(event);
    const facts = [
      `${event.tokens} tokens${event.finished ? "" : ", not at its end"}`,
      event.tokens_per_second === null ? null : `${event.tokens_per_second.toFixed(1)} tokens/s`,
      this.tokens.pushed || this.tokens.events[0]?.views.length > 1 ? `${this.tokens.pushed} pushed` : null,
      event.parts_at === null ? null : `parts at token ${event.parts_at + 1}`,
    ];
    this.figures.textContent = facts.filter(Boolean).join(" · ");
    if (!event.finished) this.tokens.root.append(el("span", { class: "quiet", title: "cut off here" }, " …"));
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
    this.sheet.replaceChildren(
      el("h3", {}, "Transforms of the image"), asked ?? "",
      ...sheets.map((cells) => el("ul", { class: "sheet" }, cells.map((cell) =>
        el("li", { class: cell.drawn ? "drawn" : undefined },
          el("img", { src: cell.src, alt: cell.name === "original" ? "the image" : `the image after ${cell.name}`, loading: "lazy" }),
          el("span", {}, cell.name, cell.drawn ? el("strong", {}, reply === null || fellBack ? " drawn" : " chosen") : "")))))); 
  }

  #choose(options) {
    this.fields.clear();
    const decoder = this.decoder;
    if (!decoder) {
      const input = this.#input("spec", el("input", { type: "text", required: true, placeholder: "ritual:alpha=2+vcd", spellcheck: false }));
      this.body.replaceChildren(
        el("p", { class: "summary" }, "A decoder as on the command line; several at once are joined by +."),
        el("div", { class: "field" }, el("label", { for: input.id }, "Decoder"), input));
    } else {
      const fields = decoder.options.map((option) => [option, this.#field(option, options[option.name] ?? "")]);
      const strengths = fields.filter(([option]) => isStrength(option)).map(([, field]) => field);
      const others = fields.filter(([option]) => !isStrength(option)).map(([, field]) => field);
      this.body.replaceChildren(
        el("p", { class: "summary" }, decoder.summary),
        ...(strengths.length ? [el("div", { class: "strengths" }, strengths)] : []),
        ...(others.length ? [el("details", { class: "options" }, el("summary", {}, "More options"), others)] : []));
    }
    this.#note();
  }

  #field(option, value) {
    const helpId = `${this.id}-${option.name}-help`;
    const input = this.#input(option.name, this.#widget(option, value));
    input.setAttribute("aria-describedby", helpId);
    return el("div", { class: "field" },
      el("label", { for: input.id }, option.name.replaceAll("_", " ")), input,
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

  #steer(vector, strength) {
    const id = `${this.id}-${vector.name}`;
    const one = {
      strength: el("input", { id: `${id}-strength`, type: "number", step: "any", value: String(strength), required: true }),
      layers: el("input", { id: `${id}-layers`, type: "text", value: "", placeholder: vector.layers || "all of it", spellcheck: false }),
    };
    one.root = el("fieldset", { class: "steer" },
      el("legend", {}, "Steer by ", el("bdi", {}, vector.name)),
      el("div", { class: "field" }, el("label", { for: one.strength.id }, "strength"), one.strength),
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
  }
}

const shell = (text) => (/^[\w.:=+,/-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

const isStrength = (option) => option.kinds.length === 1 && option.kinds[0] === "a number";

function datalist(input, choices) {
  const list = el("datalist", { id: `${input.id}-choices` }, choices.map((choice) => el("option", { value: choice })));
  input.setAttribute("list", list.id);
  return list;
}
