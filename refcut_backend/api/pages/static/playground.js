// @ts-check
/** The playground: what each control and key does, and what is there at first. */

import { ask, blobOf } from "./api.js";
import { one } from "./dom.js";
import { complain, say, shown } from "./message.js";
import { resize, setTool, startOver, toggleMap, undo } from "./playground-clicks.js";
import { download } from "./playground-downloads.js";
import { choose, drawReferences, mark } from "./playground-references.js";
import { load, loadDemo, state } from "./playground-state.js";
import { addFiles, addToStrip, show } from "./playground-strip.js";
import { keptTrial } from "./trial.js";

const FIRST = "car_parts_te66.jpg";
const FIRST_LABEL = "Wheel";
/** @type {Record<string, string>} */
const TOOLS = { a: "add", r: "remove", b: "box", p: "paint", e: "erase" };

function connect() {
  for (const button of document.querySelectorAll("button")) {
    const { tool, download: form } = button.dataset;
    if (tool) button.addEventListener("click", () => setTool(tool));
    if (form) button.addEventListener("click", shown(() => download(form)));
  }
  one("#undo").addEventListener("click", undo);
  one("#clear").addEventListener("click", startOver);
  one("#smaller").addEventListener("click", () => resize(-1));
  one("#larger").addEventListener("click", () => resize(1));
  one("#map").addEventListener("click", toggleMap);
  one("#mark-positive").addEventListener("click", shown(() => mark("positive")));
  one("#mark-negative").addEventListener("click", shown(() => mark("negative")));
  one("#file").addEventListener("change", shown(async () => {
    const input = one("#file", HTMLInputElement);
    const files = [...(input.files ?? [])];
    // So that the same file can be chosen again after it was corrected.
    input.value = "";
    await addFiles(files);
  }));
  const drop = one("#drop");
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
    const tool = TOOLS[event.key];
    if (event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey)) undo();
    else if (event.ctrlKey || event.metaKey || event.altKey) return;
    else if (event.key === "Escape") startOver();
    else if (event.key === "-" || event.key === "+") resize(event.key === "+" ? 1 : -1);
    else if (event.key === "m") toggleMap();
    else if (tool) setTool(tool);
    else if (/^[1-9]$/.test(event.key)) one("#labels").querySelectorAll("button")[Number(event.key) - 1]?.click();
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
  /** @type {{photographs: import("./playground-state.js").DemoPhotograph[]}} */
  const { photographs } = await ask("/playground/demo");
  state.demo = photographs;
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
