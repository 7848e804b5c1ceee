// The map of one token: how alike its state and those of the image's patches are, laid over the image.

import { el, quoted, signed } from "./dom.js";

let ids = 0;

export class PatchMap {
  /** `load(layer, onPlace)` asks the server and returns its event; `layers` is how many there are. */
  constructor(layers, load) {
    this.load = load;
    this.found = null;
    this.at = 0;
    this.token = null;
    const id = `map${(ids += 1)}`;
    this.layer = el("select", { id }, Array.from({ length: layers }, (_, i) => el("option", { value: i }, String(i))));
    this.layer.value = String(Math.floor(layers / 2));
    this.layer.addEventListener("change", () => this.show());
    this.view = el("div", { class: "patch-view" });
    this.words = el("p", { class: "help", "aria-live": "polite" });
    this.root = el("details", { class: "patch-map", ontoggle: () => this.root.open && !this.found && this.show() },
      el("summary", {}, "Tokens against the image"),
      el("div", { class: "field" }, el("label", { for: id }, "Layer"), this.layer),
      this.words, this.view);
  }

  /** Ask for the chosen layer, and show it. */
  async show() {
    this.found = null;
    this.view.replaceChildren();
    this.words.classList.remove("problem");
    this.words.textContent = "Comparing …";
    try {
      this.found = await this.load(Number(this.layer.value), (ahead) => {
        this.words.textContent = `Waiting: ${ahead === 1 ? "one run is" : `${ahead} runs are`} before this …`;
      });
      this.#draw();
    } catch (error) {
      this.words.classList.add("problem");
      this.words.textContent = error.message;
    }
  }

  /** Show the map of another token, if one is shown. */
  choose(at, token) {
    this.at = at;
    this.token = token;
    if (this.found && this.root.open) this.#draw();
  }

  #draw() {
    const { src, rows, columns, values, layer } = this.found;
    const cosines = values[this.at] ?? [];
    const known = cosines.filter((value) => value !== null);
    if (!known.length) return this.words.replaceChildren("There is nothing to compare for this token.");
    const [least, most] = [Math.min(...known), Math.max(...known)];
    const best = cosines.indexOf(most);
    const cells = cosines.map((value, i) => {
      const cell = el("i", i === best ? { class: "best" } : {});
      cell.style.setProperty("--share", (most > least ? ((value ?? least) - least) / (most - least) : 0).toFixed(3));
      return cell;
    });
    const grid = el("div", { class: "patches", "aria-hidden": "true" }, cells);
    grid.style.gridTemplateColumns = `repeat(${columns}, 1fr)`;
    grid.style.gridTemplateRows = `repeat(${rows}, 1fr)`;
    this.view.replaceChildren(
      el("div", { class: "patch-picture" }, el("img", { src, alt: "the image as the model sees it, under the map" }), grid),
      el("p", { class: "patch-scale" }, signed(least), el("span", { class: "gradient one" }), `${signed(most)} cosine`));
    this.words.replaceChildren("Token ", el("bdi", {}, quoted(this.token ?? "")),
      ` (${this.at + 1} of ${values.length}) in layer ${layer}: most alike is row ${Math.floor(best / columns) + 1}, column ${(best % columns) + 1}. Go to another token for its map.`);
  }
}
