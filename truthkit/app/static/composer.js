// The prompt: text, images, and what holds for every decoder.

import { byId, el, showAlert } from "./dom.js";
import { withSlider } from "./fields.js";

const SETTINGS = ["max_new_tokens", "seed", "temperature", "top_p"];
const RANGES = { temperature: [0.05, 2, 0.05], top_p: [0.05, 1, 0.05] };
const images = [];
let messages = [];
let limits = null;

/** Prepare the fields for a model; `limits` are the server's, `drawScene` fetches a picture where it has some. */
export function prepare(model, given, drawScene) {
  limits = given;
  byId("images").hidden = !model.takes_images;
  for (const [id, range] of Object.entries(RANGES)) {
    const input = byId(id);
    const label = input.parentElement;
    label.append(withSlider(input, range, 1, id.replace("_", "-")));
  }
  byId("max_new_tokens").max = limits.new_tokens;
  byId("sample").addEventListener("change", unlockSampling);
  unlockSampling();
  byId("start-over").addEventListener("click", () => {
    setMessages([]);
    byId("prompt").focus();
  });
  byId("take-back").addEventListener("click", () => {
    byId("prompt").value = messages.at(-2).content;
    setMessages(messages.slice(0, -2));
    byId("prompt").focus();
  });
  if (!model.takes_images) return;
  acceptImages();
  byId("scene").hidden = !model.draws_scenes;
  byId("scene").addEventListener("click", async () => {
    await showScene(await drawScene());
    byId("prompt").value ||= "Describe the picture.";
  });
}

/** In the place of all images, a drawn scene. */
export async function showScene(blob) {
  removeImages();
  await addImage(new File([blob], "scene.png", { type: "image/png" }));
}

/** Fill in what `promptState` gave; what is missing becomes as it was when the page opened. */
export async function fill({ prompt = "", system = "", context = "", raw = false, messages: said = [], images: files = null, settings = {} }) {
  for (const [id, value] of Object.entries({ prompt, system, context })) byId(id).value = String(value);
  byId("raw").checked = raw === true;
  byId("sample").checked = settings.sample === true;
  for (const id of SETTINGS) {
    byId(id).value = settings[id] ?? byId(id).defaultValue;
    byId(id).follow?.();
  }
  unlockSampling();
  byId("more").open = Boolean(system || context || raw);
  setMessages(said.map(({ role, content }) => ({ role: String(role), content: String(content) })));
  if (files === null) return;
  removeImages();
  for (const { name, content } of files.filter((file) => file.content)) {
    const bytes = Uint8Array.from(atob(content), (one) => one.charCodeAt(0));
    await addImage(new File([bytes], name, { type: /\.png$/i.test(name) ? "image/png" : "" }));
  }
  const missing = files.filter((file) => !file.content).map((file) => file.name);
  if (missing.length) showAlert(`Too large to be kept, and to be added again: ${missing.join(", ")}.`);
}

/** The next prompt goes on from here. */
export function goOn(said) {
  if (said.length > limits.messages) return showAlert(`A conversation has at most ${limits.messages} messages before the prompt.`);
  setMessages(said);
  byId("prompt").value = "";
  byId("prompt").focus();
}

function setMessages(said) {
  messages = said;
  byId("conversation").hidden = !said.length;
  byId("raw").disabled = said.length > 0;
  byId("messages").replaceChildren(...said.map(({ role, content }) =>
    el("li", { class: role }, el("span", { class: "label" }, role === "user" ? "You" : "Answer"), el("p", { dir: "auto" }, content))));
  byId("messages").scrollTop = byId("messages").scrollHeight;
}

function unlockSampling() {
  const on = byId("sample").checked;
  for (const id of Object.keys(RANGES)) {
    byId(id).disabled = !on;
    byId(id).closest(".field").hidden = !on;
  }
}

function removeImages() {
  for (const image of images.splice(0)) URL.revokeObjectURL(image.url);
  byId("thumbs").replaceChildren();
}

/** The field that a problem of the request is told at. */
export const promptField = (name) => byId(name === "images" ? "files" : name) ?? byId("prompt");

/** What is typed, to be kept: as in a run, but images have their names. */
export const promptState = () => ({
  ...promptRequest(),
  images: images.map(({ name, content }) => ({ name, content })),
});

/** The prompt's part of a run. */
export function promptRequest() {
  const number = (id) => (byId(id).disabled || byId(id).value === "" ? null : byId(id).valueAsNumber);
  return {
    prompt: byId("prompt").value,
    system: byId("system").value,
    context: byId("context").value,
    raw: byId("raw").checked && !messages.length,
    messages,
    images: images.map((image) => image.content),
    settings: {
      max_new_tokens: number("max_new_tokens"),
      seed: number("seed"),
      sample: byId("sample").checked,
      temperature: number("temperature"),
      top_p: number("top_p"),
    },
  };
}

function acceptImages() {
  const drop = byId("drop");
  const take = async (files) => {
    for (const file of files) await addImage(file);
    byId("files").value = "";
  };
  byId("files").addEventListener("change", () => take(byId("files").files));
  for (const name of ["dragenter", "dragover"]) {
    addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  addEventListener("dragleave", (event) => event.relatedTarget === null && drop.classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    take(event.dataTransfer.files);
  });
  addEventListener("paste", (event) => {
    if (event.clipboardData?.files.length) take(event.clipboardData.files);
  });
}

async function addImage(file) {
  const room = limits.body * 0.7 - images.reduce((sum, image) => sum + image.content.length, 0);
  if (images.length >= limits.images) return showAlert(`A prompt takes at most ${limits.images} images here.`);
  if (file.size * 1.34 > room) return showAlert(`${file.name} is too large: ${Math.round(file.size / 2 ** 20)} MB.`);
  const content = await base64(file);
  const image = { content, url: URL.createObjectURL(file), name: file.name };
  const item = el("li", {},
    el("img", { src: image.url, alt: image.name, title: image.name }),
    el("button", { type: "button", class: "plain remove", "aria-label": `Remove ${image.name}`, onclick: () => remove() }, "×"));
  const remove = () => {
    images.splice(images.indexOf(image), 1);
    URL.revokeObjectURL(image.url);
    item.remove();
    byId("files").focus();
  };
  item.firstChild.addEventListener("error", () => item.firstChild.replaceWith(el("span", { class: "file" }, image.name)));
  images.push(image);
  byId("thumbs").append(item);
}

const base64 = (file) =>
  new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Error(`${file.name} cannot be read: ${reader.error.message}`));
    reader.readAsDataURL(file);
  });
