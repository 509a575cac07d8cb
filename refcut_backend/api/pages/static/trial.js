// @ts-check
/** Hands a task and the references of a label from the page of references to the playground, in this tab alone. */

/**
 * @typedef {{reference: string, image: string, name: string, outline: string}} TrialReference
 * @typedef {{image: string, name: string, label: string, references: TrialReference[]}} Trial
 */

const KEY = "refcut-trial";

/** @param {Trial} trial */
export function keepTrial(trial) {
  sessionStorage.setItem(KEY, JSON.stringify(trial));
}

/** @returns {Trial | null} what the playground was opened for, if it was */
export function keptTrial() {
  const kept = location.hash === "#trial" ? sessionStorage.getItem(KEY) : null;
  return kept === null ? null : JSON.parse(kept);
}
