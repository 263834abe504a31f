// @ts-check
// What lies before the samples that a page holds of a series: fetched from the ring, thinned, once somebody looks there; and
// what the page itself let go of, thinned, since rings may end sooner than somebody looks back.

import { get } from '../shell.js';
import { Series } from '../series.js';
import { View } from './view.js';

/** Thinned samples fetched for a window. */
const POINTS = 2000;
/** How long a view must stand before its past is fetched, and how soon it is tried again when that failed. */
const SETTLE_MS = 250;
const RETRY_MS = 2000;
/** What the page lets go of is kept as least and greatest value of so long… */
const BUCKET_MS = 1000;
/** …for this long: the longest window. */
const KEEP_MS = 3_600_000;

export class Past {
  /**
   * @param {string} name `sensor/attribute`
   * @param {Series} series
   * @param {View} view
   * @param {object} to
   * @param {(history: Series) => void} to.show takes a new past in the place of the one before
   * @param {(error: string) => void} [to.say] an error, or nothing when all is well again
   */
  constructor(name, series, view, { show, say = () => {} }) {
    this.path = name.split('/').map(encodeURIComponent).join('/');
    this.series = series;
    this.view = view;
    this.show = show;
    this.say = say;
    this.history = new Series(null);
    /** What the page let go of. */
    this.own = new Series(null);
    /** Stretch of time that was fetched, and for which window. */
    this.covered = { from: NaN, to: NaN, windowMs: 0 };
    this.timer = 0;
    this.closed = false;
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
  }

  /** The view has changed. */
  look() {
    clearTimeout(this.timer);
    if (!this.closed) this.timer = window.setTimeout(() => this.#fetch(), SETTLE_MS);
  }

  async #fetch() {
    const { view, series, covered } = this;
    const right = view.right - series.skew;
    const from = Math.floor(right - 2 * view.windowMs);
    const to = Math.min(right, series.length ? series.oldest : right);
    if (!(to > right - view.windowMs)) return;
    if (covered.windowMs === view.windowMs && covered.from <= right - view.windowMs && covered.to >= to) return;
    try {
      const { samples } = await get(
        `sensors/${this.path}/samples?from=${from}&to=${Math.ceil(to)}&limit=100000&points=${POINTS}`,
      );
      if (this.closed) return;
      const history = new Series(null);
      take(history, samples);
      this.covered = { from, to, windowMs: view.windowMs };
      this.#replace(history);
      this.say('');
    } catch (error) {
      if (this.closed) return;
      this.say(error instanceof Error ? error.message : String(error));
      this.timer = window.setTimeout(() => this.#fetch(), RETRY_MS);
    }
  }

  /** @param {Series} history */
  #replace(history) {
    append(history, this.own, 0, this.own.length);
    // The new one must not look like the old one to a chart that compares versions.
    history.version = this.history.version + 1;
    this.history = history;
    this.show(history);
  }

  /**
   * Lets go of the oldest samples of the series, and keeps their extremes.
   * @param {number} count
   */
  absorb(count) {
    const { series, own } = this;
    const channels = series.columns.length;
    const end = Math.min(count, series.length - 1);
    if (end <= 0) return;
    const times = [];
    const flat = [];
    let at = 0;
    while (at < end) {
      const bucket = Math.floor(series.times[at] / BUCKET_MS);
      const least = new Float32Array(channels).fill(NaN);
      const most = new Float32Array(channels).fill(NaN);
      for (; at < end && Math.floor(series.times[at] / BUCKET_MS) === bucket; at += 1) {
        for (let c = 0; c < channels; c += 1) {
          const value = series.columns[c][at];
          if (!(value >= least[c])) least[c] = Number.isNaN(value) ? least[c] : value;
          if (!(value <= most[c])) most[c] = Number.isNaN(value) ? most[c] : value;
        }
      }
      times.push((bucket + 0.25) * BUCKET_MS, (bucket + 0.75) * BUCKET_MS);
      flat.push(...least, ...most);
    }
    own.join(times, flat, channels);
    if (own.newest - own.oldest > KEEP_MS) own.forget(own.newest - KEEP_MS);
    series.forget(series.times[end]);
    this.#replace(copy(this.history, own.oldest));
  }
}

/**
 * A past up to `ts`.
 * @param {Series} series
 * @param {number} ts
 */
function copy(series, ts) {
  const made = new Series(null);
  append(made, series, 0, series.indexOf(ts));
  return made;
}

/**
 * @param {Series} to
 * @param {Series} from
 * @param {number} first
 * @param {number} end
 */
function append(to, from, first, end) {
  const channels = from.columns.length;
  if (end <= first || channels === 0) return;
  const flat = new Float32Array((end - first) * channels);
  for (let c = 0; c < channels; c += 1) {
    for (let i = first; i < end; i += 1) flat[(i - first) * channels + c] = from.columns[c][i];
  }
  to.join(from.times.subarray(first, end), flat, channels);
}

/**
 * Joins samples of the API into a series.
 * @param {Series} series
 * @param {{ ts: number, value: number | (number | null)[] }[]} samples
 */
function take(series, samples) {
  const rows = samples.map(({ value }) => (Array.isArray(value) ? value : [value]));
  const channels = rows.reduce((most, row) => Math.max(most, row.length), 1);
  const flat = new Float64Array(rows.length * channels).fill(NaN);
  rows.forEach((row, i) => row.forEach((value, c) => (flat[i * channels + c] = value ?? NaN)));
  series.join(
    samples.map(({ ts }) => ts),
    flat,
    channels,
  );
}
