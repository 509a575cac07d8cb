// @ts-check
/** The status page. */

import { Refusal } from "./api.js";
import { addresses, explanation, outcome, place, when } from "./click-text.js";
import { clock, duration, el, one, prose, sentence } from "./dom.js";
import { listen } from "./live.js";
import { lines } from "./plot.js";

const KEPT = 50;
const FAILURES_SHOWN = 5;
const GIBIBYTE = 2 ** 30;
/**
 * @typedef {import("./live.js").Click} Click
 * @typedef {import("./live.js").Project} Project
 * @typedef {import("./live.js").State} State
 * @typedef {{at_s: number, p50_ms: number, p95_ms: number, clicks: number}} ClickTimes
 */

/** @type {import("./live.js").Events["clicks"]} */
let clicks = { latest: [], failed: [] };
/** @type {Project[]} */
let projects = [];
let showsAll = false;

listen("/status/events", {
  clicks: (found) => {
    clicks = found;
    showClicks();
  },
  click: (found) => {
    clicks.latest = [found, ...clicks.latest].slice(0, KEPT);
    if (found.failed) clicks.failed = [found, ...clicks.failed].slice(0, KEPT);
    showClicks();
  },
  state: showState,
});
one("#more-failed").addEventListener("click", () => {
  showsAll = !showsAll;
  showClicks();
});
one("#doctor").addEventListener("click", runDoctor);
showSpeed();
setInterval(showSpeed, 30_000);

function showClicks() {
  const failed = showsAll ? clicks.failed : clicks.failed.slice(0, FAILURES_SHOWN);
  one("#no-failed").hidden = clicks.failed.length > 0;
  one("#failed").replaceChildren(...failed.map(failure));
  const more = one("#more-failed");
  more.hidden = clicks.failed.length <= FAILURES_SHOWN;
  more.textContent = showsAll ? "Show fewer" : `Show all ${clicks.failed.length}`;
  one("#no-latest").hidden = clicks.latest.length > 0;
  one("#latest").hidden = !clicks.latest.length;
  one("#latest tbody").replaceChildren(...clicks.latest.map(row));
}

/** @param {Click} click */
function failure(click) {
  return el(
    "li",
    {},
    el("p", { class: "what" }, el("b", {}, outcome(click)), " ", el("code", {}, click.outcome)),
    ...explanation(click),
    el("p", { class: "where" }, when(click), " ", place(click, projects), click.label ? ` · ${click.label}` : ""),
  );
}

/** @param {Click} click */
function row(click) {
  return el(
    "tr",
    { class: click.failed ? "failed" : "fine" },
    el("td", {}, when(click)),
    el("td", {}, place(click, projects)),
    el("td", {}, click.label),
    el("td", {}, click.answered ? "mask" : el("span", { title: click.meaning }, click.outcome)),
    el("td", { class: "number" }, click.clicks ? String(click.clicks) : ""),
    el("td", { class: "number" }, duration(click.milliseconds)),
    el("td", { class: "version" }, click.model_version),
  );
}

/** @param {State} state */
function showState(state) {
  const before = addresses(projects);
  projects = state.projects ?? projects;
  if (addresses(projects) !== before) showClicks();
  showNow(state);
  showWorkers(state.queue.workers);
  showProjects(state.projects);
  one("#versions").textContent = Object.entries(state.versions)
    .map(([name, version]) => `${name} ${version}`)
    .concat(`shared model ${state.model_version}`)
    .join(" · ");
}

/** @param {State} state */
function showNow(state) {
  const { queue, disk } = state;
  const ready = queue.workers.filter((worker) => worker.ready && worker.queues.includes("clicks")).length;
  const free = disk ? disk.free_bytes / GIBIBYTE : null;
  /** @type {[name: string, value: string, isWrong: boolean][]} */
  const figures = [
    ["Redis", queue.redis ? sentence(queue.redis) : "up", Boolean(queue.redis)],
    ["Database", state.database ? "up" : "cannot be written", !state.database],
    ["Workers for clicks", queue.redis ? "unknown" : String(ready), !ready],
    ["Clicks that wait", queue.waiting === null ? "unknown" : String(queue.waiting), false],
    ["Next click", queue.expected_wait_s === null ? "not measured yet" : duration(1000 * queue.expected_wait_s), false],
    ["Free disk", free === null ? "unknown" : `${free.toFixed(free < 10 ? 1 : 0)} GiB`, free !== null && free < 2],
  ];
  one("#now").replaceChildren(
    ...figures.map(([name, value, isWrong]) =>
      el("div", {}, el("dt", {}, name), el("dd", isWrong ? { class: "problem" } : {}, value)),
    ),
  );
}

/** What a worker does for a queue. @type {Record<string, string>} */
const WORK = { clicks: "clicks", warm: "opened tasks", prelabel: "pre-labelling", measure: "measuring", training: "training" };

