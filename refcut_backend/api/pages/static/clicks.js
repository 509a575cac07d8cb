// @ts-check
/** The page that annotators keep beside Label Studio: the last click, large, and those before. */

import { ask, blobOf } from "./api.js";
import { addresses, explanation, outcome, place, when } from "./click-text.js";
import { duration, el, one } from "./dom.js";
import { listen } from "./live.js";

const KEPT = 50;
const BEFORE_SHOWN = 8;
const MASK_COLOUR = "rgb(38 150 90)";
/**
 * @typedef {import("./live.js").Click} Click
 * @typedef {{mask: string, clicks: [number, number, boolean][], box: [number, number, number, number] | null}} Preview
 */

/** @type {Click[]} */
let clicks = [];
/** @type {import("./live.js").Project[]} */
let projects = [];
let shownId = "";
const choice = one("#project", HTMLSelectElement);
const chosen = new URLSearchParams(location.search).get("project") ?? "";
if (chosen) choice.append(el("option", { value: chosen, selected: true }, chosen));

listen("/status/events", {
  clicks: (found) => {
    clicks = found.latest;
    show();
  },
  click: (found) => {
    clicks = [found, ...clicks].slice(0, KEPT);
    show();
  },
  state: (state) => {
    const before = addresses(projects);
    projects = state.projects ?? projects;
    if (addresses(projects) !== before) {
      showChoice();
      shownId = "";
      show();
    }
    if (state.queue.redis) one("#live").textContent = state.queue.redis;
  },
});
choice.addEventListener("change", () => {
  const address = choice.value ? `?project=${encodeURIComponent(choice.value)}` : location.pathname;
  history.replaceState(null, "", address);
  show();
});

function showChoice() {
  const names = new Set([...projects.map((project) => project.name), choice.value].filter(Boolean));
  const known = [...choice.options].map((option) => option.value).filter(Boolean);
  if (known.length === names.size && known.every((name) => names.has(name))) return;
  const value = choice.value;
  choice.replaceChildren(el("option", { value: "" }, "all"), ...[...names].map((name) => el("option", { value: name }, name)));
  choice.value = value;
}

function show() {
  const found = clicks.filter((click) => !choice.value || click.project === choice.value);
  one("#earlier").hidden = found.length < 2;
  one("#before").replaceChildren(...found.slice(1, 1 + BEFORE_SHOWN).map(brief));
  const [last] = found;
  if (last?.id === shownId) return;
  shownId = last?.id ?? "";
  one("#mask").hidden = true;
  if (last) {
    one("#last").replaceChildren(...described(last));
    document.title = `${last.failed ? "✗ no mask" : "✓"} ${last.label} - RefCut`;
    if (last.answered && last.project && last.task) showMask(last);
  } else {
    one("#last").replaceChildren(el("p", { class: "hint" }, "Click in Label Studio: the outcome appears here."));
  }
}

/** @param {Click} click */
function described(click) {
  const used = click.references.length;
  const project = projects.find((known) => known.name === click.project);
  const reference = used ? `${used} reference${used > 1 ? "s" : ""}` : "no reference: the clicks alone decide";
  return [
    el("p", { class: `verdict ${click.failed ? "problem" : ""}` }, click.failed ? `No mask. ${outcome(click)}` : outcome(click)),
    ...(click.failed ? explanation(click) : []),
    el(
      "dl",
      { class: "facts" },
      ...fact("Label", click.label),
      ...fact("Where", place(click, projects)),
      ...fact("When", when(click)),
      ...(click.answered ? fact("With", project ? el("a", { href: `${project.path}/references` }, reference) : reference) : []),
      ...(click.answered ? fact("Clicks", `${click.clicks}, answered in ${duration(click.milliseconds)}`) : []),
    ),
  ];
}

/** @param {string} name @param {Node | string} value */
function fact(name, value) {
  return value ? [el("dt", {}, name), el("dd", {}, value)] : [];
}

/** @param {Click} click */
function brief(click) {
  const text = click.answered ? "mask" : outcome(click);
  return el("li", { class: click.failed ? "failed" : "fine" }, when(click), el("span", {}, click.label || "-"), el("span", { class: "outcome" }, text));
}

/** The mask of a click, if the backend still has it. @param {Click} click @returns {Promise<Preview | null>} */
async function readPreview(click) {
  const query = new URLSearchParams({ project: click.project, task: String(click.task), region: click.region });
  try {
    return await ask(`/status/mask?${query}`);
  } catch {
    return null;
  }
}

/** @param {Click} click */
async function showMask(click) {
  const found = await readPreview(click);
  if (!found || click.id !== shownId) return;
  const bitmap = await createImageBitmap(blobOf(found.mask, "image/png"));
  const canvas = one("#mask", HTMLCanvasElement);
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  const context = canvas.getContext("2d");
  if (context) draw(context, bitmap, found);
  canvas.hidden = false;
}

/** @param {CanvasRenderingContext2D} context @param {ImageBitmap} bitmap white = inside @param {Preview} found */
function draw(context, bitmap, found) {
  const { width, height } = bitmap;
  context.drawImage(bitmap, 0, 0);
  // White becomes the colour of masks, black the ground of the canvas.
  const pixels = context.getImageData(0, 0, width, height);
  for (let at = 0; at < pixels.data.length; at += 4) pixels.data[at + 3] = (pixels.data[at] ?? 0) > 127 ? 255 : 0;
  context.putImageData(pixels, 0, 0);
  context.globalCompositeOperation = "source-in";
  context.fillStyle = MASK_COLOUR;
  context.fillRect(0, 0, width, height);
  context.globalCompositeOperation = "source-over";
  context.lineWidth = 2;
  context.strokeStyle = "white";
  if (found.box) {
    const [left, top, right, bottom] = found.box;
    context.strokeRect((left / 100) * width, (top / 100) * height, ((right - left) / 100) * width, ((bottom - top) / 100) * height);
  }
  for (const [x, y, positive] of found.clicks) {
    context.beginPath();
    context.arc((x / 100) * width, (y / 100) * height, 5, 0, 2 * Math.PI);
    context.fillStyle = positive ? "rgb(20 90 50)" : "rgb(190 50 40)";
    context.fill();
    context.stroke();
  }
}
