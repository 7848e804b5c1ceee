// Fields: a slider beside a number, and what is wrong, said next to the field that is.

import { el } from "./dom.js";

/** A number field with a slider for the usual values; the field takes others too. `range` is least, most and step. */
export function withSlider(input, [min, max, step], usual, name) {
  const slider = el("input", { type: "range", min, max, step, "aria-label": `${name}, slider` });
  const follow = () => {
    slider.value = input.value === "" ? usual : input.value;
  };
  follow();
  input.addEventListener("input", follow);
  input.follow = follow;
  slider.addEventListener("input", () => {
    input.value = slider.value;
    input.dispatchEvent(new Event("input", { bubbles: true }));
  });
  return el("div", { class: "with-slider" }, slider, input);
}

/** Say below a field what is wrong with it. */
export function showProblem(input, message) {
  const id = `${input.id}-problem`;
  const known = document.getElementById(id);
  if (known) {
    if (known.textContent !== message) known.textContent = message;
    return;
  }
  input.closest("details")?.setAttribute("open", "");
  input.setAttribute("aria-invalid", "true");
  input.dataset.describedby = input.getAttribute("aria-describedby") ?? "";
  input.setAttribute("aria-describedby", `${id} ${input.dataset.describedby}`.trim());
  const field = input.closest(".field") ?? input.parentElement;
  field.append(el("p", { class: "problem", id, role: "alert" }, message));
}

/** Take back what was said about the fields within `root`, but for those in `kept`. */
export function clearProblems(root, kept = []) {
  for (const input of root.querySelectorAll("[aria-invalid]")) {
    if (kept.includes(input)) continue;
    input.removeAttribute("aria-invalid");
    if (input.dataset.describedby) input.setAttribute("aria-describedby", input.dataset.describedby);
    else input.removeAttribute("aria-describedby");
    document.getElementById(`${input.id}-problem`)?.remove();
  }
}
