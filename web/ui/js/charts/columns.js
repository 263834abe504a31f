// @ts-check
// One channel reduced to pixel columns: the least, greatest, first and last value of each. Columns lie on a grid
// fixed in time, so they neither flicker as the chart scrolls nor need to be computed twice; new samples cost only
// themselves, and an hour at 360 Hz draws like ten seconds.

import { Series } from '../series.js';

/** Columns to begin with; doubled when full, and never more than there are samples. */
const FIRST_CAPACITY = 256;
/** When the series' idea of a gap drifts by this factor, gaps are looked for anew. */
const GAP_DRIFT = 1.5;

export class Columns {
  /**
   * @param {Series} series
   * @param {number} channel
   * @param {number} width of a column in ms
   */
  constructor(series, channel, width) {
    this.series = series;
    this.channel = channel;
    this.width = width;
    /** Index of the first sample not taken in; the series sets it back when earlier ones change. */
    this.next = 0;
    this.length = 0;
    this.gapUsed = series.gap;
    this.slot = new Float64Array(FIRST_CAPACITY);
    this.min = new Float32Array(FIRST_CAPACITY);
    this.max = new Float32Array(FIRST_CAPACITY);
    this.first = new Float32Array(FIRST_CAPACITY);
    this.last = new Float32Array(FIRST_CAPACITY);
    /** 1 where a gap lies between this column and the one before. */
    this.gap = new Uint8Array(FIRST_CAPACITY);
    series.consumers.add(this);
  }

  /** Stops following the series. */
  close() {
    this.series.consumers.delete(this);
  }

  /** Takes in what changed. */
  sync() {
    const { series, width } = this;
    const column = series.columns[this.channel];
    if (!column || this.next === series.length) return;
    const gap = series.gap;
    if (gap > this.gapUsed * GAP_DRIFT || gap * GAP_DRIFT < this.gapUsed) {
      this.next = 0;
      this.gapUsed = gap;
    }
    if (this.next === 0) {
      this.length = 0;
    } else if (this.length > 0) {
      // What comes may fall into the last column, or before it: begin again at the start of that column.
      const changed = Math.floor(series.times[this.next - 1] / width);
      this.length = this.indexOf(changed);
      this.next = series.indexOf(changed * width);
      // Rounding may put a sample at the border into the column before; step back over it.
      while (this.next > 0 && Math.floor(series.times[this.next - 1] / width) >= changed) this.next -= 1;
    }
    // The last value before what comes; further back than a gap it makes no difference.
    let back = this.next - 1;
    while (back >= 0 && Number.isNaN(column[back]) && series.times[this.next] - series.times[back] <= gap) back -= 1;
    let before = back >= 0 ? series.times[back] : -Infinity;
    for (let i = this.next; i < series.length; i += 1) {
      const value = column[i];
      const ts = series.times[i];
      if (Number.isNaN(value)) continue;
      const slot = Math.floor(ts / width);
      const at = this.length - 1;
      if (at >= 0 && this.slot[at] === slot) {
        if (value < this.min[at]) this.min[at] = value;
        if (value > this.max[at]) this.max[at] = value;
        this.last[at] = value;
      } else {
        this.#push(slot, value, ts - before > gap);
      }
      before = ts;
    }
    this.next = series.length;
  }

  /**
   * Index of the first column at or after `slot`.
   * @param {number} slot
   */
  indexOf(slot) {
    let low = 0;
    let high = this.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.slot[middle] < slot) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /**
   * @param {number} slot
   * @param {number} value
   * @param {boolean} gap
   */
  #push(slot, value, gap) {
    if (this.length === this.slot.length) {
      const grow = (/** @type {any} */ old) => {
        const grown = new old.constructor(old.length * 2);
        grown.set(old);
        return grown;
      };
      for (const name of /** @type {const} */ (['slot', 'min', 'max', 'first', 'last', 'gap'])) {
        this[name] = grow(this[name]);
      }
    }
    const at = this.length;
    this.slot[at] = slot;
    this.min[at] = value;
    this.max[at] = value;
    this.first[at] = value;
    this.last[at] = value;
    this.gap[at] = gap ? 1 : 0;
    this.length += 1;
  }
}
