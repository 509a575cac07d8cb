// @ts-check
/** A mask on a canvas of the photograph's size, which a brush can correct. */

const COLOUR = [38, 150, 90];

export class Mask {
  /** @param {number} width @param {number} height */
  constructor(width, height) {
    this.canvas = document.createElement("canvas");
    this.canvas.width = width;
    this.canvas.height = height;
    this.context = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d", { willReadFrequently: true }));
  }

  /** @param {ImageBitmap} bitmap white = inside, black = outside; in the size of the photograph */
  static from(bitmap) {
    const mask = new Mask(bitmap.width, bitmap.height);
    mask.context.drawImage(bitmap, 0, 0);
    const pixels = mask.context.getImageData(0, 0, bitmap.width, bitmap.height);
    for (let at = 0; at < pixels.data.length; at += 4) {
      const inside = (pixels.data[at] ?? 0) > 127;
      pixels.data.set([...COLOUR, inside ? 255 : 0], at);
    }
    mask.context.putImageData(pixels, 0, 0);
    return mask;
  }

  /** @param {number} x @param {number} y @param {number} radius in pixels of the photograph @param {boolean} adds */
  dab(x, y, radius, adds) {
    this.context.globalCompositeOperation = adds ? "source-over" : "destination-out";
    this.context.fillStyle = `rgb(${COLOUR.join(" ")})`;
    this.context.beginPath();
    this.context.arc(x, y, radius, 0, 2 * Math.PI);
    this.context.fill();
    this.context.globalCompositeOperation = "source-over";
  }

  get isEmpty() {
    const { data } = this.context.getImageData(0, 0, this.canvas.width, this.canvas.height);
    for (let at = 3; at < data.length; at += 4) if ((data[at] ?? 0) > 127) return false;
    return true;
  }

  /** @returns {Promise<Blob>} a PNG, white inside and black outside */
  async png() {
    const { width, height } = this.canvas;
    const pixels = this.context.getImageData(0, 0, width, height);
    for (let at = 0; at < pixels.data.length; at += 4) {
      const value = (pixels.data[at + 3] ?? 0) > 127 ? 255 : 0;
      pixels.data.set([value, value, value, 255], at);
    }
    const plain = document.createElement("canvas");
    plain.width = width;
    plain.height = height;
    /** @type {CanvasRenderingContext2D} */ (plain.getContext("2d")).putImageData(pixels, 0, 0);
    return blobFrom(plain);
  }
}

/** @param {HTMLCanvasElement} canvas @returns {Promise<Blob>} */
export function blobFrom(canvas) {
  return new Promise((done) => canvas.toBlob((blob) => done(/** @type {Blob} */ (blob)), "image/png"));
}
