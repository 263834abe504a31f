// @ts-check
// The strip chart: channels of one unit over time, drawn on a plain 2D canvas. What it promises: no line across a
// gap, every peak visible at every zoom (min/max per pixel column), and a cost that depends on pixels, not samples.

import { PAPER_MM_PER_MV, PAPER_MM_PER_S, drawAxis, drawPaper, drawTimes } from './axes.js';
import { Columns } from './columns.js';
import { lineWidth, stroke } from './ink.js';
import { fit, generation, palette } from './palette.js';
import { Series } from '../series.js';
import { View } from './view.js';

/** Room for the y-axis and the time labels, in CSS pixels. */
const LEFT = 48;
const BOTTOM = 20;
const TOP = 8;
/** With fewer samples than this per pixel column, they are drawn one by one. */
const DENSE = 1.5;
/** Windows above this do not glide: they are drawn again when something moved by a pixel. */
const GLIDE_MS = 60_000;
/** …and for new samples at most this often. */
const SLOW_DRAW_MS = 200;
/** The y-axis narrows only when the values have filled less than this share of it… */
const NARROW_SHARE = 0.55;
/** …for this long. It widens at once. */
const NARROW_AFTER_MS = 3000;
/** Free room above and below the values. */
const MARGIN = 0.08;
/** …and around a value that never changes, as a share of it. */
const FLAT_ROOM = 0.05;
/** ECG paper is drawn while a millimetre is at least this many CSS pixels. */
const MIN_PAPER_PX = 1.7;
/** With fewer samples in view than this, each is a dot, of this many line widths. */
const FEW_SAMPLES = 40;
const DOT = 1.4;
/** On paper, wandering further than this share of the lane moves the baseline. */
const PAPER_DRIFT = 0.35;

/**
 * @typedef {object} Channel
 * @property {number} index in the series
 * @property {string} name
 * @property {number} color index into the palette
 *
 * @typedef {object} Lane a band of the chart with its own y-axis
 * @property {string} name
 * @property {Channel[]} channels
 * @property {number} low
 * @property {number} high
 * @property {number} narrowSince
 */

export class Strip {
  /**
   * @param {HTMLElement} host the element in sight
   * @param {HTMLCanvasElement} canvas
   * @param {object} options
   * @param {Series} options.series
   * @param {Series} options.history what was fetched from before the page was opened, thinned
   * @param {View} options.view
   * @param {Channel[]} options.channels
   * @param {boolean} options.paper ECG paper, a lane per channel
   * @param {{ name: string, channels: Channel[] }[]} [options.lanes] bands one below the other, where not all share one
   */
  constructor(host, canvas, { series, history, view, channels, paper, lanes }) {
    this.host = host;
    this.canvas = canvas;
    this.series = series;
    this.history = history;
    this.view = view;
    this.channels = channels;
    this.paper = paper;
    const alone = paper ? channels.map((channel) => ({ name: channel.name, channels: [channel] })) : null;
    const groups = lanes ?? alone ?? [{ name: '', channels }];
    /** @type {Lane[]} */
    this.lanes = groups.map((group) => ({ ...group, low: NaN, high: NaN, narrowSince: NaN }));
    /** Values at which a line is drawn across, where they are in sight. */
    this.limits = /** @type {number[]} */ ([]);
    /** @type {Map<number, Columns>} */
    this.columns = new Map();
    this.context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d', { alpha: true }));
    this.drawn = { right: NaN, windowMs: 0, version: -1, history: -1, generation: -1, at: 0, hidden: '' };
    /** @type {Set<number>} channels switched off in the legend */
    this.hidden = new Set();
    /** Whether the last drawing was on paper, so that its scale can be said beside it. */
    this.onPaper = false;
    this.width = 0;
    this.height = 0;
    this.resized = new ResizeObserver(([entry]) => {
      this.width = entry.contentRect.width;
      this.height = entry.contentRect.height;
      this.drawn.version = -1;
    });
    this.resized.observe(canvas);
  }

  /** Lets go of what it follows. */
  close() {
    this.resized.disconnect();
    for (const columns of this.columns.values()) columns.close();
    this.columns.clear();
  }