/** @param {import("./live.js").Worker[]} workers */
function showWorkers(workers) {
  one("#workers").hidden = !workers.length;
  one("#workers tbody").replaceChildren(
    ...workers.map((worker) =>
      el(
        "tr",
        {},
        el("th", { scope: "row", class: "version" }, worker.name),
        el("td", {}, worker.queues.map((name) => WORK[name] ?? name).join(", ")),
        el("td", {}, worker.ready ? worker.device || "-" : "is starting"),
        el("td", { class: "number" }, worker.click_ms === null ? "" : duration(worker.click_ms)),
      ),
    ),
  );
}

/** @param {Project[] | null} found */
function showProjects(found) {
  one("#no-projects").hidden = found === null || found.length > 0;
  one("#projects").hidden = !found?.length;
  one("#projects tbody").replaceChildren(
    ...(found ?? []).map((project) =>
      el(
        "tr",
        {},
        el(
          "th",
          { scope: "row" },
          el("a", { href: `${project.path}/references` }, `Project ${project.name}`),
          project.label_studio ? el("a", { class: "into", href: project.label_studio }, "Label Studio") : null,
        ),
        el("td", {}, el("a", { href: `${project.path}/training` }, project.model_version)),
        el("td", {}, ...comparison(project.comparison)),
        el("td", {}, ...withoutTick(project)),
      ),
    ),
  );
}

/** @param {Project["comparison"]} last */
function comparison(last) {
  if (!last) return ["not yet by this web process"];
  if (!last.problem) return [clock(last.at_s)];
  return [el("span", { class: "problem" }, `failed at ${clock(last.at_s)}: `), ...prose(last.problem)];
}

/** @param {Project} project */
function withoutTick(project) {
  if (!project.masks_without_tick) return ["none"];
  const command = `refcut masks recover --project ${project.name}`;
  return [el("span", { class: "problem" }, String(project.masks_without_tick)), ". Put them in: ", el("code", {}, command)];
}

async function showSpeed() {
  if (document.hidden) return;
  const response = await fetch("/status/speed").catch(() => null);
  if (!response?.ok) return;
  /** @type {{steps: ClickTimes[], span_s: number}} */
  const { steps, span_s } = await response.json();
  const now = Date.now() / 1000;
  one("#speed").replaceChildren(
    lines({
      title: "Milliseconds per click over the last hour",
      x: [now - span_s, now],
      xText: (at) => clock(at).slice(-8, -3),
      yText: duration,
      empty: "No click in the last hour.",
      series: [
        { name: "median", points: steps.map((step) => [step.at_s, step.p50_ms]) },
        { name: "95 of 100 are faster", points: steps.map((step) => [step.at_s, step.p95_ms]) },
      ],
    }),
  );
}

async function runDoctor() {
  const button = one("#doctor", HTMLButtonElement);
  button.disabled = true;
  one("#findings").replaceChildren();
  one("#doctor-state").textContent = "The checks run.";
  try {
    one("#doctor-state").textContent = await readFindings();
  } catch (problem) {
    one("#doctor-state").textContent = problem instanceof Refusal ? problem.message : "The backend does not answer.";
  }
  button.disabled = false;
}

/** @returns {Promise<string>} the result in one sentence */
async function readFindings() {
  const headers = { "Content-Type": "application/json" };
  const response = await fetch("/status/doctor", { method: "POST", headers, body: "{}" });
  if (!response.ok || !response.body) {
    const found = await response.json().catch(() => ({}));
    throw new Refusal(found.error ?? "error", sentence(found.message ?? "the checks cannot run"), found.hint ?? "");
  }
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let wrong = 0;
  let all = 0;
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const parts = (rest + value).split("\n");
    rest = parts.pop() ?? "";
    for (const finding of parts.map((line) => JSON.parse(line))) {
      all += 1;
      wrong += finding.state === "wrong" ? 1 : 0;
      one("#findings").append(shownFinding(finding));
    }
  }
  if (!all) return "The checks ended without a finding. Run `refcut doctor` in a terminal.";
  return wrong ? `${wrong} of ${all} findings need something done.` : `All ${all} findings are good.`;
}

/** @type {Record<"ok" | "note" | "wrong", [mark: string, word: string]>} */
const MARKS = { ok: ["✓", "good"], note: ["!", "a note"], wrong: ["✗", "wrong"] };

/** @param {{subject: string, state: "ok" | "note" | "wrong", what: string, advice: string}} finding */
function shownFinding(finding) {
  const [mark, word] = MARKS[finding.state];
  return el(
    "li",
    { "data-state": finding.state },
    el("span", { class: "mark", role: "img", "aria-label": word }, mark),
    el("div", {}, el("b", {}, finding.subject), ` ${finding.what}`, finding.advice ? el("p", { class: "remedy" }, ...prose(finding.advice)) : null),
  );
}
