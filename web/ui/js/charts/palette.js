// @ts-check
// The colours of the charts, read from the style sheet, so that canvases follow dark and light like all else.

/**
 * @typedef {object} Palette
 * @property {string[]} lines a colour per channel
 * @property {string} text
 * @property {string} grid
 * @property {string} limit
 * @property {string} filled
 * @property {string} paper
 * @property {string} paperFine
 * @property {string} paperBold
 * @property {string} font
 */

/** Line colours that the style sheet names. */
const LINES = 6;

/** @type {Palette | null} */
let current = null;
/** Grows when colours change: charts drawn before are out of date. */
export let generation = 0;

function forget() {
  current = null;
  generation += 1;
}

document.addEventListener('sensorium:theme', forget);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', forget);

/** @returns {Palette} */
export function palette() {
  if (!current) {
    // A variable reads as it was written; only as the colour of an element is it resolved for the theme.
    const probe = document.body.appendChild(document.createElement('i'));
    const read = (/** @type {string} */ name) => {
      probe.style.color = `var(${name})`;
      return getComputedStyle(probe).color;
    };
    current = {
      lines: Array.from({ length: LINES }, (_, i) => read(`--line-${i + 1}`)),
      text: read('--muted'),
      grid: read('--grid'),
      limit: read('--bad'),
      filled: read('--filled'),
      paper: read('--paper'),
      paperFine: read('--paper-fine'),
      paperBold: read('--paper-bold'),
      font: getComputedStyle(document.body).fontFamily,
    };
    probe.remove();
  }
  return current;
}

/**
 * Sizes a canvas to its box in device pixels.
 * @param {HTMLCanvasElement} canvas
 * @param {number} width CSS pixels
 * @param {number} height CSS pixels
 * @returns {boolean} true when it changed
 */
export function fit(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  const w = Math.max(1, Math.round(width * ratio));
  const h = Math.max(1, Math.round(height * ratio));
  if (canvas.width === w && canvas.height === h) return false;
  canvas.width = w;
  canvas.height = h;
  return true;
}
