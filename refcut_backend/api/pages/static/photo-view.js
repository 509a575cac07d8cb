// @ts-check
/** A photograph on a canvas with a mask, clicks, a box and a cross; tells where it is clicked, dragged and painted. */

/**
 * @typedef {{x: number, y: number, positive: boolean}} Click in percent of the photograph
 * @typedef {{left: number, top: number, right: number, bottom: number}} Box in percent of the photograph
 * @typedef {{
 *   click(x: number, y: number, takesAway: boolean): void,
 *   box(box: Box): void,
 *   stroke(): void,
 *   dab(x: number, y: number): void,
 *   painted(): void,
 *   tool(): string,
 * }} Handlers
 */

const DRAG_PX = 4;
const STEP_PERCENT = 1;
/** @type {Record<string, [number, number]>} */
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class PhotoView {
  /** @param {HTMLCanvasElement} canvas @param {Handlers} handlers */
  constructor(canvas, handlers) {
    this.canvas = canvas;
    this.handlers = handlers;
    this.context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    /** @type {ImageBitmap | null} */ this.photo = null;
    /** @type {HTMLCanvasElement | null} */ this.mask = null;
    /** @type {HTMLCanvasElement | null} drawn in place of the mask */ this.map = null;
    /** @type {Click[]} */ this.clicks = [];
    /** @type {Box | null} */ this.box = null;
    /** @type {{x: number, y: number} | null} */ this.cross = null;
    /** @type {{x: number, y: number} | null} of a box that is begun by keyboard */ this.corner = null;
    /** @type {{x: number, y: number, takesAway: boolean} | null} */ this.pressed = null;
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.release(event));
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => { this.cross = this.corner = null; this.draw(); });
  }

  /** @param {PointerEvent} event @returns {{x: number, y: number}} percent of the photograph */
  place(event) {
    const area = this.canvas.getBoundingClientRect();
    const within = (/** @type {number} */ value) => Math.min(100, Math.max(0, value));
    return {
      x: within((100 * (event.clientX - area.left)) / area.width),
      y: within((100 * (event.clientY - area.top)) / area.height),
    };
  }

  /** @param {PointerEvent} event */
  press(event) {
    if (!this.photo) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.pressed = { ...this.place(event), takesAway: event.altKey || event.button === 2 };
    if (!this.isBrush) return;
    this.handlers.stroke();
    this.handlers.dab(this.pressed.x, this.pressed.y);
  }

  get isBrush() {
    return ["paint", "erase"].includes(this.handlers.tool());
  }

  /** @param {PointerEvent} event */
  move(event) {
    if (!this.pressed) return;
    const { x, y } = this.place(event);
    if (this.isBrush) this.handlers.dab(x, y);
    else if (this.handlers.tool() === "box") {
      this.box = boxBetween(this.pressed, { x, y });
      this.draw();
    }
  }

  /** @param {PointerEvent} event */
  release(event) {
    const pressed = this.pressed;
    this.pressed = null;
    if (!pressed) return;
    const end = this.place(event);
    const area = this.canvas.getBoundingClientRect();
    const dragged = Math.hypot(((end.x - pressed.x) * area.width) / 100, ((end.y - pressed.y) * area.height) / 100);
    if (this.isBrush) this.handlers.painted();
    else if (this.handlers.tool() === "box" && dragged > DRAG_PX) this.handlers.box(boxBetween(pressed, end));
    else if (this.handlers.tool() !== "box") this.handlers.click(pressed.x, pressed.y, pressed.takesAway);
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (event.key === "Escape") this.corner = null;
    const move = MOVES[event.key];
    const cross = this.cross ?? { x: 50, y: 50 };
    if (move) {
      const step = STEP_PERCENT * (event.shiftKey ? 5 : 1);
      this.cross = {
        x: Math.min(100, Math.max(0, cross.x + step * move[0])),
        y: Math.min(100, Math.max(0, cross.y + step * move[1])),
      };
      if (this.corner) this.box = boxBetween(this.corner, this.cross);
      this.draw();
    } else if (event.key === "Enter" || event.key === " ") this.useTool(cross);
    else if (event.key === "Delete" || event.key === "Backspace") this.handlers.click(cross.x, cross.y, true);
    else return;
    event.preventDefault();
  }

  /** What the tool does where the cross is; a box needs two corners. @param {{x: number, y: number}} cross */
  useTool(cross) {
    if (this.isBrush) {
      this.handlers.stroke();
      this.handlers.dab(cross.x, cross.y);
      this.handlers.painted();
    } else if (this.handlers.tool() !== "box") this.handlers.click(cross.x, cross.y, false);
    else if (this.corner) {
      const corner = this.corner;
      this.corner = null;
      this.handlers.box(boxBetween(corner, cross));
    } else this.corner = { ...cross };
  }

  /** @param {boolean} [withMarks] whether clicks, box and cross are drawn, too, and the map in place of the mask */
  draw(withMarks = true) {
    const { canvas, context, photo } = this;
    if (!photo) return;
    if (canvas.width !== photo.width || canvas.height !== photo.height) {
      canvas.width = photo.width;
      canvas.height = photo.height;
    }
    context.drawImage(photo, 0, 0);
    if (this.map && withMarks) context.drawImage(this.map, 0, 0, canvas.width, canvas.height);
    else if (this.mask) {
      context.globalAlpha = 0.55;
      context.drawImage(this.mask, 0, 0);
      context.globalAlpha = 1;
    }
    if (!withMarks) return;
    const unit = Math.max(canvas.width, canvas.height) / 100;
    if (this.box) this.drawBox(this.box, unit);
    for (const click of this.clicks) this.drawClick(click, unit);
    if (this.cross) this.drawCross(this.cross, unit);
  }

  /** @param {Click} click @param {number} unit */
  drawClick(click, unit) {
    const { context } = this;
    const x = (click.x * this.canvas.width) / 100;
    const y = (click.y * this.canvas.height) / 100;
    context.beginPath();
    context.arc(x, y, unit, 0, 2 * Math.PI);
    context.fillStyle = click.positive ? "#0f5132" : "#c0392b";
    context.strokeStyle = "#fff";
    context.lineWidth = unit / 3;
    context.fill();
    context.stroke();
    context.beginPath();
    context.moveTo(x - unit / 2, y);
    context.lineTo(x + unit / 2, y);
    if (click.positive) {
      context.moveTo(x, y - unit / 2);
      context.lineTo(x, y + unit / 2);
    }
    context.stroke();
  }

  /** @param {Box} box @param {number} unit */
  drawBox(box, unit) {
    const { context, canvas } = this;
    context.strokeStyle = "#fff";
    context.lineWidth = unit / 2;
    context.setLineDash([unit * 1.5, unit]);
    context.strokeRect(
      (box.left * canvas.width) / 100, (box.top * canvas.height) / 100,
      ((box.right - box.left) * canvas.width) / 100, ((box.bottom - box.top) * canvas.height) / 100,
    );
    context.setLineDash([]);
  }

  /** @param {{x: number, y: number}} cross @param {number} unit */
  drawCross(cross, unit) {
    const { context, canvas } = this;
    const x = (cross.x * canvas.width) / 100;
    const y = (cross.y * canvas.height) / 100;
    for (const [colour, width] of /** @type {[string, number][]} */ ([["#000", unit / 1.5], ["#fff", unit / 3]])) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.beginPath();
      context.moveTo(x - 3 * unit, y);
      context.lineTo(x + 3 * unit, y);
      context.moveTo(x, y - 3 * unit);
      context.lineTo(x, y + 3 * unit);
      context.stroke();
    }
  }
}

/** @param {{x: number, y: number}} first @param {{x: number, y: number}} second @returns {Box} */
function boxBetween(first, second) {
  return {
    left: Math.min(first.x, second.x), right: Math.max(first.x, second.x),
    top: Math.min(first.y, second.y), bottom: Math.max(first.y, second.y),
  };
}
