// @ts-check
// An ECG as a bedside monitor draws it: a pen that sweeps over standing millimetre paper at 25 mm/s, with a gap ahead of it.
// Each frame costs what is new, not what is in sight.

import { PAPER_MM_PER_S, drawPaper } from './axes.js';
import { lineWidth } from './ink.js';
import { fit, generation, palette } from './palette.js';
import { Series } from '../series.js';
import { View } from './view.js';

/** CSS pixels of a millimetre; on narrow tiles fewer, so that two beats fit. */
const MM_PX = 4;
const NARROW_MM_PX = 3;
const NARROW_PX = 320;
/** The gap ahead of the pen. */
const GAP_MM = 5;
/** Gains to choose from, in mm/mV: the first at which the signal fits. */
const GAINS = [10, 5, 2.5, 1, 0.5];
/** Share of a lane that a signal may fill before its paper is moved or its gain lowered. */
const FILL = 0.9;
/** How often it is seen to that the signal fits. */
const FIT_MS = 1000;

/** @typedef {import('./strip.js').Channel} Channel */

/**
 * @typedef {object} Lane
 * @property {Channel} channel
 * @property {number} middle mV at half its height
 */

export class Sweep {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {object} options
   * @param {Series} options.series
   * @param {View} options.view
   * @param {Channel[]} options.channels a lane each
   */
  constructor(canvas, { series, view, channels }) {
    this.canvas = canvas;
    this.series = series;
    this.view = view;
    /** @type {Lane[]} */
    this.lanes = channels.map((channel) => ({ channel, middle: NaN }));
    this.context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d', { alpha: false }));
    this.paper = new OffscreenCanvas(1, 1);
    this.gain = GAINS[0];
    /** Index of the first sample not drawn; the series sets it back when earlier ones change. */
    this.next = 0;
    /** What `next` was after the last drawing: lower means that the past has changed. */
    this.drawnTo = 0;
    /** Moment on the series' clock up to which the pen has come. */
    this.pen = NaN;
    this.fitAt = -Infinity;
    this.generation = -1;
    this.width = 0;
    this.height = 0;
    series.consumers.add(this);
    this.resized = new ResizeObserver(([entry]) => {
      this.width = entry.contentRect.width;
      this.height = entry.contentRect.height;
      this.pen = NaN;
    });
    this.resized.observe(canvas);
  }

  close() {
    this.resized.disconnect();
    this.series.consumers.delete(this);
  }

  /** CSS pixels of a millimetre of paper. */
  get mm() {
    return this.width < NARROW_PX ? NARROW_MM_PX : MM_PX;
  }

  /** How long the pen takes from the left to the right. */
  get windowMs() {
    return (Math.max(1, this.width) / (this.mm * PAPER_MM_PER_S)) * 1000;
  }

  get gapMs() {
    return (GAP_MM / PAPER_MM_PER_S) * 1000;
  }

  /** @param {number} ago ms behind the view's right edge */
  xOf(ago) {
    if (!(ago < this.windowMs - this.gapMs) || this.width === 0) return NaN;
    return this.#share(this.view.right - this.series.skew - ago) * this.width;
  }

  /** @param {number} px CSS pixels from the left */
  agoAt(px) {
    if (!(px >= 0 && px <= this.width)) return NaN;
    const right = this.view.right - this.series.skew;
    const behind = (this.#share(right) - px / this.width) * this.windowMs;
    return behind < 0 ? behind + this.windowMs : behind;
  }

  /** Where on the paper a moment is drawn, as a share of its width. @param {number} ts */
  #share(ts) {
    const turns = ts / this.windowMs;
    return turns - Math.floor(turns);
  }

  /** What a millimetre means, in words. */
  get scale() {
    return `${PAPER_MM_PER_S} mm/s · ${this.gain} mm/mV`;
  }

  /** @param {number} now of the animation frame */
  draw(now) {
    if (this.width === 0 || this.height === 0) return;
    const right = this.view.right - this.series.skew;
    if (now - this.fitAt >= FIT_MS || Number.isNaN(this.lanes[0].middle)) {
      this.fitAt = now;
      this.#fitSignal(right);
    }
    const whole =
      this.generation !== generation || this.next < this.drawnTo || !(right >= this.pen) || right - this.pen > this.gapMs;
    if (whole) this.#begin(right);
    else this.#clear(this.pen + this.gapMs, right + this.gapMs);
    this.#write(right);
    this.pen = right;
  }

