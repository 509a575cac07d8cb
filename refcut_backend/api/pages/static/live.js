// @ts-check
/** Server-sent events of a page. A page in the background holds no stream: it asks for everything again when it is seen. */

import { one } from "/static/dom.js";

/** @param {string} path @param {Record<string, (value: any) => void>} handlers event name to what shows its value */
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
