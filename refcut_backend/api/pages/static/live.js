// @ts-check
/** Server-sent events of a page. A page in the background holds no stream: it asks for everything again when it is seen. */

import { one } from "./dom.js";

/**
 * @typedef {import("./click-text.js").Click} Click
 * @typedef {{name: string, path: string, label_studio: string, model_version: string, masks_without_tick: number,
 *   comparison: {at_s: number, problem: string | null} | null}} Project
 * @typedef {{name: string, queues: string[], ready: boolean, device: string, click_ms: number | null}} Worker
 * @typedef {{redis: string | null, waiting: number | null, expected_wait_s: number | null, workers: Worker[]}} Queue
 * @typedef {{queue: Queue, database: boolean, projects: Project[] | null, model_version: string,
 *   disk: {folder: string, free_bytes: number, total_bytes: number} | null, versions: Record<string, string>}} State
 * @typedef {{clicks: {latest: Click[], failed: Click[]}, click: Click, state: State}} Events
 */

/** @param {string} path @param {{[K in keyof Events]: (value: Events[K]) => void}} handlers of each event */
export function listen(path, handlers) {
  /** @type {EventSource | null} */
  let source = null;
  const open = () => {
    source?.close();
    source = new EventSource(path);
    source.addEventListener("open", () => show("Live", "on"));
    source.addEventListener("error", () => {
      show("The backend does not answer. This page tries again.", "off");
      // The server refused: the session is over, or too many pages are open.
      if (source?.readyState === EventSource.CLOSED) setTimeout(() => askWhy(path, open), 3000);
    });
    for (const [name, handle] of Object.entries(handlers)) {
      source.addEventListener(name, (event) => handle(JSON.parse(/** @type {MessageEvent} */ (event).data)));
    }
  };
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) open();
    else source?.close();
  });
  open();
}

/** @param {string} path @param {() => void} again */
async function askWhy(path, again) {
  const stop = new AbortController();
  try {
    const response = await fetch(path, { signal: stop.signal });
    if (response.status === 401) location.reload();
    else if (!response.ok) show((await response.json()).hint, "off");
  } catch {
    // It still does not answer.
  }
  stop.abort();
  again();
}

/** @param {string} text @param {string} state */
function show(text, state) {
  const live = one("#live");
  live.textContent = text;
  live.dataset.state = state;
}
