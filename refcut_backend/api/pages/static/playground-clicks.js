// @ts-check
/** What clicks, boxes and the brush do: they change the state, ask the backend for masks and draw both pictures. */

import { ask, blobOf, Refusal } from "./api.js";
import { one } from "./dom.js";
import { Mask } from "./mask.js";
import { complain, say } from "./message.js";
import { PhotoView } from "./photo-view.js";
import { mapOf } from "./playground-map.js";
import { SIDES, state } from "./playground-state.js";

/**
 * @typedef {import("./playground-state.js").Answer} Answer
 * @typedef {import("./playground-state.js").Side} Side
 */

/** Pause before a click is sent again while the worker is starting. The backend itself waits for it until its deadline. */
const AGAIN_MS = 1000;

/** @param {Side} side */
function viewOf(side) {
  return new PhotoView(one(`#${side}`, HTMLCanvasElement), {
    click: (x, y, takesAway) => addClick(x, y, !takesAway && state.tool !== "remove"),
    box: setBox,
    stroke: () => beginStroke(side),
    dab: (x, y) => paint(side, x, y),
    painted: () => say("The mask is corrected. Keep it, or make it a reference."),
    tool: () => state.tool,
  });
}

export const views = { with: viewOf("with"), alone: viewOf("alone") };

export function startOver() {
  state.clicks = [];
  state.box = null;
  state.extent = 0;
  state.session = crypto.randomUUID();
  showNothing();
}

/** Also an answer that is on its way is no longer shown. */
function showNothing() {
  state.asked += 1;
  state.strokes = [];
  for (const side of SIDES) {
    state.answers[side] = state.masks[side] = state.answered[side] = null;
    one(`#figure-${side}`).textContent = "";
  }
  say("Click on the thing.");
  draw();
}

/** @param {number} x @param {number} y @param {boolean} positive */
function addClick(x, y, positive) {
  if (!state.photo) return;
  state.clicks = [...state.clicks, { x, y, positive }];
  state.extent = 0;
  compute().catch(complain);
}

/** @param {import("./photo-view.js").Box} box */
function setBox(box) {
  state.box = box;
  state.clicks = [];
  setTool("add");
  compute().catch(complain);
}

/** @param {Side} side */
function beginStroke(side) {
  if (!state.photo) return;
  if (state.showsMap) toggleMap();
  const { width, height } = state.photo.bitmap;
  state.strokes.push({ side, adds: state.tool === "paint", radius: Math.max(width, height) / 60, dabs: [] });
}

/** @param {Side} side @param {number} x @param {number} y in percent */
function paint(side, x, y) {
  const stroke = state.strokes.at(-1);
  if (!state.photo || !stroke) return;
  const { width, height } = state.photo.bitmap;
  stroke.dabs.push([(x * width) / 100, (y * height) / 100]);
  const mask = (state.masks[side] ??= new Mask(width, height));
  mask.dab((x * width) / 100, (y * height) / 100, stroke.radius, stroke.adds);
  draw();
}

/** Takes the last stroke back: the mask is the answer with the strokes before it. */
function undoStroke() {
  const undone = state.strokes.pop();
  if (!state.photo || !undone) return;
  const { side } = undone;
  const before = state.strokes.filter((stroke) => stroke.side === side);
  const answered = state.answered[side];
  const { width, height } = state.photo.bitmap;
  const mask = answered ? Mask.from(answered) : before.length ? new Mask(width, height) : null;
  for (const { dabs, radius, adds } of before) for (const [x, y] of dabs) mask?.dab(x, y, radius, adds);
  state.masks[side] = mask;
  draw();
}

/**
 * Asks for a mask, again and again while the worker is starting.
 * @param {object} body
 * @param {number} asked number of the click; if there is a newer one, this one is superseded
 * @returns {Promise<Answer>}
 */
async function askOnceReady(body, asked) {
  for (;;) {
    try {
      return await ask("/playground/clicks", body);
    } catch (error) {
      if (!(error instanceof Refusal) || error.code !== "starting") throw error;
    }
    if (asked === state.asked) say("The worker is starting: it loads the model. Your click waits for it ...");
    await new Promise((resume) => setTimeout(resume, AGAIN_MS));
    if (asked !== state.asked) throw new Refusal("superseded", "A newer click replaces this one", "");
  }
}

export async function compute() {
  draw();
  if (!state.photo) return;
  if (!state.box && !state.clicks.some((click) => click.positive)) {
    showNothing();
    return;
  }
  state.asked += 1;
  const asked = state.asked;
  const started = performance.now();
  say("The model looks ...");
  await Promise.all(SIDES.map(async (side) => {
    const answer = await askOnceReady({
      image: state.photo?.key,
      session: `${state.session}-${side}`,
      clicks: state.clicks,
      box: state.box,
      references: side === "with" ? state.references.map((reference) => reference.name) : [],
      extent: state.extent,
      wants_map: state.showsMap,
    }, asked);
    const map = await mapOf(answer);
    const bitmap = await createImageBitmap(blobOf(answer.mask, "image/png"));
    if (asked !== state.asked) return;
    state.answers[side] = answer;
    state.masks[side] = Mask.from(bitmap);
    state.answered[side] = bitmap;
    state.strokes = state.strokes.filter((stroke) => stroke.side !== side);
    state.maps[side] = map;
    one(`#figure-${side}`).textContent = `expected IoU ${answer.expected_iou.toFixed(2)}`;
    draw();
    if (side === "with") tellTime(answer, performance.now() - started);
  }));
}

/** @param {Answer} answer @param {number} total */
function tellTime(answer, total) {
  const parts = Object.entries(answer.milliseconds).map(([step, spent]) => `${step} ${Math.round(spent)}`);
  say(`${Math.round(total)} ms (${parts.join(", ")}), model ${answer.model_version}`);
}

export function draw() {
  for (const side of SIDES) {
    const view = views[side];
    view.photo = state.photo?.bitmap ?? null;
    view.mask = state.masks[side]?.canvas ?? null;
    view.map = state.showsMap && state.answers[side] ? state.maps[side] : null;
    view.clicks = state.clicks;
    view.box = state.box;
    view.draw();
  }
  one("#undo", HTMLButtonElement).disabled = !state.clicks.length && !state.box && !state.strokes.length;
}

/** @param {number} steps larger; negative for smaller */
export function resize(steps) {
  state.extent = Math.min(2, Math.max(-2, state.extent + steps));
  compute().catch(complain);
}

export function undo() {
  if (state.strokes.length) {
    undoStroke();
    return;
  }
  if (state.clicks.length) state.clicks = state.clicks.slice(0, -1);
  else state.box = null;
  compute().catch(complain);
}

/** Shows the probabilities in place of the masks, or the masks again. */
export function toggleMap() {
  state.showsMap = !state.showsMap;
  one("#map").setAttribute("aria-pressed", String(state.showsMap));
  one("#map-legend").hidden = !state.showsMap;
  if (state.showsMap && SIDES.some((side) => state.answers[side] && !state.answers[side].map)) compute().catch(complain);
  else draw();
}

/** @param {string} tool */
export function setTool(tool) {
  state.tool = tool;
  for (const button of document.querySelectorAll("[data-tool]")) {
    const isChosen = button instanceof HTMLElement && button.dataset.tool === tool;
    button.setAttribute("aria-checked", String(isChosen));
    button.setAttribute("tabindex", isChosen ? "0" : "-1");
  }
}
