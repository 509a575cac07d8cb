// @ts-check
/** The page of a project's trainings. */

import { ask } from "./api.js";
import { clock, el, one, sentence } from "./dom.js";
import { bars, lines } from "./plot.js";

/**
 * @typedef {{step: number, steps: number, stage: string, eta_s: number | null, attempt: number, is_silent: boolean,
 *   curve: (number | null)[][]}} Running
 * @typedef {{annotations: number, new: number, wanted: number, schedule: string, earliest_at: number | null,
 *   running: Running | null, last_ended: string | null, training_workers: number | null}} Progress
 * @typedef {{noc85: number | null, first_click_iou: number | null, masks: number | null}} Figures
 * @typedef {{before: Figures, after: Figures}} Change
 * @typedef {Change & {labels: (Change & {label: string})[]}} Comparison
 * @typedef {{version: string, published_at: string, parent: string, serves: boolean, served_before: boolean,
 *   approved: boolean | null, reasons: string, annotations: number | null, images: {train?: number, holdout?: number},
 *   left_out: number, references: number, compared: Comparison | null, pictures: string[]}} Version
 * @typedef {{ended_at: number, outcome: string, reason: string | null}} Ended
 * @typedef {{label: string, model_version: string, masks: number, clicks_per_mask: number}} ClickCost
 * @typedef {{serving: string, shared: string, rollback_to: string | null, versions: Version[], without_version: Ended[],
 *   clicks_per_mask: ClickCost[]}} History
 */

const path = one("#training").dataset.path;
/** @type {Record<string, string>} */
const STAGES = { queued: "waits for a training worker", snapshot: "collects annotations and images", training: "learns", judging: "is compared with what serves" };
const ASK_WHILE_RUNNING_MS = 2000;
const ASK_OTHERWISE_MS = 10_000;
let serving = "";
/** @type {string | null | undefined} */
let lastEnded;
/** @type {number | undefined} */
let timer;

one("#start").addEventListener("click", () => {
  act("start", {}, (/** @type {{is_new: boolean}} */ { is_new }) => (is_new ? "The training was requested." : "A training is under way already."));
});
one("#rollback").addEventListener("click", () => {
  change(null, `Go back to ${one("#rollback").dataset.to}? It serves within seconds, and ${serving} stays in the list.`);
});
showProgress();

async function showProgress() {
  clearTimeout(timer);
  let isRunning = false;
  if (!document.hidden) {
    try {
      /** @type {Progress} */
      const found = await ask(`${path}/progress`);
      isRunning = Boolean(found.running);
      showWaiting(found);
      showRunning(found.running, found.training_workers);
      if (found.last_ended !== lastEnded) {
        lastEnded = found.last_ended;
        await showHistory();
      }
    } catch (problem) {
      say(problem);
    }
  }
  timer = setTimeout(showProgress, isRunning ? ASK_WHILE_RUNNING_MS : ASK_OTHERWISE_MS);
}

/** @param {Progress} found */
function showWaiting(found) {
  const { annotations, new: fresh, wanted } = found;
  const isCounted = wanted > 0;
  one("#waiting").textContent = isCounted
    ? `${fresh} of ${wanted} new or changed annotations; ${annotations} to learn from in all.`
    : `${fresh} new or changed annotations; ${annotations} to learn from in all.`;
  const bar = one("#waiting-bar", HTMLProgressElement);
  bar.hidden = !isCounted;
  bar.value = isCounted ? Math.min(fresh / wanted, 1) : 0;
  const words = [];
  if (isCounted) words.push(fresh >= wanted ? "It starts by itself" : `It starts by itself at ${wanted}`);
  if (found.schedule) words.push(`and at the times of "${found.schedule}"`);
  if (!words.length) words.push("Trainings start by hand only");
  if (found.earliest_at) words.push(`not before ${clock(found.earliest_at)}`);
  one("#when").textContent = `${words.join(", ")}.`;
}

