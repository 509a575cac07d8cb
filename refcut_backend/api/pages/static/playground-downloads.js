// @ts-check
/** A mask as a file: picture, overlay, brush RLE, or tasks for Label Studio. Corrections by hand are in all of them. */

import { ask, base64Of, save } from "./api.js";
import { blobFrom } from "./mask.js";
import { say } from "./message.js";
import { draw, views } from "./playground-clicks.js";
import { MARKED_HERE, state } from "./playground-state.js";

const UNNAMED = "Object";

/**
 * @typedef {{value: {rle: number[]}}} Region
 * @typedef {[{predictions: [{result: [Region]}]}, ...object[]]} Tasks the mask first, then its references
 * @typedef {import("./playground-state.js").Side} Side
 */

/** @param {string} form */
export async function download(form) {
  const side = state.masks.with ? "with" : "alone";
  const [mask, photo] = [state.masks[side], state.photo];
  if (!photo || !mask || mask.isEmpty) {
    say("There is no mask yet: click on the photograph first.", true);
    return;
  }
  const stem = photo.name.replace(/\.[^.]*$/, "").replace(/[^\w.-]+/g, "_").slice(0, 80) || "photograph";
  if (form === "mask") save(await mask.png(), `${stem}-mask.png`);
  if (form === "overlay") {
    views[side].draw(false);
    save(await blobFrom(views[side].canvas), `${stem}-overlay.png`);
    draw();
  }
  if (form === "rle") {
    const [task] = await tasks(photo, mask, side, []);
    const size = { original_width: photo.bitmap.width, original_height: photo.bitmap.height };
    saveJson({ format: "rle", ...size, rle: task.predictions[0].result[0].value.rle }, `${stem}-rle.json`);
  }
  if (form === "task") saveJson(await tasks(photo, mask, side, state.references), `${stem}-task.json`);
}

/**
 * @param {import("./playground-state.js").Photograph} photo
 * @param {import("./mask.js").Mask} mask
 * @param {Side} side
 * @param {import("./playground-state.js").Reference[]} references
 * @returns {Promise<Tasks>}
 */
async function tasks(photo, mask, side, references) {
  const answer = state.answers[side];
  return ask("/playground/tasks", {
    image: photo.key,
    name: photo.name,
    region: state.session.slice(0, 10),
    label: state.references.find((one) => one.title !== MARKED_HERE)?.title ?? UNNAMED,
    mask: await base64Of(await mask.png()),
    score: answer?.expected_iou ?? 0,
    model_version: answer?.model_version ?? "painted",
    references: references.map((one) => ({ reference: one.name, name: one.photograph.name })),
  });
}

/** @param {object} value @param {string} name */
function saveJson(value, name) {
  save(new Blob([JSON.stringify(value)], { type: "application/json" }), name);
}
