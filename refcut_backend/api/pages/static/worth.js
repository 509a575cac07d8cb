// @ts-check
/** Measures what references are worth: starts and stops a measurement, and shows how far it is. */

import { ask, Refusal } from "./api.js";
import { el, one } from "./dom.js";
import { complain, say } from "./message.js";

/**
 * The last measurement, as `api/pages/worth.py` shows it; `run` is null if there was none.
 * @typedef {{
 *   run: string | null, label: string | null, step: number, steps: number,
 *   outcome: "done" | "stopped" | "failed" | null, message: string, problems: string[],
 * }} Run
 */

const here = `${location.pathname.replace(/\/$/, "")}/worth`;
const POLL_MS = 1000;

/** @param {Run} found @returns {boolean} whether it is under way */
function show(found) {
  const isRunning = found.run !== null && found.outcome === null;
  for (const button of document.querySelectorAll("button[data-measure]")) {
    button.toggleAttribute("disabled", isRunning);
  }
  one("#worth-progress").hidden = !isRunning;
  one("#stop-measuring").hidden = !isRunning;
  if (isRunning) showProgress(found);
  const problems = found.run === null || isRunning ? [] : [...found.problems];
  if (found.outcome === "failed") problems.unshift(`Not measured: ${found.message}`);
  one("#worth-problems").hidden = !problems.length;
  one("#worth-problems").replaceChildren(...problems.map((problem) => el("li", {}, problem)));
  return isRunning;
}

/** @param {Run} found */
function showProgress({ label, step, steps }) {
  const bar = one("#worth-progress progress", HTMLProgressElement);
  const of = label ? ` of ${label}` : "";
  if (steps) {
    bar.max = steps;
    bar.value = step;
  } else {
    bar.removeAttribute("value");
  }
  one("#worth-progress span").textContent = steps ? `${step} of ${steps} masks${of}` : `Reading the annotations${of} ...`;
}

/** How far the measurement is; null while the backend does not answer, as when it starts again. @returns {Promise<Run | null>} */
async function readRun() {
  try {
    return await ask(here);
  } catch (error) {
    if (!(error instanceof Refusal) || error.code !== "unreachable") throw error;
    complain(error);
    return null;
  }
}

/** Shows the progress until the end, then the new figures. */
async function follow() {
  for (let isBack = true; ;) {
    const found = await readRun();
    if (found && !isBack) say("");
    isBack = found !== null;
    if (found && !show(found)) {
      if (found.outcome === "failed") say(`Not measured: ${found.message}`, true);
      else say(found.outcome === "done" ? `Done: ${found.message}.` : "The measurement was stopped.");
      document.dispatchEvent(new Event("references-changed"));
      return;
    }
    await new Promise((resolve) => { setTimeout(resolve, POLL_MS); });
  }
}

/** @param {string | null} label of the references to measure; null for all */
async function measure(label) {
  say("");
  show(await ask(here, { label }));
  one("#stop-measuring").focus();
  await follow();
}

document.addEventListener("click", (event) => {
  const button = event.target instanceof Element ? event.target.closest("button") : null;
  if (button?.id === "stop-measuring") ask(`${here}/stop`, {}).catch(complain);
  else if (button?.hasAttribute("data-measure")) measure(button.dataset.label ?? null).catch(complain);
});

/** Follows a measurement that another page or the command has started, if there is one. */
async function look() {
  /** @type {Run} */
  const found = await ask(here);
  if (show(found)) await follow();
}

if (document.getElementById("measure")) look().catch(complain);