/** @param {Running | null} run @param {number | null} workers */
function showRunning(run, workers) {
  const bar = one("#running-bar", HTMLProgressElement);
  one("#start", HTMLButtonElement).disabled = Boolean(run);
  bar.hidden = !run || !run.steps;
  if (!run) {
    one("#running").textContent = "Nothing runs.";
    one("#curve").replaceChildren();
    return;
  }
  const stage = STAGES[run.stage] ?? run.stage;
  const parts = [`${sentence(stage)}`];
  if (run.steps) parts.push(`step ${run.step} of ${run.steps}`);
  if (run.eta_s !== null && !run.is_silent) parts.push(timeLeft(run.eta_s));
  let text = `${parts.join(", ")}.`;
  if (run.stage === "queued" && workers === 0) text += " No training worker runs: start `refcut worker --queues training`, or set REFCUT_TRAIN_WORKERS.";
  if (run.is_silent) text += " Its worker has not been heard of for half a minute; another one takes over.";
  if (run.attempt > 1) text += ` This is attempt ${run.attempt}.`;
  one("#running").textContent = text;
  bar.value = run.steps ? run.step / run.steps : 0;
  showCurve(run);
}

/** @param {number} seconds */
function timeLeft(seconds) {
  if (seconds < 90) return `about ${Math.max(Math.round(seconds / 10) * 10, 10)} s left`;
  return `about ${Math.round(seconds / 60)} min left`;
}

/** @param {Running} run */
function showCurve(run) {
  /** @param {number} column @returns {[step: number, iou: number][]} */
  const points = (column) => run.curve.flatMap((point) => {
    const [step, iou] = [point[0], point[column]];
    return typeof step === "number" && typeof iou === "number" ? [[step, iou]] : [];
  });
  const steps = run.curve.flatMap(([step]) => step ?? []);
  const found = [2, 3].flatMap((column) => points(column).map(([, iou]) => iou));
  if (!found.length) return one("#curve").replaceChildren();
  one("#curve").replaceChildren(
    lines({
      title: "IoU while the training runs",
      x: [Math.min(...steps), Math.max(...steps)],
      y: [Math.min(...found), Math.max(...found)],
      xText: (step) => `step ${Math.round(step)}`,
      yText: (iou) => iou.toFixed(2),
      empty: "",
      series: [
        { name: "IoU in training", points: points(2) },
        { name: "IoU of the checks on other images", points: points(3) },
      ],
    }),
  );
}

async function showHistory() {
  /** @type {History} */
  const found = await ask(`${path}/history`);
  serving = found.serving;
  one("#serving").textContent = `${serving} serves${serving === found.shared ? ", the shared model" : ""}`;
  const rollback = one("#rollback");
  rollback.hidden = !found.rollback_to;
  rollback.dataset.to = found.rollback_to ?? "";
  rollback.textContent = `Roll back to ${found.rollback_to}`;
  one("#no-versions").hidden = found.versions.length > 0;
  one("#versions").replaceChildren(...found.versions.map(version));
  one("#failed-trainings").hidden = !found.without_version.length;
  one("#without").replaceChildren(...found.without_version.map(withoutVersion));
  one("#since").replaceChildren(plotOfCosts(found.clicks_per_mask));
}

/** @param {ClickCost[]} costs */
function plotOfCosts(costs) {
  return bars({
    title: "Clicks per accepted mask by label and model",
    unit: "clicks",
    empty: "No mask has been accepted yet.",
    rows: costs.map((cost) => ({ group: cost.label, name: cost.model_version, value: cost.clicks_per_mask, note: `${cost.masks} masks`, isStrong: cost.model_version === serving })),
  });
}

/** @param {Version} found */
function version(found) {
  const state = found.serves ? "serves" : found.served_before ? "served before" : "";
  const button = found.serves ? null : el("button", { type: "button" }, "Have it serve");
  button?.addEventListener("click", () => change(found.version, promotionQuestion(found)));
  const facts = [
    `${clock(Date.parse(found.published_at) / 1000)}`,
    `from ${found.parent}`,
    found.annotations === null ? "" : `${found.annotations} annotations on ${(found.images.train ?? 0) + (found.images.holdout ?? 0)} images, ${found.images.holdout ?? 0} held out`,
    found.left_out ? `${found.left_out} left out` : "",
  ].filter(Boolean);
  return el(
    "li",
    { "data-version": found.version },
    el("div", { class: "row" }, el("h3", {}, found.version), state ? el("span", { class: `badge ${found.serves ? "on" : ""}` }, state) : null, button),
    el("p", { class: "hint" }, facts.join(" · ")),
    el("p", {}, decision(found)),
    found.compared ? comparison(found.compared) : null,
    ...found.pictures.map((name) => picture(found.version, name)),
  );
}

