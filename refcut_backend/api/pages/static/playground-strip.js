// @ts-check
/** The row of photographs: choosing one, and adding one's own. */

import { ask, base64Of } from "./api.js";
import { one } from "./dom.js";
import { say, shown } from "./message.js";
import { startOver } from "./playground-clicks.js";
import { drawLabels } from "./playground-references.js";
import { load, preload, state } from "./playground-state.js";

/** @typedef {import("./playground-state.js").Photograph} Photograph */

/** @param {Photograph} photograph */
export function show(photograph) {
  state.photo = photograph;
  state.marked = { positive: null, negative: null };
  startOver();
  for (const item of one("#strip").querySelectorAll("button")) {
    item.setAttribute("aria-current", String(item.dataset.name === photograph.name));
  }
  drawLabels();
  preload();
}

/** @param {FileList | File[]} files */
export async function addFiles(files) {
  for (const file of files) {
    say(`Loading ${file.name} ...`);
    /** @type {{image: string}} */
    const { image } = await ask("/playground/images", { data: await base64Of(file) });
    const photograph = await load(image, file.name, "");
    addToStrip(photograph.name, () => photograph, photograph.bitmap);
    show(photograph);
  }
}

/** @param {string} name @param {() => Photograph | Promise<Photograph>} open @param {ImageBitmap} bitmap */
export function addToStrip(name, open, bitmap) {
  const button = document.createElement("button");
  button.type = "button";
  button.dataset.name = name;
  button.setAttribute("aria-label", `Photograph ${name}`);
  const small = document.createElement("canvas");
  small.width = 160;
  small.height = Math.round((160 * bitmap.height) / bitmap.width);
  small.getContext("2d")?.drawImage(bitmap, 0, 0, small.width, small.height);
  button.append(small);
  button.addEventListener("click", shown(async () => show(await open())));
  const item = document.createElement("li");
  item.append(button);
  one("#strip").append(item);
}