  /** Times at the edges of the plot, on the series' own clock. */
  get span() {
    const right = this.view.right - this.series.skew;
    return { left: right - this.view.windowMs, right };
  }

  /** Width of the plot in CSS pixels. */
  get plotWidth() {
    return Math.max(1, this.width - LEFT);
  }

  /** @param {number} ago ms behind the view's right edge */
  xOf(ago) {
    const share = 1 - ago / this.view.windowMs;
    return share >= 0 && share <= 1 && this.width > 0 ? LEFT + share * this.plotWidth : NaN;
  }

  /** @param {number} px CSS pixels from the left of the host */
  agoAt(px) {
    const share = (px - LEFT) / this.plotWidth;
    return share >= 0 && share <= 1 ? (1 - share) * this.view.windowMs : NaN;
  }

  /** @param {number} now of the animation frame */
  draw(now) {
    if (this.width === 0 || this.height === 0) return;
    const ratio = window.devicePixelRatio || 1;
    const { left, right } = this.span;
    if (!this.#due(now, right, ratio)) return;
    fit(this.canvas, this.width, this.height);
    const colors = palette();
    const g = this.context;
    g.setTransform(1, 0, 0, 1, 0, 0);
    g.clearRect(0, 0, this.canvas.width, this.canvas.height);
    const box = {
      x: Math.round(LEFT * ratio),
      y: Math.round(TOP * ratio),
      w: this.canvas.width - Math.round(LEFT * ratio),
      h: this.canvas.height - Math.round((BOTTOM + TOP) * ratio),
    };
    const paperPx = this.paper ? box.w / ((this.view.windowMs / 1000) * PAPER_MM_PER_S) : 0;
    const onPaper = paperPx >= MIN_PAPER_PX * ratio;
    this.onPaper = onPaper;
    const laneHeight = box.h / this.lanes.length;
    this.lanes.forEach((lane, i) => {
      const band = { x: box.x, y: box.y + i * laneHeight, w: box.w, h: laneHeight };
      this.#scale(lane, left, right, now, onPaper ? laneHeight / (paperPx * PAPER_MM_PER_MV) : 0);
      if (onPaper) drawPaper(g, band, left, paperPx, lane, ratio);
      drawAxis(g, band, lane, ratio, onPaper, this.lanes.length > 1 ? lane.name : '');
    });
    this.#drawFilled(g, box, left, right);
    drawTimes(g, box, left, right, ratio, onPaper);
    g.save();
    g.beginPath();
    g.rect(box.x, 0, box.w, this.canvas.height);
    g.clip();
    this.lanes.forEach((lane, i) => {
      const band = { x: box.x, y: box.y + i * laneHeight, w: box.w, h: laneHeight };
      if (i === 0) this.#drawLimits(g, band, lane, ratio);
      for (const channel of lane.channels) {
        if (this.hidden.has(channel.index)) continue;
        g.strokeStyle = g.fillStyle = colors.lines[channel.color % colors.lines.length];
        this.#drawLine(g, band, lane, channel, left, right);
      }
    });
    g.restore();
  }

  /**
   * Shades what came afterwards.
   * @param {CanvasRenderingContext2D} g
   * @param {import('./axes.js').Band} box
   * @param {number} left
   * @param {number} right
   */
  #drawFilled(g, box, left, right) {
    g.fillStyle = palette().filled;
    for (const { from, to } of this.series.filled) {
      if (to < left || from > right) continue;
      const x = (/** @type {number} */ ts) => box.x + ((Math.min(right, Math.max(left, ts)) - left) / (right - left)) * box.w;
      g.fillRect(x(from), box.y, Math.max(1, x(to) - x(from)), box.h);
    }
  }