/** @param {Version} found */
function promotionQuestion(found) {
  const warning = found.approved === false ? " The comparison did not approve it." : "";
  return `Have ${found.version} serve instead of ${serving}?${warning}`;
}

/** @param {Version} found */
function decision(found) {
  if (found.approved === null) return "It was not compared.";
  return `${found.approved ? "Promoted" : "Not promoted"}: ${found.reasons || "no reason was recorded"}.`;
}

/** @param {Comparison} compared */
function comparison(compared) {
  const rows = [{ ...compared, label: "all labels" }, ...compared.labels];
  const head = ["Label", "Masks", "Clicks to 85 %", "First click, IoU"].map((text, at) => el("th", { scope: "col", class: at ? "number" : "" }, text));
  return el(
    "details",
    {},
    el("summary", {}, "Figures on the images held out, before and after"),
    el(
      "div",
      { class: "scroll", tabIndex: 0, role: "region", "aria-label": "Figures" },
      el(
        "table",
        {},
        el("thead", {}, el("tr", {}, ...head)),
        el("tbody", {}, ...rows.map((row) => figures(row.label, row.before, row.after))),
      ),
    ),
  );
}

/** @param {string} label @param {Figures} before @param {Figures} after */
function figures(label, before, after) {
  return el(
    "tr",
    {},
    el("th", { scope: "row" }, label),
    el("td", { class: "number" }, String(after.masks ?? "")),
    el("td", { class: "number" }, ...changed(before.noc85, after.noc85, 2, -1)),
    el("td", { class: "number" }, ...changed(before.first_click_iou, after.first_click_iou, 3, 1)),
  );
}

/** @param {number | null} before @param {number | null} after @param {number} digits @param {number} better sign of a gain */
function changed(before, after, digits, better) {
  if (typeof before !== "number" || typeof after !== "number") return ["-"];
  const gain = better * (after - before);
  const state = Math.abs(gain) < 10 ** -digits ? "" : gain > 0 ? "gain" : "problem";
  return [`${before.toFixed(digits)} → `, el("b", { class: state }, after.toFixed(digits))];
}

/** @param {string} version @param {string} name */
function picture(version, name) {
  const source = `${path}/pictures/${encodeURIComponent(version)}/${encodeURIComponent(name)}`;
  const image = el("img", { loading: "lazy", src: source, alt: "Masks on images held out, before and after this training" });
  return el("details", {}, el("summary", {}, "Pictures before and after"), image);
}

/** @param {Ended} run */
function withoutVersion(run) {
  const at = el("time", {}, clock(run.ended_at));
  return el("li", { class: run.outcome === "failed" ? "failed" : "" }, at, el("span", {}, run.outcome === "failed" ? "failed" : "nothing to promote"), el("span", { class: "outcome" }, run.reason ?? ""));
}

/** @param {string | null} version @param {string} question */
function change(version, question) {
  const dialog = one("#sure", HTMLDialogElement);
  one("#sure-text").textContent = question;
  one("#yes").onclick = () => {
    dialog.close();
    act("serve", { serving, version }, (/** @type {{serving: string}} */ done) => `${done.serving} serves from now on.`);
  };
  one("#no").onclick = () => dialog.close();
  dialog.showModal();
  one("#no").focus();
}

/** @template D @param {string} action @param {object} body @param {(done: D) => string} words what the answer is in words */
async function act(action, body, words) {
  try {
    const text = words(await ask(`${path}/${action}`, body));
    await showHistory();
    await showProgress();
    say(null, text);
  } catch (problem) {
    say(problem);
    await showHistory().catch(() => {});
  }
}

/** @param {unknown} problem @param {string} [text] */
function say(problem, text) {
  const message = one("#message");
  message.classList.toggle("problem", Boolean(problem));
  message.textContent = problem instanceof Error ? sentence(problem.message) : (text ?? "");
}
