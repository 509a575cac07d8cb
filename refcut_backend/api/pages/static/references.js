// @ts-check
/** The references of a project: what each button does. The server renders the page; after a change it is read again. */

import { ask, askFile, base64Of, save } from "./api.js";
import { one } from "./dom.js";
import { complain, say } from "./message.js";
import { watchDragging } from "./reorder.js";
import { keepTrial } from "./trial.js";

const here = `${location.pathname.replace(/\/$/, "")}`;

/** Runs what a button or a form does; a failure is shown. @param {string} during @param {() => Promise<string>} work */
async function run(during, work) {
  say(during);
  try {
    say(await work());
  } catch (error) {
    complain(error);
  }
}

/** Shows the page as it is now, without losing the place of the keyboard. */
async function refresh() {
  const focused = document.activeElement;
  const answer = await fetch(location.href);
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("labels-of-project");
  if (!fresh) {
    location.reload();
    return;
  }
  one("#labels-of-project").replaceWith(fresh);
  watchPictures();
  nameAuthors();
  const id = focused?.id ?? "";
  const places = [id, id.replace(/^[a-z]+/, (name) => OPPOSITES[name] ?? name)].map((name) => document.getElementById(name));
  const [same] = places.filter((found) => found && !found.matches(":disabled"));
  (same ?? document.querySelector("main h2"))?.focus?.();
}

/** @type {Record<string, string>} */
const OPPOSITES = { pin: "unpin", unpin: "pin", disable: "enable", enable: "disable", earlier: "later", later: "earlier" };

const DONE = {
  pin: "Pinned: of this label, only pinned references are used.",
  unpin: "No longer pinned.",
  disable: "Disabled: clicks no longer use it.",
  enable: "Enabled.",
  add: "The task's regions are a reference now.",
  remove: "Removed.",
  newest_first: "The newest references are used first again.",
};

/** @param {string | undefined} name @returns {name is keyof typeof DONE} */
const isAction = (name) => name !== undefined && name in DONE;

/** @param {keyof typeof DONE} action @param {string} label @param {number | null} task @param {number | null} annotation */
function change(action, label, task, annotation) {
  return run("One moment ...", async () => {
    await ask(`${here}/change`, { action, label, task, annotation });
    await refresh();
    return DONE[action];
  });
}

/** @param {DOMStringMap} card its data @param {number} place */
function move({ label, task, annotation }, place) {
  return run("One moment ...", async () => {
    try {
      await ask(`${here}/change`, { action: "move", label, task: number(task), annotation: number(annotation), place });
    } finally {
      await refresh();
    }
    return `Moved to place ${place}. A reference that is marked later comes after those that were moved.`;
  });
}

/** Opens the playground with a task and the references of a label. @param {string} label @param {number} task */
function tryOn(label, task) {
  run("Reading the photographs ...", async () => {
    keepTrial(await ask(`${here}/trial`, { label, task }));
    location.assign("/#trial");
    return "Opening the playground ...";
  });
}

/** @param {HTMLElement} button */
function download(button) {
  run("Reading the photographs ...", async () => {
    save(await askFile(`${here}/set`), button.dataset.name ?? "references.zip");
    return "The set is downloaded.";
  });
}

/** @param {() => Promise<object>} source of the set */
function addSet(source) {
  run("Adding the set ...", async () => {
    /** @type {{text: string}} */
    const { text } = await ask(`${here}/set`, await source());
    await refresh();
    return text;
  });
}

/** @param {string | undefined} text @returns {number | null} */
const number = (text) => (text ? Number(text) : null);

/** A photograph that cannot be read is replaced by the reason. */
function watchPictures() {
  for (const picture of document.querySelectorAll("img[loading]")) {
    if (!(picture instanceof HTMLImageElement)) continue;
    const explain = async () => {
      const reason = document.createElement("span");
      reason.className = "no-picture";
      reason.textContent = await ask(picture.src).then(() => "The picture cannot be shown.", (error) => error.message);
      picture.replaceWith(reason);
    };
    picture.addEventListener("error", explain, { once: true });
    if (picture.complete && !picture.naturalWidth && picture.currentSrc) explain();
  }
}

document.addEventListener("click", (event) => {
  const button = event.target instanceof Element ? event.target.closest("button[data-action]") : null;
  if (event.target instanceof HTMLElement && event.target.id === "download-set") download(event.target);
  if (!(button instanceof HTMLElement)) return;
  const { action, label, task, annotation } = button.dataset;
  if (action === "move") move(button.dataset, Number(button.dataset.place));
  else if (isAction(action)) change(action, label ?? "", number(task), number(annotation));
});

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!(form instanceof HTMLFormElement)) return;
  event.preventDefault();
  if (event.submitter instanceof HTMLButtonElement && event.submitter.name === "add") {
    change("add", form.dataset.label ?? "", number(String(new FormData(form).get("task"))), null);
  } else if (event.submitter instanceof HTMLButtonElement && event.submitter.name === "try") {
    tryOn(form.dataset.label ?? "", Number(new FormData(form).get("task")));
  } else if (event.submitter instanceof HTMLButtonElement && event.submitter.name === "copy") {
    addSet(async () => ({ from_project: new FormData(form).get("project") }));
  }
});

document.addEventListener("change", (event) => {
  const input = event.target;
  if (!(input instanceof HTMLInputElement) || input.id !== "upload-set" || !input.files) return;
  const [file] = input.files;
  if (!file) return;
  // So that the same file can be chosen again after it was corrected.
  input.value = "";
  addSet(async () => ({ data: await base64Of(file) }));
});

watchDragging((card, place) => move(card.dataset, place));

// worth.js has new figures.
document.addEventListener("references-changed", () => refresh());

/** @type {Promise<Record<string, string>> | undefined} user number to e-mail address */
let emails;

/** @returns {Promise<Record<string, string>>} */
async function readEmails() {
  try {
    return await ask(`${here}/authors`);
  } catch {
    return {};
  }
}

/** Replaces the numbers of users by their e-mail addresses, as soon as Label Studio tells them. */
async function nameAuthors() {
  emails ??= readEmails();
  const known = await emails;
  for (const author of document.querySelectorAll("[data-author]")) {
    author.textContent = known[author.getAttribute("data-author") ?? ""] ?? author.textContent;
  }
}

watchPictures();
nameAuthors();
