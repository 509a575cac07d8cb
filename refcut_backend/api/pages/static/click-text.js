// @ts-check
/** How pages put a click into words. */

import { clock, el, prose, sentence } from "./dom.js";

/**
 * @typedef {{id: string, at_s: number, project: string, task: number | null, label: string, outcome: string,
 *   answered: boolean, failed: boolean, meaning: string, remedy: string, problem: string, clicks: number, region: string,
 *   references: string[], model_version: string, milliseconds: number}} Click
 * @typedef {import("./live.js").Project} Project
 */

/** Text of the table of reasons, which is Markdown, without emphasis and links. Code stays for `prose`. @param {string} text */
const plain = (text) => text.replace(/\*([^*]+)\*/g, "$1").replace(/\[([^\]]+)\]\([^)]*\)/g, "$1");

/** @param {Click} click */
export function outcome(click) {
  return click.answered ? "Mask" : sentence(plain(click.meaning || click.outcome));
}

/** Project and task, as a link into Label Studio if its address is known. @param {Click} click @param {Project[]} projects */
export function place(click, projects) {
  const text = `Project ${click.project}${click.task ? `, task ${click.task}` : ""}`;
  const known = projects.find((project) => project.name === click.project);
  if (!known?.label_studio || !click.task) return el("span", {}, text);
  return el("a", { href: `${known.label_studio}data?task=${click.task}` }, text);
}

/** Changes when links into Label Studio change. @param {Project[]} projects */
export function addresses(projects) {
  return projects.map((project) => `${project.name} ${project.label_studio}`).join("\n");
}

/** What happened and what helps, for a click without a mask. @param {Click} click */
export function explanation(click) {
  const rest = [];
  const remedy = plain(click.remedy);
  const problem = remedy && click.problem.endsWith(`; ${remedy}`) ? click.problem.slice(0, -`; ${remedy}`.length) : click.problem;
  if (problem) rest.push(el("p", { class: "detail" }, ...prose(sentence(problem))));
  if (remedy) rest.push(el("p", { class: "remedy" }, el("b", {}, "What helps: "), ...prose(remedy)));
  return rest;
}

/** @param {Click} click */
export function when(click) {
  return el("time", { dateTime: new Date(1000 * click.at_s).toISOString() }, clock(click.at_s));
}
