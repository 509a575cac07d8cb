// @ts-check
/** Elements without a template engine. Text is always text: labels and file names may be markup. */

/**
 * What an element gets: its own properties; `class` and names with a hyphen become attributes.
 * @template {keyof HTMLElementTagNameMap} K
 * @typedef {Partial<HTMLElementTagNameMap[K]> & {class?: string} & {[attribute: `${"aria" | "data"}-${string}`]: string}} Properties
 */

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Properties<K>} properties
 * @param {...(Node | string | null)} children without those that are null or empty
 * @returns {HTMLElementTagNameMap[K]} the element
 */
export function el(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class" || name.includes("-")) element.setAttribute(name, String(value));
    else Object.assign(element, { [name]: value });
  }
  element.append(...children.filter((child) => child !== null).filter((child) => child !== ""));
  return element;
}

/** Text in which words between backticks are code. @param {string} text @returns {Node[]} */
export function prose(text) {
  return text.split("`").map((part, index) => (index % 2 ? el("code", {}, part) : document.createTextNode(part)));
}

/**
 * An element that the page has for certain.
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} selector
 * @param {new () => T} [type] its class, if more of it is used than every element has
 * @returns {T}
 */
export function one(selector, type) {
  const found = document.querySelector(selector);
  if (!(found instanceof (type ?? HTMLElement))) throw new Error(`the page has no ${type?.name ?? "element"} ${selector}`);
  return /** @type {T} */ (found);
}

/** @param {string} text */
export function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
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
