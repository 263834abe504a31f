// @ts-check
// Strokes a line of many points fast. Without a GPU, Chromium draws lines of up to one pixel many times faster than
// wider ones: with 50 live strips, 60 frames a second against 23. So a line of many points is a fine one, drawn
// again a little further down and right until it is as wide as it should look.

/** Width that lines should look, in CSS pixels. */
const WIDTH = 1.5;
/** Distance between two drawings, in device pixels: below one, so that they melt together. */
const STEP = 0.6;
/** Up to so many points a wide line costs nothing worth saving. */
const FEW_POINTS = 150;

/** @param {number} ratio device pixels per CSS pixel */
export function lineWidth(ratio) {
  return Math.max(1, Math.round(WIDTH * ratio));
}

/**
 * @param {CanvasRenderingContext2D} g without a transformation; it has none afterwards
 * @param {Path2D} path
 * @param {number} points
 * @param {number} ratio device pixels per CSS pixel
 */
export function stroke(g, path, points, ratio) {
  // Round joins are slow at any width.
  g.lineJoin = 'bevel';
  if (points <= FEW_POINTS) {
    g.lineWidth = lineWidth(ratio);
    g.stroke(path);
    return;
  }
  g.lineWidth = 1;
  for (let drawn = 1; ; drawn += 1) {
    g.stroke(path);
    if (1 + (drawn - 1) * STEP >= WIDTH * ratio) break;
    g.translate(STEP, STEP);
  }
  g.setTransform(1, 0, 0, 1, 0, 0);
}
