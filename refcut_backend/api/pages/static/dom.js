// @ts-check
/** Elements without a template engine. Text is always text: labels and file names may be markup. */

/**
 * @param {string} tag
 * @param {Record<string, any>} [properties] of the element; `class` and names with a hyphen become attributes
 * @param {...(Node | string | null)} children
 * @returns {any} the element
 */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class" || name.includes("-")) element.setAttribute(name, value);
    else /** @type {any} */ (element)[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== ""));
  return element;
}

/** Text in which words between backticks are code. @param {string} text @returns {Node[]} */
export function prose(text) {
  return text.split("`").map((part, index) => (index % 2 ? el("code", {}, part) : document.createTextNode(part)));
}

/** @param {string} selector @returns {any} */
export function one(selector) {
  return document.querySelector(selector);
}

/** @param {string} text */
export function sentence(text) {
  return text ? text[0].toUpperCase() + text.slice(1) : "";
}

/** @param {number} seconds since 1970 */
export function clock(seconds) {
  const at = new Date(1000 * seconds);
  const time = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
  return at.toDateString() === new Date().toDateString() ? time : `${at.toLocaleDateString()} ${time}`;
}

/** @param {number} milliseconds */
export function duration(milliseconds) {
  return milliseconds < 1000 ? `${Math.round(milliseconds)} ms` : `${(milliseconds / 1000).toFixed(1)} s`;
}
