// @ts-check
/** The line of a page that says what happened, and why something did not. */

import { Refusal } from "./api.js";
import { one } from "./dom.js";

/** @param {string} text @param {boolean} [isProblem] */
export function say(text, isProblem = false) {
  one("#message").textContent = text;
  one("#message").classList.toggle("problem", isProblem);
}

/** @param {unknown} error */
export function complain(error) {
  if (error instanceof Refusal && error.code === "superseded") return;
  say(error instanceof Error ? error.message : String(error), true);
}

/** Wraps a handler so that its failure is shown. @param {() => Promise<void>} work */
export const shown = (work) => () => work().catch(complain);
