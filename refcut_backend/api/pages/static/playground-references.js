// @ts-check
/** The playground's references: those of the demo's parts, and masks that become one. */

import { ask, base64Of, blobOf } from "./api.js";
import { one } from "./dom.js";
import { Mask } from "./mask.js";
import { say, shown } from "./message.js";
import { compute, startOver } from "./playground-clicks.js";
import { loadDemo, MARKED_HERE, preload, state } from "./playground-state.js";

/** The demo photographs that may show what is meant on the present one. */
function teachers() {
  const kind = state.photo?.kind;
  return state.demo.filter((one) => one.name !== state.photo?.name && (!kind || one.kind === kind));
}

export function drawLabels() {
  const chips = one("#labels");
  chips.replaceChildren();
  const [teacher] = teachers();
  if (!teacher) return;
  for (const label of teacher.labels) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = label;
    button.setAttribute("aria-pressed", String(state.references.some((one) => one.title === label)));
    button.addEventListener("click", shown(() => choose(label)));
    chips.append(button);
  }
}

/** @param {string} label of a demo part; it takes the place of all references */
export async function choose(label) {
  const teacher = teachers().find((one) => one.labels.includes(label));
  if (!teacher) return;
  /** @type {import("./playground-state.js").NewReference} */
  const { reference, outline } = await ask("/playground/references", { demo: teacher.name, label });
  state.references = [{
    name: reference,
    title: label,
    photograph: await loadDemo(teacher),
    outline: await createImageBitmap(blobOf(outline, "image/png")),
  }];
  drawReferences();
  await compute();
}

export function drawReferences() {
  const list = one("#references");
  list.replaceChildren();
  for (const reference of state.references) {
    const { bitmap } = reference.photograph;
    const picture = document.createElement("canvas");
    picture.width = bitmap.width;
    picture.height = bitmap.height;
    const context = picture.getContext("2d");
    context?.drawImage(bitmap, 0, 0);
    context?.drawImage(reference.outline, 0, 0);
    picture.setAttribute("role", "img");
    picture.setAttribute("aria-label", `Reference ${reference.title} on ${reference.photograph.name}`);
    const caption = document.createElement("span");
    caption.textContent = `${reference.title}, on ${reference.photograph.name}`;
    const remove = document.createElement("button");
    remove.type = "button";
    remove.textContent = "Remove";
    remove.setAttribute("aria-label", `Remove the reference ${reference.title}`);
    remove.addEventListener("click", shown(async () => {
      state.references = state.references.filter((one) => one !== reference);
      drawReferences();
      await compute();
    }));
    const item = document.createElement("li");
    item.append(picture, caption, remove);
    list.append(item);
  }
  one("#no-reference").hidden = state.references.length > 0;
  drawLabels();
  preload();
}

/** @param {"positive" | "negative"} role of the mask on the photograph that is clicked on */
export async function mark(role) {
  const mask = state.masks.with ?? state.masks.alone;
  if (!state.photo || !mask || mask.isEmpty) {
    say("There is no mask yet: click on the photograph first.", true);
    return;
  }
  state.marked[role] = await mask.png();
  const nothing = new Mask(state.photo.bitmap.width, state.photo.bitmap.height);
  /** @type {import("./playground-state.js").NewReference} */
  const { reference, outline } = await ask("/playground/references", {
    image: state.photo.key,
    positive: await base64Of(state.marked.positive ?? (await nothing.png())),
    negative: state.marked.negative && (await base64Of(state.marked.negative)),
  });
  const photograph = state.photo;
  const own = { name: reference, title: MARKED_HERE, photograph, outline: await createImageBitmap(blobOf(outline, "image/png")) };
  state.references = [...state.references.filter((one) => !(one.title === own.title && one.photograph === photograph)), own];
  startOver();
  drawReferences();
  say("The reference is in use. Choose another photograph and click on it.");
}
