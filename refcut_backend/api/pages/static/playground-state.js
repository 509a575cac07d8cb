// @ts-check
/** What the playground shows now, and its photographs as the backend keeps them. */

import { ask, askFile } from "./api.js";

/**
 * @typedef {{name: string, kind: string, labels: string[]}} DemoPhotograph
 * @typedef {{key: string, name: string, kind: string, bitmap: ImageBitmap}} Photograph
 * @typedef {{name: string, title: string, photograph: Photograph, outline: ImageBitmap}} Reference
 * @typedef {{reference: string, outline: string}} NewReference its name at the backend, and its outline as base64 of a PNG
 * @typedef {"with" | "alone"} Side
 * @typedef {{side: Side, adds: boolean, radius: number, dabs: [number, number][]}} Stroke in pixels of the photograph
 * `map` is empty unless it was asked for.
 * @typedef {{mask: string, expected_iou: number, milliseconds: Record<string, number>, model_version: string, map: string}} Answer
 */

/** Title of a reference that was marked on the playground, as its label has no name. */
export const MARKED_HERE = "Marked here";

export const SIDES = /** @type {const} @satisfies {Side[]} */ (["with", "alone"]);

export const state = {
  /** @type {DemoPhotograph[]} */ demo: [],
  /** @type {Map<string, Photograph>} */ photographs: new Map(),
  /** @type {Photograph | null} */ photo: null,
  /** @type {Reference[]} */ references: [],
  /** @type {import("./photo-view.js").Click[]} */ clicks: [],
  /** @type {import("./photo-view.js").Box | null} */ box: null,
  tool: "add",
  extent: 0,
  session: crypto.randomUUID(),
  /** @type {Record<Side, Answer | null>} */ answers: { with: null, alone: null },
  /** @type {Record<Side, import("./mask.js").Mask | null>} as corrected by hand */ masks: { with: null, alone: null },
  /** @type {Record<Side, ImageBitmap | null>} masks of the last answers */ answered: { with: null, alone: null },
  /** @type {Stroke[]} by hand since then */ strokes: [],
  showsMap: false,
  /** @type {Record<Side, HTMLCanvasElement | null>} of the last answers */ maps: { with: null, alone: null },
  /** @type {Record<"positive" | "negative", Blob | null>} */ marked: { positive: null, negative: null },
  asked: 0,
};

/** @param {string} key @param {string} name @param {string} kind @returns {Promise<Photograph>} */
export async function load(key, name, kind) {
  const known = state.photographs.get(key);
  if (known) return known;
  const file = await askFile("/playground/photograph", { image: key });
  const photograph = { key, name, kind, bitmap: await createImageBitmap(file) };
  state.photographs.set(key, photograph);
  return photograph;
}

/** Lets a worker prepare what the next click needs. A click works without it, so a failure is not shown. */
export function preload() {
  if (!state.photo) return;
  const references = state.references.map((reference) => reference.name);
  ask("/playground/preloads", { image: state.photo.key, references }).catch(() => {});
}

/** @param {DemoPhotograph} demo */
export async function loadDemo(demo) {
  /** @type {{image: string}} */
  const { image } = await ask("/playground/images", { demo: demo.name });
  return load(image, demo.name, demo.kind);
}
