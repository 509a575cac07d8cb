// @ts-check
/** The playground: state, and what each control does. */

import { ask, askFile, base64Of, blobOf, Refusal, save } from "./api.js";
import { blobFrom, Mask } from "./mask.js";
import { PhotoView } from "./photo-view.js";
import { keptTrial } from "./trial.js";

/**
 * @typedef {{name: string, kind: string, labels: string[]}} DemoPhotograph
 * @typedef {{key: string, name: string, kind: string, bitmap: ImageBitmap}} Photograph
 * @typedef {{name: string, title: string, photograph: Photograph, outline: ImageBitmap}} Reference
 * @typedef {{rle: number[], expected_iou: number, milliseconds: Record<string, number>, model_version: string}} Answer
 */

const FIRST = "car_parts_te66.jpg";
const FIRST_LABEL = "Wheel";
const SIDES = /** @type {const} */ (["with", "alone"]);

/** @param {string} id @returns {any} */
const element = (id) => document.getElementById(id);

const state = {
  /** @type {DemoPhotograph[]} */ demo: [],
  /** @type {Map<string, Photograph>} */ photographs: new Map(),
  /** @type {Photograph | null} */ photo: null,
  /** @type {Reference[]} */ references: [],
  /** @type {import("./photo-view.js").Click[]} */ clicks: [],
  /** @type {import("./photo-view.js").Box | null} */ box: null,
  tool: "add",
  extent: 0,
  session: crypto.randomUUID(),
  /** @type {Record<string, Answer | null>} */ answers: { with: null, alone: null },
  /** @type {Record<string, Mask | null>} */ masks: { with: null, alone: null },
  /** @type {Record<string, Blob | null>} */ marked: { positive: null, negative: null },
  asked: 0,
};

const views = Object.fromEntries(SIDES.map((side) => [side, new PhotoView(element(side), {
  click: (x, y, takesAway) => addClick(x, y, !takesAway && state.tool !== "remove"),
  box: setBox,
  dab: (x, y) => paint(side, x, y),
  painted: () => say("The mask is corrected. Keep it, or make it a reference."),
  tool: () => state.tool,
})]));

/** @param {string} text @param {boolean} [isProblem] */
function say(text, isProblem = false) {
  element("message").textContent = text;
  element("message").classList.toggle("problem", isProblem);
}

/** @param {unknown} error */
function complain(error) {
  if (error instanceof Refusal && error.code === "superseded") return;
  say(error instanceof Error ? error.message : String(error), true);
}

/** Wraps a handler so that its failure is shown. @param {() => Promise<void>} work */
const shown = (work) => () => work().catch(complain);

// --- photographs ---

/** @param {string} key @param {string} name @param {string} kind @returns {Promise<Photograph>} */
async function load(key, name, kind) {
  const known = state.photographs.get(key);
  if (known) return known;
  const file = await askFile("/playground/photograph", { image: key });
  const photograph = { key, name, kind, bitmap: await createImageBitmap(file) };
  state.photographs.set(key, photograph);
  return photograph;
}

/** @param {DemoPhotograph} demo */
async function loadDemo(demo) {
  const { image } = await ask("/playground/images", { demo: demo.name });
  return load(image, demo.name, demo.kind);
}

/** @param {Photograph} photograph */
function show(photograph) {
  state.photo = photograph;
  state.marked = { positive: null, negative: null };
  startOver();
  for (const item of element("strip").querySelectorAll("button")) {
    item.setAttribute("aria-current", String(item.dataset.name === photograph.name));
  }
  drawLabels();
}

/** @param {FileList | File[]} files */
async function addFiles(files) {
  for (const file of files) {
    say(`Loading ${file.name} ...`);
    const { image } = await ask("/playground/images", { data: await base64Of(file) });
    const photograph = await load(image, file.name, "");
    addToStrip(photograph.name, () => photograph, photograph.bitmap);
    show(photograph);
  }
}

/** @param {string} name @param {() => Photograph | Promise<Photograph>} open @param {ImageBitmap} bitmap */
function addToStrip(name, open, bitmap) {
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
  element("strip").append(item);
}

