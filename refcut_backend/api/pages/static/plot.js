// @ts-check
/** Small plots as SVG. Colours and fonts are those of the style sheet. */

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 560;
const HEIGHT = 200;
const LEFT = 70;
const RIGHT = 12;
const TOP = 12;
const BOTTOM = 28;

/**
 * @typedef {{name: string, points: [number, number][]}} Series
 * @typedef {{title: string, series: Series[], x: [number, number], y?: [number, number], xText: (x: number) => string,
 *   yText: (y: number) => string, empty: string}} Lines
 */

/** Lines over a common axis, with a legend. @param {Lines} plot @returns {Element} */
export function lines(plot) {
  const all = plot.series.flatMap((series) => series.points);
  if (!all.length) {
    const text = document.createElement("p");
    text.className = "hint";
    text.textContent = plot.empty;
    return text;
  }
  const yTicks = ticks(plot.y ?? [0, Math.max(...all.map(([, y]) => y)) || 1]);
  const [low, high] = [Math.min(...yTicks), Math.max(...yTicks)];
  const [x0, x1] = plot.x[1] > plot.x[0] ? plot.x : [plot.x[0], plot.x[0] + 1];
  /** @param {number} value */
  const left = (value) => LEFT + ((value - x0) / (x1 - x0)) * (WIDTH - LEFT - RIGHT);
  /** @param {number} value */
  const top = (value) => HEIGHT - BOTTOM - ((value - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  const svg = make("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": described(plot) });
  for (const tick of yTicks) {
    svg.append(make("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: top(tick), y2: top(tick) }));
    svg.append(make("text", { class: "tick", x: LEFT - 8, y: top(tick) + 4, "text-anchor": "end" }, plot.yText(tick)));
  }
  for (const share of [0, 0.5, 1]) {
    const anchor = share === 0 ? "start" : share === 1 ? "end" : "middle";
    const at = x0 + share * (x1 - x0);
    svg.append(make("text", { class: "tick", x: left(at), y: HEIGHT - 8, "text-anchor": anchor }, plot.xText(at)));
  }
  plot.series.forEach((series, index) => {
    const path = series.points.map(([x, value]) => `${left(x).toFixed(1)},${top(value).toFixed(1)}`).join(" ");
    svg.append(make("polyline", { class: `line series-${index}`, points: path }));
    if (series.points.length <= 40) {
      for (const [x, value] of series.points) svg.append(make("circle", { class: `dot series-${index}`, cx: left(x), cy: top(value), r: 2.5 }));
    }
  });
  const figure = document.createElement("figure");
  figure.append(svg, legend(plot.series.map((series) => series.name)));
  return figure;
}

/** @param {string[]} names */
export function legend(names) {
  const list = document.createElement("figcaption");
  list.className = "legend";
  names.forEach((name, index) => {
    const entry = document.createElement("span");
    entry.className = `entry series-${index}`;
    entry.textContent = name;
    list.append(entry);
  });
  return list;
}

/** Round values that cover a range, four to six of them. @param {[number, number]} range @returns {number[]} */
export function ticks([low, high]) {
  const raw = (high - low) / 4 || Math.abs(high) / 4 || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= raw) ?? 10);
  const first = Math.floor(low / step);
  const last = Math.max(Math.ceil(high / step - 1e-9), first + 1);
  return Array.from({ length: last - first + 1 }, (_, index) => (first + index) * step);
}

/** @param {Lines} plot */
function described(plot) {
  const last = plot.series.flatMap(({ name, points }) => points.slice(-1).map(([, value]) => `${name} ${plot.yText(value)}`));
  return `${plot.title}. Last: ${last.join(", ")}.`;
}

/** @param {string} tag @param {Record<string, string | number>} attributes @param {string} [text] */
export function make(tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  if (text !== undefined) element.textContent = text;
  return element;
}

/**
 * @typedef {{group: string, name: string, value: number, note: string, isStrong: boolean}} Bar
 * @typedef {{title: string, unit: string, empty: string, rows: Bar[]}} Bars
 */

/** Horizontal bars in groups, as a table, so that every value can be read. @param {Bars} plot @returns {Element} */
export function bars(plot) {
  if (!plot.rows.length) {
    const text = document.createElement("p");
    text.className = "hint";
    text.textContent = plot.empty;
    return text;
  }
  const most = Math.max(...plot.rows.map((row) => row.value));
  const table = document.createElement("table");
  table.className = "bars";
  table.createCaption().textContent = plot.title;
  plot.rows.forEach((row, at) => {
    const line = table.insertRow();
    if (row.isStrong) line.className = "strong";
    const group = document.createElement("th");
    group.scope = "row";
    group.textContent = plot.rows[at - 1]?.group === row.group ? "" : row.group;
    line.append(group);
    line.insertCell().textContent = row.name;
    const bar = make("svg", { viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" });
    bar.append(make("rect", { class: "bar", width: (100 * row.value) / most, height: 8 }));
    line.insertCell().append(bar);
    line.insertCell().textContent = `${row.value.toFixed(1)} ${plot.unit}`;
    line.insertCell().textContent = row.note;
  });
  return table;
}
