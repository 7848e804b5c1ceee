// What the colours of tokens say: a mode, the scale that all answers share, and its legend.

import { byId, el, percent, signed } from "./dom.js";

const NATS = "nats";
const SLOTS = 6;
const slots = new Map();

/** A colour and underline for whoever pushes tokens, the same on every card; numbered as they first appear. */
export function slotOf(name) {
  if (!slots.has(name)) slots.set(name, slots.size % SLOTS);
  return slots.get(name);
}

/** For each scale of numbers: a token's value, how much colour it gets, given all answers' largest, and the legend. */
const SCALES = {
  far: {
    value: (token) => token.push,
    share: (value, most) => value / most,
    legend: (most) => ["two", `−${most.toFixed(2)}`, `+${most.toFixed(2)} ${NATS}`,
      "ln of a token’s probability under the decoder over that in the model alone: 0 is not moved"],
  },
  probability: {
    value: (token) => token.probability,
    share: (value) => 1 - value,
    legend: () => ["one", "100 %", "0 %", "probability of the token under its decoder: the less probable, the more colour"],
  },
  entropy: {
    value: (token) => token.entropy,
    share: (value, most) => value / most,
    legend: (most) => ["one", `0 ${NATS}`, `${most.toFixed(2)} ${NATS}`,
      "entropy of the distribution that the decoder chose from: how unsure it was"],
  },
  rank: {
    value: (token) => token.rank,
    share: (value, most) => (most > 1 ? Math.log(value) / Math.log(most) : 0),
    legend: (most) => ["one", "1", String(most), "rank of the token in that distribution, 1 the most probable; logarithmic"],
  },
};

export const isNumeric = (mode) => mode in SCALES;

/** What the page shows: the mode, and of steering vectors which one and where. */
export const chosen = () => ({
  mode: byId("mode").value,
  vector: Number(byId("vector").value || 0),
  layer: byId("layer").value,
});

/** The scale that all answers are coloured by. */
export function scaleOf(cards, { mode, ...where }) {
  if (mode === "projection") return spread(cards.flatMap((card) => card.tokens.along(where)));
  if (!isNumeric(mode)) return null;
  const sizes = cards.flatMap((card) => card.tokens.events.map((token) => Math.abs(SCALES[mode].value(token) ?? 0)));
  return { most: sizes.reduce((most, size) => Math.max(most, size), 0) };
}

/** How much colour a token gets, −1 to 1; null where there is nothing to colour. */
export function shareOf(token, mode, scale) {
  const value = SCALES[mode].value(token);
  if (value === null || value === undefined || !scale?.most) return null;
  return Math.max(-1, Math.min(1, SCALES[mode].share(value, scale.most)));
}

/** The median, and the largest distance from it but one. */
function spread(values) {
  const known = values.filter((value) => value !== null && value !== undefined).sort((a, b) => a - b);
  if (!known.length) return { centre: 0, spread: 0, least: null, most: null };
  const centre = known[Math.floor((known.length - 1) / 2)];
  const distances = known.map((value) => Math.abs(value - centre)).sort((a, b) => a - b);
  return { centre, spread: distances.at(-2) || distances.at(-1), least: known[0], most: known.at(-1) };
}

export function showLegend(cards, { mode }, scale) {
  byId("legend").replaceChildren(...legend(cards, mode, scale));
}

function legend(cards, mode, scale) {
  const item = (...children) => el("li", {}, children);
  const swatch = (attributes, text = "Ab") => el("span", { class: "swatch", ...attributes }, text);
  const tokens = cards.flatMap((card) => card.tokens.events);
  if (mode === "push") {
    const counts = new Map();
    for (const { pushed_by: by } of tokens) if (by !== null) counts.set(by, (counts.get(by) ?? 0) + 1);
    return [
      ...[...counts].map(([name, count]) => item(swatch({ "data-slot": slotOf(name) }), `${name} (${plural(count)})`)),
      item(swatch({}), "nobody: the model’s own first choice"),
    ];
  }
  if (mode === "parting") return [item(swatch({ "data-parted": "" }, "‖ Ab"), "where an answer’s tokens part from the first answer’s")];
  if (mode === "words") {
    return [
      item(el("ins", { "data-sign": "+" }, el("span", { class: "text" }, "added")), "not in the first answer"),
      item(el("del", { "data-sign": "−" }, el("span", { class: "text" }, "left out")), "in the first answer only"),
      item("plain: in both"),
    ];
  }
  if (mode === "projection") {
    return scale.least === null
      ? [item("nothing to show yet: run a prompt")]
      : [item(signed(scale.least), el("span", { class: "gradient two" }), signed(scale.most)),
          item(`along the unit vector, in the hidden states’ own unit; plain is the median, ${signed(scale.centre)}`)];
  }
  if (!tokens.length) return [item("nothing to show yet: run a prompt")];
  const [kind, from, to, words] = SCALES[mode].legend(scale.most);
  const none = mode === "far" && !scale.most ? " No token here was moved." : "";
  return [item(from, el("span", { class: `gradient ${kind}` }), to), item(`${words}.${none}`)];
}

const plural = (count) => `${count} ${count === 1 ? "token" : "tokens"}`;

/** A token's numbers in words; `percent` of nothing is a dash. */
export const numbers = ({ probability, entropy, rank, push }) =>
  [
    `Probability ${percent(probability)}`,
    rank === undefined ? null : `rank ${rank}`,
    entropy === undefined || entropy === null ? null : `entropy ${entropy.toFixed(2)} ${NATS}`,
    push === undefined || push === null ? null : `moved by ${signed(push)} ${NATS}`,
  ].filter(Boolean).join(" · ");