// --- references ---

/** The demo photographs that may show what is meant on the present one. */
function teachers() {
  const kind = state.photo?.kind;
  return state.demo.filter((one) => one.name !== state.photo?.name && (!kind || one.kind === kind));
}

function drawLabels() {
  const chips = element("labels");
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
async function choose(label) {
  const teacher = teachers().find((one) => one.labels.includes(label));
  if (!teacher) return;
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

function drawReferences() {
  const list = element("references");
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
  element("no-reference").hidden = state.references.length > 0;
  drawLabels();
}

/** @param {"positive" | "negative"} role of the mask on the photograph that is clicked on */
async function mark(role) {
  const mask = state.masks.with ?? state.masks.alone;
  if (!state.photo || !mask || mask.isEmpty) {
    say("There is no mask yet: click on the photograph first.", true);
    return;
  }
  state.marked[role] = await mask.png();
  const nothing = new Mask(state.photo.bitmap.width, state.photo.bitmap.height);
  const { reference, outline } = await ask("/playground/references", {
    image: state.photo.key,
    positive: await base64Of(state.marked.positive ?? (await nothing.png())),
    negative: state.marked.negative && (await base64Of(state.marked.negative)),
  });
  const photograph = state.photo;
  const own = { name: reference, title: "Marked here", photograph, outline: await createImageBitmap(blobOf(outline, "image/png")) };
  state.references = [...state.references.filter((one) => !(one.title === own.title && one.photograph === photograph)), own];
  startOver();
  drawReferences();
  say("The reference is in use. Choose another photograph and click on it.");
}

// --- clicks ---

function startOver() {
  state.clicks = [];
  state.box = null;
  state.extent = 0;
  state.session = crypto.randomUUID();
  state.asked += 1;
  for (const side of SIDES) {
    state.answers[side] = state.masks[side] = null;
    element(`figure-${side}`).textContent = "";
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

/** @param {string} side @param {number} x @param {number} y in percent */
function paint(side, x, y) {
  if (!state.photo) return;
  const { width, height } = state.photo.bitmap;
  state.masks[side] ??= new Mask(width, height);
  state.masks[side]?.dab((x * width) / 100, (y * height) / 100, Math.max(width, height) / 60, state.tool === "paint");
  draw();
}

async function compute() {
  draw();
  if (!state.photo) return;
  if (!state.box && !state.clicks.some((click) => click.positive)) {
    for (const side of SIDES) {
      state.answers[side] = state.masks[side] = null;
      element(`figure-${side}`).textContent = "";
    }
    draw();
    return;
  }
  state.asked += 1;
  const asked = state.asked;
  const started = performance.now();
  say("The model looks ...");
  await Promise.all(SIDES.map(async (side) => {
    const answer = await ask("/playground/clicks", {
      image: state.photo?.key,
      session: `${state.session}-${side}`,
      clicks: state.clicks,
      box: state.box,
      references: side === "with" ? state.references.map((one) => one.name) : [],
      extent: state.extent,
    });
    const bitmap = await createImageBitmap(blobOf(answer.mask, "image/png"));
    if (asked !== state.asked) return;
    state.answers[side] = answer;
    state.masks[side] = Mask.from(bitmap);
    element(`figure-${side}`).textContent = `expected IoU ${answer.expected_iou.toFixed(2)}`;
    draw();
    if (side === "with") tellTime(answer, performance.now() - started);
  }));
}

/** @param {Answer} answer @param {number} total */
function tellTime(answer, total) {
  const parts = Object.entries(answer.milliseconds).map(([step, spent]) => `${step} ${Math.round(spent)}`);
  say(`${Math.round(total)} ms (${parts.join(", ")}), model ${answer.model_version}`);
}

function draw() {
  for (const side of SIDES) {
    const view = views[side];
    view.photo = state.photo?.bitmap ?? null;
    view.mask = state.masks[side]?.canvas ?? null;
    view.clicks = state.clicks;
    view.box = state.box;
    view.draw();
  }
  element("undo").disabled = !state.clicks.length && !state.box;
}

/** @param {number} steps larger; negative for smaller */
function resize(steps) {
  state.extent = Math.min(2, Math.max(-2, state.extent + steps));
  compute().catch(complain);
}

function undo() {
  if (state.clicks.length) state.clicks = state.clicks.slice(0, -1);
  else state.box = null;
  compute().catch(complain);
}

/** @param {string} tool */
function setTool(tool) {
  state.tool = tool;
  for (const button of document.querySelectorAll("[data-tool]")) {
    const isChosen = button instanceof HTMLElement && button.dataset.tool === tool;
    button.setAttribute("aria-checked", String(isChosen));
    button.setAttribute("tabindex", isChosen ? "0" : "-1");
  }
}

// --- downloads ---

/** @param {string} form */
async function download(form) {
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

// --- start ---

function connect() {
  for (const button of document.querySelectorAll("[data-tool]")) {
    button.addEventListener("click", () => setTool(/** @type {HTMLElement} */ (button).dataset.tool ?? "add"));
  }
  for (const button of document.querySelectorAll("[data-download]")) {
    button.addEventListener("click", shown(() => download(/** @type {HTMLElement} */ (button).dataset.download ?? "")));
  }
  element("undo").addEventListener("click", undo);
  element("clear").addEventListener("click", startOver);
  element("smaller").addEventListener("click", () => resize(-1));
  element("larger").addEventListener("click", () => resize(1));
  element("mark-positive").addEventListener("click", shown(() => mark("positive")));
  element("mark-negative").addEventListener("click", shown(() => mark("negative")));
  element("file").addEventListener("change", shown(async () => {
    const files = [...element("file").files];
    // So that the same file can be chosen again after it was corrected.
    element("file").value = "";
    await addFiles(files);
  }));
  const drop = element("drop");
  for (const name of ["dragenter", "dragover"]) {
    document.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
  }
  document.addEventListener("dragleave", () => drop.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    addFiles(event.dataTransfer?.files ?? []).catch(complain);
  });
  document.addEventListener("keydown", (event) => {
    const tools = { a: "add", r: "remove", b: "box", p: "paint", e: "erase" };
    const tool = /** @type {Record<string, string>} */ (tools)[event.key];
    if (event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey)) undo();
    else if (event.ctrlKey || event.metaKey || event.altKey) return;
    else if (event.key === "Escape") startOver();
    else if (event.key === "-" || event.key === "+") resize(event.key === "+" ? 1 : -1);
    else if (tool) setTool(tool);
    else if (/^[1-9]$/.test(event.key)) element("labels").children[Number(event.key) - 1]?.click();
    else return;
    event.preventDefault();
  });
}

/** Puts a task and the references of a label first. @param {import("./trial.js").Trial} trial */
async function startTrial(trial) {
  const photograph = await load(trial.image, trial.name, "");
  addToStrip(photograph.name, () => photograph, photograph.bitmap);
  show(photograph);
  state.references = await Promise.all(trial.references.map(async (one) => ({
    name: one.reference,
    title: trial.label,
    photograph: await load(one.image, one.name, ""),
    outline: await createImageBitmap(blobOf(one.outline, "image/png")),
  })));
  drawReferences();
  say(`This is ${trial.name}, with the references of ${trial.label}. Click on the thing.`);
}

async function start() {
  connect();
  setTool("add");
  const trial = keptTrial();
  if (trial) await startTrial(trial);
  state.demo = (await ask("/playground/demo")).photographs;
  if (!state.demo.length) say("Drop in a photograph to begin.");
  const ordered = [...state.demo].sort((one, other) => Number(other.name === FIRST) - Number(one.name === FIRST));
  for (const demo of ordered) {
    const photograph = await loadDemo(demo);
    addToStrip(demo.name, () => photograph, photograph.bitmap);
    if (demo === ordered[0] && !trial) {
      show(photograph);
      await choose(FIRST_LABEL);
    }
  }
}

start().catch(complain);