  /** Standing paper, and nothing written on it. @param {number} right */
  #begin(right) {
    const { canvas, lanes, generation: known } = this;
    const ratio = window.devicePixelRatio || 1;
    if (fit(canvas, this.width, this.height) || known !== generation || this.paper.width !== canvas.width) {
      this.generation = generation;
    }
    this.paper.width = canvas.width;
    this.paper.height = canvas.height;
    const g = /** @type {any} */ (this.paper.getContext('2d', { alpha: false }));
    const height = canvas.height / lanes.length;
    const px = this.mm * ratio;
    lanes.forEach((_, i) => {
      const band = { x: 0, y: Math.round(i * height), w: canvas.width, h: Math.round(height) };
      drawPaper(g, band, 0, px, { low: 0, high: height / px / 10 }, ratio);
    });
    if (lanes.length > 1) {
      const colors = palette();
      g.font = `${Math.round(11 * ratio)}px ${colors.font}`;
      g.fillStyle = colors.text;
      g.textBaseline = 'top';
      lanes.forEach(({ channel }, i) => g.fillText(channel.name, 6 * ratio, i * height + 4 * ratio));
    }
    this.context.drawImage(this.paper, 0, 0);
    this.next = this.series.indexOf(right - this.windowMs + this.gapMs);
  }

  /**
   * Takes what was written in the last round off a stretch of paper.
   * @param {number} from
   * @param {number} to
   */
  #clear(from, to) {
    const { canvas } = this;
    const left = Math.floor(this.#share(from) * canvas.width);
    const right = Math.ceil(this.#share(to) * canvas.width);
    const parts = left <= right ? [[left, right]] : [[left, canvas.width], [0, right]];
    for (const [a, b] of parts) {
      if (b > a) this.context.drawImage(this.paper, a, 0, b - a, canvas.height, a, 0, b - a, canvas.height);
    }
  }

  /** Writes the samples up to `right`. @param {number} right */
  #write(right) {
    const { series, lanes, canvas, context: g } = this;
    const end = series.indexOf(right);
    const from = Math.min(this.next, end);
    this.next = this.drawnTo = end;
    if (from >= end) return;
    const ratio = window.devicePixelRatio || 1;
    const perMs = canvas.width / this.windowMs;
    const height = canvas.height / lanes.length;
    const perMv = this.gain * this.mm * ratio;
    const { times, gap } = series;
    g.lineWidth = lineWidth(ratio);
    g.lineJoin = 'bevel';
    lanes.forEach((lane, i) => {
      const values = series.columns[lane.channel.index];
      if (!values) return;
      const middle = (i + 0.5) * height;
      const y = (/** @type {number} */ value) => middle - (value - lane.middle) * perMv;
      g.strokeStyle = palette().lines[lane.channel.color % palette().lines.length];
      g.beginPath();
      // The pen goes on where it was lifted.
      let before = from - 1;
      while (before >= 0 && Number.isNaN(values[before]) && times[from] - times[before] <= gap) before -= 1;
      let at = NaN;
      if (before >= 0 && times[from] - times[before] <= gap && !Number.isNaN(values[before])) {
        at = this.#share(times[before]) * canvas.width;
        g.moveTo(at, y(values[before]));
      } else {
        before = -1;
      }
      for (let k = from; k < end; k += 1) {
        const value = values[k];
        if (Number.isNaN(value)) continue;
        const x = this.#share(times[k]) * canvas.width;
        const step = before >= 0 ? times[k] - times[before] : Infinity;
        if (step > gap) {
          g.moveTo(x, y(value));
        } else if (x < at) {
          // Over the right edge, and on from the left one.
          g.lineTo(at + step * perMs, y(value));
          g.moveTo(x - step * perMs, y(values[before]));
          g.lineTo(x, y(value));
        } else {
          g.lineTo(x, y(value));
        }
        at = x;
        before = k;
      }
      g.stroke();
    });
  }

  /** Moves the paper or lowers the gain where the signal leaves its lane. @param {number} right */
  #fitSignal(right) {
    const { series, lanes } = this;
    const from = series.indexOf(right - this.windowMs);
    const end = series.indexOf(right);
    if (from >= end) return;
    const extents = lanes.map(({ channel }) => {
      let low = Infinity;
      let high = -Infinity;
      const values = series.columns[channel.index] ?? [];
      for (let i = from; i < end; i += 1) {
        if (values[i] < low) low = values[i];
        if (values[i] > high) high = values[i];
      }
      return { low, high };
    });
    const mm = this.height / lanes.length / this.mm;
    const widest = Math.max(...extents.map(({ low, high }) => (low <= high ? high - low : 0)));
    const gain = GAINS.find((one) => widest * one <= mm * FILL) ?? GAINS[GAINS.length - 1];
    const room = mm / gain / 2;
    let moved = gain !== this.gain;
    this.gain = gain;
    lanes.forEach((lane, i) => {
      const { low, high } = extents[i];
      if (!(low <= high)) return;
      if (!moved && low >= lane.middle - room && high <= lane.middle + room) return;
      lane.middle = (low + high) / 2;
      moved = true;
    });
    if (moved) this.pen = NaN;
  }
}
