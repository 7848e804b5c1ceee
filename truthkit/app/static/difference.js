// Two answers word by word: what they have in common, in order, and what only one of them says.

import { el } from "./dom.js";

const LARGEST = 16e6; // cells of the table; longer answers are compared by their beginnings and ends
const segmenter = new Intl.Segmenter(undefined, { granularity: "word" });

/** Words and marks, each with the white space in front of it. */
export function words(text) {
  const found = [];
  let space = "";
  for (const { segment } of segmenter.segment(text)) {
    if (segment.trim() === "") space += segment;
    else {
      found.push({ word: segment, space });
      space = "";
    }
  }
  return found;
}

/** Runs of words, each { kind: "both" | "added" | "left", words }: as few as can be are added to `first` and left out of it. */
export function compare(first, other) {
  const a = words(first);
  const b = words(other);
  let head = 0;
  while (head < a.length && head < b.length && a[head].word === b[head].word) head += 1;
  let tail = 0;
  while (tail < a.length - head && tail < b.length - head && a.at(-1 - tail).word === b.at(-1 - tail).word) tail += 1;
  const runs = [];
  const push = (kind, one) => (runs.at(-1)?.kind === kind ? runs.at(-1).words.push(one) : runs.push({ kind, words: [one] }));
  for (const one of b.slice(0, head)) push("both", one);
  for (const [kind, one] of middle(a.slice(head, a.length - tail), b.slice(head, b.length - tail))) push(kind, one);
  for (const one of b.slice(b.length - tail)) push("both", one);
  return joined(runs);
}

/** Punctuation that two changes have between them by chance goes with them, so that they read as one. */
function joined(runs) {
  const found = [];
  let left = [];
  let added = [];
  const flush = () => {
    if (left.length) found.push({ kind: "left", words: left });
    if (added.length) found.push({ kind: "added", words: added });
    [left, added] = [[], []];
  };
  runs.forEach((run, i) => {
    const between = i > 0 && i < runs.length - 1;
    if (run.kind === "left") left.push(...run.words);
    else if (run.kind === "added") added.push(...run.words);
    else if (between && !run.words.some(({ word }) => /[\p{L}\p{N}]/u.test(word))) {
      left.push(...run.words);
      added.push(...run.words);
    } else {
      flush();
      found.push(run);
    }
  });
  flush();
  return found;
}

/** By the longest common subsequence; where there is a choice, what is left out comes before what is added. */
function* middle(a, b) {
  const width = b.length + 1;
  if ((a.length + 1) * width > LARGEST) {
    for (const one of a) yield ["left", one];
    for (const one of b) yield ["added", one];
    return;
  }
  const common = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      common[i * width + j] = a[i].word === b[j].word
        ? common[(i + 1) * width + j + 1] + 1
        : Math.max(common[(i + 1) * width + j], common[i * width + j + 1]);
    }
  }
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i].word === b[j].word) {
      yield ["both", b[j]];
      i += 1;
      j += 1;
    } else if (j === b.length || (i < a.length && common[(i + 1) * width + j] >= common[i * width + j + 1])) {
      yield ["left", a[i++]];
    } else yield ["added", b[j++]];
  }
}

/** `other` as elements, with what it adds to `first` and leaves out of it marked by underline, line through, and sign. */
export function difference(first, other) {
  const text = (run) => run.words.map(({ word, space }, i) => (i ? space : "") + word).join("");
  return compare(first, other).flatMap((run, i) => {
    const space = i ? run.words[0].space || (run.kind === "left" ? " " : "") : "";
    if (run.kind === "both") return [space, text(run)];
    const [tag, sign, said] = run.kind === "added" ? ["ins", "+", "added: "] : ["del", "−", "left out: "];
    return [space, el(tag, { "data-sign": sign }, el("span", { class: "visually-hidden" }, said), el("span", { class: "text" }, text(run)))];
  });
}
