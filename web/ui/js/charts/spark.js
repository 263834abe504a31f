// @ts-check
// The sparkline of the lobby: the recent past of one channel, without axes. Its window follows the series' rate, so
// that an ECG shows its beats and a thermometer its hour.

import { stroke } from './ink.js';
import { fit, palette } from './palette.js';
import { Series } from '../series.js';
import * as clock from '../clock.js';
import { PLAYOUT_MS } from './view.js';

/** Samples that a sparkline should show… */
const SAMPLES = 60;
/** …within these bounds of its window. */
const MIN_WINDOW_MS = 5000;
const MAX_WINDOW_MS = 3_600_000;
/** Sparklines step at this pace: many small charts need no more. */
const STEP_MS = 100;
/** Free room above and below. */
const INSET = 3;

/**
 * The window that suits a series.
 * @param {Series} series
 */
export function windowOf(series) {
  const interval = series.interval;
  if (!Number.isFinite(interval)) return 60_000;
  return Math.max(MIN_WINDOW_MS, Math.min(MAX_WINDOW_MS, SAMPLES * interval));
}

export class Spark {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {Series} series
   */
  constructor(canvas, series) {
    this.host = canvas;
    this.canvas = canvas;
    this.series = series;
    this.context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d'));
    this.at = -Infinity;
    this.width = 0;
    this.height = 0;
    this.resized = new ResizeObserver(([entry]) => {
      this.width = entry.contentRect.width;
      this.height = entry.contentRect.height;
    });
    this.resized.observe(canvas);
  }

  close() {
    this.resized.disconnect();
  }

  /** @param {number} now of the animation frame */
  draw(now) {
    if (now - this.at < STEP_MS || this.width === 0) return;
    this.at = now;
    const { canvas, context: g, series } = this;
    fit(canvas, this.width, this.height);
    g.clearRect(0, 0, canvas.width, canvas.height);
    const values = series.columns[0];
    if (!values || series.length === 0) return;
    const span = windowOf(series);
    const right = clock.now() - PLAYOUT_MS - series.skew;
    const left = right - span;
    const from = Math.max(0, series.indexOf(left) - 1);
    const end = series.indexOf(right);
    let low = Infinity;
    let high = -Infinity;
    for (let i = from; i < end; i += 1) {
      if (values[i] < low) low = values[i];
      if (values[i] > high) high = values[i];
    }
    if (!(low <= high)) return;
    const ratio = window.devicePixelRatio || 1;
    const room = Math.max((high - low) / 2, Math.abs(high) * 1e-3, 1e-6);
    const middle = (low + high) / 2;
    const inset = INSET * ratio;
    const x = (/** @type {number} */ ts) => ((ts - left) / span) * canvas.width;
    const y = (/** @type {number} */ v) =>
      canvas.height / 2 - ((v - middle) / room) * (canvas.height / 2 - inset);
    g.strokeStyle = palette().lines[0];
    const path = new Path2D();
    let points = 0;
    const gap = series.gap;
    const perPixel = span / canvas.width;
    let before = -Infinity;
    let column = NaN;
    let least = 0;
    let most = 0;
    for (let i = from; i < end; i += 1) {
      const value = values[i];
      if (Number.isNaN(value)) continue;
      const ts = series.times[i];
      const slot = Math.floor(ts / perPixel);
      if (ts - before > gap) {
        path.moveTo(x(ts), y(value));
        least = most = value;
      } else if (slot !== column || value < least || value > most) {
        // Within a pixel column only what reaches further than before is drawn.
        path.lineTo(x(ts), y(value));
        points += 1;
        least = slot === column ? Math.min(least, value) : value;
        most = slot === column ? Math.max(most, value) : value;
      }
      column = slot;
      before = ts;
    }
    stroke(g, path, points, ratio);
  }
}
