// @ts-check
// What stands behind the lines of a strip chart: the y-axis, the times, and the paper of an ECG.

import { palette } from './palette.js';
import { number, timeOfDay } from '../format.js';

/** ECG paper: 25 mm/s and 10 mm/mV. */
export const PAPER_MM_PER_S = 25;
export const PAPER_MM_PER_MV = 10;
/** The fine lines are drawn while a millimetre is at least this many CSS pixels; closer they would be a tint. */
const MIN_FINE_PX = 2.5;
/** About how many CSS pixels lie between two labels. */
const ROW_PX = 44;
const TIME_PX = 84;
/** No label stands nearer to the edge of a band than this, nor to the name of one. */
const EDGE_PX = 4;
const NAME_PX = 18;

/**
 * @typedef {object} Band where to draw, in device pixels
 * @property {number} x
 * @property {number} y
 * @property {number} w
 * @property {number} h
 *
 * @typedef {object} Range what a band shows
 * @property {number} low
 * @property {number} high
 */

/**
 * Millimetre paper that scrolls with the signal.
 * @param {CanvasRenderingContext2D} g
 * @param {Band} band
 * @param {number} left
 * @param {number} px device pixels per millimetre
 * @param {Range} lane
 * @param {number} ratio
 */
export function drawPaper(g, band, left, px, lane, ratio) {
  const colors = palette();
  g.fillStyle = colors.paper;
  g.fillRect(band.x, band.y, band.w, band.h);
  const mmMs = 1000 / PAPER_MM_PER_S;
  const firstMm = Math.ceil(left / mmMs);
  const mv = Number.isFinite(lane.high) ? lane.high : 0;
  const firstRow = Math.floor(mv * PAPER_MM_PER_MV);
  g.lineWidth = Math.max(1, Math.round(ratio));
  for (const bold of px >= MIN_FINE_PX * ratio ? [false, true] : [true]) {
    g.strokeStyle = bold ? colors.paperBold : colors.paperFine;
    g.beginPath();
    for (let i = firstMm; ; i += 1) {
      const x = band.x + ((i * mmMs - left) / mmMs) * px;
      if (x > band.x + band.w) break;
      if ((i % 5 === 0) === bold) line(g, x, band.y, x, band.y + band.h);
    }
    for (let row = firstRow; ; row -= 1) {
      const y = band.y + (mv * PAPER_MM_PER_MV - row) * px;
      if (y > band.y + band.h) break;
      if ((row % 5 === 0) === bold) line(g, band.x, y, band.x + band.w, y);
    }
    g.stroke();
  }
}

/**
 * @param {CanvasRenderingContext2D} g
 * @param {Band} band
 * @param {Range} lane
 * @param {number} ratio
 * @param {boolean} onPaper
 * @param {string} name of the lane, when there are several
 */
export function drawAxis(g, band, lane, ratio, onPaper, name) {
  const colors = palette();
  g.font = `${Math.round(11 * ratio)}px ${colors.font}`;
  g.fillStyle = colors.text;
  g.textAlign = 'right';
  g.textBaseline = 'middle';
  if (lane.high > lane.low) {
    const rows = Math.max(2, Math.floor(band.h / (ROW_PX * ratio)));
    const step = stepOf(lane, rows);
    const decimals = Math.max(0, Math.min(6, -Math.floor(Math.log10(step) + 1e-9)));
    g.strokeStyle = colors.grid;
    g.lineWidth = Math.max(1, Math.round(ratio));
    g.beginPath();
    for (let v = Math.ceil(lane.low / step) * step; v <= lane.high; v += step) {
      const y = Math.round(band.y + ((lane.high - v) / (lane.high - lane.low)) * band.h) + 0.5;
      if (y < band.y + (name && !onPaper ? NAME_PX : EDGE_PX) * ratio || y > band.y + band.h - EDGE_PX * ratio) continue;
      if (!onPaper) line(g, band.x, y, band.x + band.w, y);
      g.fillText(number(Math.abs(v) < step / 1e6 ? 0 : v, decimals), band.x - 8 * ratio, y);
    }
    g.stroke();
  }
  if (name) {
    g.textAlign = 'left';
    g.textBaseline = 'top';
    // On paper beside the line, otherwise in the margin.
    g.fillText(name, onPaper ? band.x + 6 * ratio : 0, band.y + (onPaper ? 4 * ratio : 0));
  }
}

/**
 * @param {CanvasRenderingContext2D} g
 * @param {Band} box
 * @param {number} left
 * @param {number} right
 * @param {number} ratio
 * @param {boolean} onPaper
 */
export function drawTimes(g, box, left, right, ratio, onPaper) {
  const colors = palette();
  const most = Math.max(1, Math.floor(box.w / (TIME_PX * ratio)));
  const step = niceTime((right - left) / most);
  g.textAlign = 'center';
  g.textBaseline = 'top';
  g.font = `${Math.round(11 * ratio)}px ${colors.font}`;
  g.fillStyle = colors.text;
  g.strokeStyle = colors.grid;
  g.lineWidth = Math.max(1, Math.round(ratio));
  g.beginPath();
  // Labels stand on local time's grid, so that they read 12:00 also where the zone is off by half an hour.
  const zone = new Date(right).getTimezoneOffset() * 60_000;
  for (let t = Math.ceil((left - zone) / step) * step + zone; t <= right; t += step) {
    const x = box.x + ((t - left) / (right - left)) * box.w;
    if (!onPaper) line(g, Math.round(x) + 0.5, box.y, Math.round(x) + 0.5, box.y + box.h);
    if (x > box.x + 24 * ratio && x < box.x + box.w - 24 * ratio) {
      g.fillText(timeOfDay(t, step), x, box.y + box.h + 6 * ratio);
    }
  }
  g.stroke();
}

/**
 * @param {CanvasRenderingContext2D} g
 * @param {number} x0
 * @param {number} y0
 * @param {number} x1
 * @param {number} y1
 */
function line(g, x0, y0, x1, y1) {
  g.moveTo(x0, y0);
  g.lineTo(x1, y1);
}

/**
 * The distance between labels: as near to `rows` of them as round numbers allow, but never fewer than two.
 * @param {Range} range
 * @param {number} rows
 */
function stepOf({ low, high }, rows) {
  const lines = (/** @type {number} */ step) => Math.floor(high / step) - Math.ceil(low / step) + 1;
  const step = nice((high - low) / rows);
  return lines(step) >= 2 ? step : nice((high - low) / rows / 2.5);
}

/**
 * The next of 1, 2, 5, 10, … above `rough`.
 * @param {number} rough
 */
function nice(rough) {
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((n) => n * power).find((step) => step >= rough * 0.999) ?? 10 * power;
}

/**
 * A step between time labels that people count in.
 * @param {number} rough ms
 */
function niceTime(rough) {
  const steps = [500, 1000, 2000, 5000, 10_000, 15_000, 30_000, 60_000, 120_000, 300_000, 600_000, 900_000, 1_800_000];
  return steps.find((step) => step >= rough) ?? 3_600_000;
}
