// Elements from data: text goes in as text nodes only, so nothing that was typed or generated becomes markup.

export const byId = (id) => document.getElementById(id);

/** An element; in `properties`, `class`, `role`, `for`, `aria-*` and `data-*` are attributes, `on*` listeners. */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class" || name === "for" || name === "role" || name.includes("-")) element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** A token on one line, with its spaces visible. */
export const quoted = (token) => `‘${token.replaceAll("\n", "⏎").replaceAll("\t", "⇥").replaceAll(" ", "␣")}’`;

export const percent = (value) => (value === null ? "–" : `${(100 * value).toFixed(value < 0.0995 ? 2 : 1)} %`);

export const signed = (value, digits = 2) =>
  value === null ? "–" : `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}`;

/** Show an error that concerns the whole page. */
export function showAlert(message) {
  byId("alert-text").textContent = message;
  byId("alert").hidden = false;
}

export function hideAlert() {
  byId("alert").hidden = true;
}

/** What this browser keeps for the page, where it keeps anything. */
export function recall(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

export function remember(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch {
    // it goes without
  }
}
