// @ts-check
/** The probability map of an answer in colours, to be drawn over the photograph. */

import { blobOf } from "./api.js";

/** From 0 to 1, the same as `.map-scale` in pages.css: unlikely places stay dark, likely ones become bright. */
const COLOURS = /** @type {[number, number, number][]} */ ([[28, 16, 68], [114, 31, 129], [205, 64, 113], [253, 150, 104], [252, 253, 191]]);
const OPAQUE = 190;

/** @param {number} probability 0 to 1 @returns {[number, number, number]} red, green and blue */
export function colourOf(probability) {
  const place = Math.min(1, Math.max(0, probability)) * (COLOURS.length - 1);
  const from = COLOURS[Math.floor(place)] ?? [0, 0, 0];
  const to = COLOURS[Math.ceil(place)] ?? from;
  const part = place % 1;
  return [from[0] + part * (to[0] - from[0]), from[1] + part * (to[1] - from[1]), from[2] + part * (to[2] - from[2])];
}

/**
 * @param {{map: string}} answer a grey PNG in base64, white is 1; empty if it was not asked for
 * @returns {Promise<HTMLCanvasElement | null>} smaller than the photograph
 */
export async function mapOf({ map }) {
  if (!map) return null;
  const bitmap = await createImageBitmap(blobOf(map, "image/png"));
  const canvas = document.createElement("canvas");
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.drawImage(bitmap, 0, 0);
  const pixels = context.getImageData(0, 0, bitmap.width, bitmap.height);
  for (let at = 0; at < pixels.data.length; at += 4) {
    pixels.data.set([...colourOf((pixels.data[at] ?? 0) / 255), OPAQUE], at);
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}
