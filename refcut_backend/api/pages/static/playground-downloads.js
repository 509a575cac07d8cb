// @ts-check
/** A mask as a file: picture, overlay, brush RLE, or a task for Label Studio. */

import { save } from "./api.js";
import { blobFrom } from "./mask.js";
import { say } from "./message.js";
import { draw, views } from "./playground-clicks.js";
import { state } from "./playground-state.js";

/** @param {string} form */
export async function download(form) {
  const side = state.masks.with ? "with" : "alone";
  const [mask, answer, photo] = [state.masks[side], state.answers[side], state.photo];
  if (!photo || !mask || !answer) {
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
  const size = { original_width: photo.bitmap.width, original_height: photo.bitmap.height };
  if (form === "rle") saveJson({ format: "rle", ...size, rle: answer.rle }, `${stem}-rle.json`);
  if (form === "task") {
    const label = state.references[0]?.title ?? "Object";
    const region = {
      id: state.session.slice(0, 10), type: "brushlabels", from_name: "mask", to_name: "image", ...size, image_rotation: 0,
      value: { format: "rle", rle: answer.rle, brushlabels: [label] },
    };
    const prediction = { model_version: answer.model_version, score: answer.expected_iou, result: [region] };
    saveJson([{ data: { image: photo.name }, predictions: [prediction] }], `${stem}-task.json`);
  }
}

/** @param {object} value @param {string} name */
function saveJson(value, name) {
  save(new Blob([JSON.stringify(value)], { type: "application/json" }), name);
}
