// @ts-check
/** Requests to the backend, and base64. */

/** A refusal of the backend, with what helps. */
export class Refusal extends Error {
  /** @param {string} code @param {string} message @param {string} hint */
  constructor(code, message, hint) {
    super(hint ? `${message}: ${hint}` : message);
    this.code = code;
  }
}

/**
 * Asks for JSON. Its type is what the caller says; it stands beside what the server makes of it in `api/pages/`.
 * @template [T=unknown]
 * @param {string} path
 * @param {object} [body] sent as JSON with POST; without it the request is a GET
 * @returns {Promise<T>}
 */
export async function ask(path, body) {
  return (await send(path, body)).json();
}

/** @param {string} path @param {object} [body] as in `ask` @returns {Promise<Blob>} */
export async function askFile(path, body) {
  return (await send(path, body)).blob();
}

/** @param {string} path @param {object} [body] @returns {Promise<Response>} */
async function send(path, body) {
  const options = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Refusal("unreachable", "The backend does not answer", "check that it runs");
  }
  if (response.ok) return response;
  // The session has ended: the server sends a page that is loaded again to the login form.
  if (response.status === 401) location.reload();
  const found = await response.json().catch(() => ({}));
  throw new Refusal(found.error ?? "error", found.message ?? `The backend answers ${response.status}`, found.hint ?? "");
}

/** @param {string} base64 @param {string} type @returns {Blob} */
export function blobOf(base64, type) {
  const text = atob(base64);
  const bytes = Uint8Array.from(text, (sign) => sign.charCodeAt(0));
  return new Blob([bytes], { type });
}

/** @param {Blob} blob @returns {Promise<string>} */
export async function base64Of(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  let text = "";
  for (let at = 0; at < bytes.length; at += 0x8000) text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  return btoa(text);
}

/** @param {Blob} blob @param {string} name */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
