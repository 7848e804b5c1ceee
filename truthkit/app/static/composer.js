// The prompt: text, images, and what holds for every decoder.

import { byId, el, showAlert } from "./dom.js";

const images = [];

/** Prepare the fields for a model; `limits` are the server's, `drawScene` fetches a picture where it has some. */
export function prepare(model, limits, drawScene) {
  byId("images").hidden = !model.takes_images;
  byId("max_new_tokens").max = limits.new_tokens;
  byId("sample").addEventListener("change", () => {
    for (const id of ["temperature", "top_p"]) byId(id).disabled = !byId("sample").checked;
  });
  if (!model.takes_images) return;
  acceptImages(limits);
  byId("scene").hidden = !model.draws_scenes;
  byId("scene").addEventListener("click", async () => {
    byId("thumbs").replaceChildren();
    images.length = 0;
    await addImage(new File([await drawScene()], "scene.png", { type: "image/png" }), limits);
    byId("prompt").value ||= "Describe the picture.";
  });
}

/** The prompt's part of a run. */
export function promptRequest() {
  const number = (id) => (byId(id).disabled || byId(id).value === "" ? null : byId(id).valueAsNumber);
  return {
    prompt: byId("prompt").value,
    system: byId("system").value,
    context: byId("context").value,
    raw: byId("raw").checked,
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

function acceptImages(limits) {
  const drop = byId("drop");
  const take = async (files) => {
    for (const file of files) await addImage(file, limits);
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

async function addImage(file, limits) {
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