  /**
   * @param {CanvasRenderingContext2D} g
   * @param {import('./axes.js').Band} band
   * @param {Lane} lane
   * @param {number} ratio
   */
  #drawLimits(g, band, lane, ratio) {
    const seen = this.limits.filter((limit) => limit > lane.low && limit < lane.high);
    if (seen.length === 0) return;
    g.strokeStyle = palette().limit;
    g.lineWidth = Math.max(1, Math.round(ratio));
    g.setLineDash([4 * ratio, 4 * ratio]);
    g.beginPath();
    for (const limit of seen) {
      const y = Math.round(band.y + ((lane.high - limit) / (lane.high - lane.low)) * band.h) + 0.5;
      g.moveTo(band.x, y);
      g.lineTo(band.x + band.w, y);
    }
    g.stroke();
    g.setLineDash([]);
  }

  /**
   * Whether anything would look different.
   * @param {number} now
   * @param {number} right
   * @param {number} ratio
   */
  #due(now, right, ratio) {
    const { drawn, view, series, history } = this;
    const hidden = `${[...this.hidden].join()};${this.limits.join()}`;
    const same =
      drawn.windowMs === view.windowMs &&
      drawn.generation === generation &&
      drawn.history === history.version &&
      drawn.hidden === hidden &&
      drawn.version >= 0;
    const moved = (Math.abs(right - drawn.right) / view.windowMs) * this.plotWidth * ratio;
    const changed = drawn.version !== series.version;
    if (same && !changed && moved < 0.5) return false;
    if (same && view.windowMs > GLIDE_MS && moved < 1 && now - drawn.at < SLOW_DRAW_MS) return false;
    this.drawn = {
      right,
      windowMs: view.windowMs,
      version: series.version,
      history: history.version,
      generation,
      at: now,
      hidden,
    };
    return true;
  }

  /**
   * The pixel columns of a channel when samples are dense enough to need them.
   * @param {Channel} channel
   */
  #columnsOf(channel) {
    const { series } = this;
    const width = this.view.windowMs / Math.max(1, this.canvas.width - LEFT * (window.devicePixelRatio || 1));
    const interval = series.interval;
    const dense = Number.isFinite(interval) && width / interval >= DENSE;
    let columns = this.columns.get(channel.index);
    if (columns && (!dense || columns.width !== width)) {
      columns.close();
      this.columns.delete(channel.index);
      columns = undefined;
    }
    if (!dense) return null;
    if (!columns) {
      columns = new Columns(series, channel.index, width);
      this.columns.set(channel.index, columns);
    }
    columns.sync();
    return columns;
  }

  /**
   * Least and greatest value in view.
   * @param {Lane} lane
   * @param {number} left
   * @param {number} right
   */
  #extent(lane, left, right) {
    let low = Infinity;
    let high = -Infinity;
    for (const channel of lane.channels) {
      if (this.hidden.has(channel.index)) continue;
      const columns = this.#columnsOf(channel);
      if (columns) {
        const end = columns.indexOf(Math.floor(right / columns.width) + 1);
        for (let i = columns.indexOf(Math.floor(left / columns.width)); i < end; i += 1) {
          if (columns.min[i] < low) low = columns.min[i];
          if (columns.max[i] > high) high = columns.max[i];
        }
      }
      for (const layer of columns ? [this.history] : [this.history, this.series]) {
        const values = layer.columns[channel.index];
        if (!values) continue;
        // With the neighbours outside, where lines lead to them.
        const { times, gap } = layer;
        let from = layer.indexOf(left);
        let end = layer.indexOf(right);
        if (from > 0 && times[from] - times[from - 1] <= gap) from -= 1;
        if (end > 0 && times[end] - times[end - 1] <= gap && end < layer.length) end += 1;
        for (let i = from; i < end; i += 1) {
          if (values[i] < low) low = values[i];
          if (values[i] > high) high = values[i];
        }
      }
    }
    return low <= high ? { low, high } : null;
  }

  /**
   * Moves the y-axis of a lane: wider at once, narrower only after a while.
   * @param {Lane} lane
   * @param {number} left
   * @param {number} right
   * @param {number} now
   * @param {number} paperRange what the lane shows at 10 mm/mV; 0 when not on paper
   */
  #scale(lane, left, right, now, paperRange) {
    const extent = this.#extent(lane, left, right);
    if (!extent) return;
    const { low, high } = extent;
    if (paperRange > 0 && high - low <= paperRange) {
      const middle = (low + high) / 2;
      const held = (lane.low + lane.high) / 2;
      const fits = low >= held - paperRange / 2 && high <= held + paperRange / 2;
      const sameScale = Math.abs(lane.high - lane.low - paperRange) < paperRange * 0.02;
      const keep = sameScale && fits && Math.abs(middle - held) < paperRange * PAPER_DRIFT;
      const center = keep ? held : middle;
      lane.low = center - paperRange / 2;
      lane.high = center + paperRange / 2;
      return;
    }
    const size = Math.max(Math.abs(high), Math.abs(low));
    const room = Math.max((high - low) * MARGIN, low === high ? size * FLAT_ROOM || 1 : size * 1e-4);
    const outside = !(low >= lane.low && high <= lane.high);
    const narrow = high - low + 2 * room < (lane.high - lane.low) * NARROW_SHARE;
    if (!narrow) lane.narrowSince = NaN;
    else if (Number.isNaN(lane.narrowSince)) lane.narrowSince = now;
    if (outside || this.view.paused || now - lane.narrowSince > NARROW_AFTER_MS) {
      lane.low = low - room;
      lane.high = high + room;
      lane.narrowSince = NaN;
    }
  }

  /**
   * @param {CanvasRenderingContext2D} g
   * @param {import('./axes.js').Band} band
   * @param {Lane} lane
   * @param {Channel} channel
   * @param {number} left
   * @param {number} right
   */
  #drawLine(g, band, lane, channel, left, right) {
    if (!(lane.high > lane.low)) return;
    const perMs = band.w / (right - left);
    const perUnit = band.h / (lane.high - lane.low);
    const x = (/** @type {number} */ ts) => band.x + (ts - left) * perMs;
    const y = (/** @type {number} */ value) => band.y + (lane.high - value) * perUnit;
    const firstLive = this.series.oldest;
    this.#drawSamples(g, this.history, channel.index, left, Math.min(right, firstLive || Infinity), x, y);
    const columns = this.#columnsOf(channel);
    if (!columns) {
      this.#drawSamples(g, this.series, channel.index, left, right, x, y);
      return;
    }
    const path = new Path2D();
    const from = Math.max(0, columns.indexOf(Math.floor(left / columns.width)) - 1);
    const end = columns.indexOf(Math.floor(right / columns.width) + 2);
    let pen = false;
    for (let i = from; i < end; i += 1) {
      const at = x((columns.slot[i] + 0.5) * columns.width);
      if (!pen || columns.gap[i]) path.moveTo(at, y(columns.first[i]));
      else path.lineTo(at, y(columns.first[i]));
      path.lineTo(at, y(columns.min[i]));
      path.lineTo(at, y(columns.max[i]));
      path.lineTo(at, y(columns.last[i]));
      pen = true;
    }
    stroke(g, path, 4 * (end - from), window.devicePixelRatio || 1);
  }

  /**
   * Sample by sample; one that stands alone between gaps is a dot.
   * @param {CanvasRenderingContext2D} g
   * @param {Series} series
   * @param {number} channel
   * @param {number} left
   * @param {number} right
   * @param {(ts: number) => number} x
   * @param {(value: number) => number} y
   */
  #drawSamples(g, series, channel, left, right, x, y) {
    const values = series.columns[channel];
    if (!values) return;
    const { times, gap } = series;
    const from = Math.max(0, series.indexOf(left) - 1);
    const end = Math.min(series.length, series.indexOf(right) + 1);
    const ratio = window.devicePixelRatio || 1;
    const dot = lineWidth(ratio) * DOT;
    const dots = [];
    let before = -Infinity;
    let run = 0;
    let last = 0;
    const path = new Path2D();
    for (let i = from; i < end; i += 1) {
      const value = values[i];
      if (Number.isNaN(value)) continue;
      if (times[i] - before > gap) {
        if (run === 1) dots.push(last);
        path.moveTo(x(times[i]), y(value));
        run = 1;
      } else {
        path.lineTo(x(times[i]), y(value));
        run += 1;
      }
      before = times[i];
      last = i;
    }
    if (run === 1) dots.push(last);
    stroke(g, path, end - from, ratio);
    // At a slow rate each sample is worth seeing as such.
    if (end - from < FEW_SAMPLES) for (let i = from; i < end; i += 1) if (!Number.isNaN(values[i])) dots.push(i);
    for (const i of dots) {
      g.beginPath();
      g.arc(x(times[i]), y(values[i]), dot, 0, 2 * Math.PI);
      g.fill();
    }
  }
}
