// @ts-check
// The samples of one series that this page holds: joined by time, ascending, no time twice. Whatever arrives again
// (after a reconnect, from another node) lands on itself.

/** Samples held per series; above it the oldest quarter goes. An hour at 360 Hz is 1.3 million. */
export const MAX_SAMPLES = 1 << 21;
/** Samples that the usual interval is estimated from. */
const INTERVAL_SAMPLES = 65;
/** No silence shorter than this counts as a gap. */
const MIN_GAP_MS = 1000;
/** A gap is this many usual intervals. */
const GAP_INTERVALS = 3;
/** A clock that is further off than this is a wrong clock, not a late sample. */
const SKEW_MS = 10_000;
/** Times ahead of the node's clock by more than this mean a wrong clock. */
const AHEAD_MS = 1500;
/** What arrives so much later than it was measured, or than newer ones, was filled in afterwards. */
const FILLED_MS = 10_000;
/** Stretches of time that are remembered as filled in; the oldest is forgotten for one more. */
const MAX_FILLED = 100;
/** Arrivals that the usual latency is told from. */
const LATENCIES = 31;
/** Two arrivals within this time show that the series is running, whatever its clock says. */
const RUNNING_MS = 5000;

/**
 * @typedef {object} Consumer something that derives from the samples and must hear how far back they changed
 * @property {number} next index of the first sample that it has not taken in
 */

export class Series {
  /** @param {number | null} [rateHz] the declared rate */
  constructor(rateHz) {
    this.rateHz = rateHz && rateHz > 0 ? rateHz : null;
    this.length = 0;
    /** Grows with every change: what was drawn at another version is out of date. */
    this.version = 0;
    this.times = new Float64Array(256);
    /** @type {Float32Array[]} a column per channel; NaN where the channel is missing */
    this.columns = [];
    /** Node time at which the newest sample arrived live, or NaN. */
    this.arrived = NaN;
    /** @type {{ from: number, to: number }[]} stretches of time whose samples came afterwards, while this page was open */
    this.filled = [];
    /** @type {number[]} how long the last samples took from the device to this page, ms */
    this.latencies = [];
    /** How far the device's clock is behind the node's, where it is plainly wrong. */
    this.skew = 0;
    this.dropped = 0;
    /** @type {Set<Consumer>} */
    this.consumers = new Set();
    this.usual = NaN;
    this.usualAt = -1;
  }

  get newest() {
    return this.length ? this.times[this.length - 1] : NaN;
  }

  get oldest() {
    return this.length ? this.times[0] : NaN;
  }

  /** The usual distance between two samples in ms; NaN while unknown. */
  get interval() {
    if (this.rateHz) return 1000 / this.rateHz;
    if (this.usualAt !== this.version) {
      this.usualAt = this.version;
      const from = Math.max(1, this.length - INTERVAL_SAMPLES + 1);
      const steps = [];
      for (let i = from; i < this.length; i += 1) steps.push(this.times[i] - this.times[i - 1]);
      steps.sort((a, b) => a - b);
      this.usual = steps.length ? steps[steps.length >> 1] : NaN;
    }
    return this.usual;
  }

  /** Two samples further apart than this are not joined by a line. */
  get gap() {
    const interval = this.interval;
    return Number.isFinite(interval) ? Math.max(GAP_INTERVALS * interval, MIN_GAP_MS) : MIN_GAP_MS;
  }

  /**
   * Index of the first sample at or after `ts`.
   * @param {number} ts
   */
  indexOf(ts) {
    let low = 0;
    let high = this.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.times[middle] < ts) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /**
   * @param {number} channel
   * @param {number} [index] the newest when left out
   */
  value(channel, index = this.length - 1) {
    const column = this.columns[channel];
    return column && index >= 0 ? column[index] : NaN;
  }

  /**
   * Joins samples by time; one with a known time replaces it.
   * @param {ArrayLike<number>} times ms, in any order
   * @param {ArrayLike<number>} flat sample after sample, `channels` numbers each
   * @param {number} channels
   */
  join(times, flat, channels) {
    if (times.length === 0) return;
    this.#room(times.length, channels);
    for (let i = 0; i < times.length; i += 1) {
      const ts = times[i];
      let at = this.length;
      if (at > 0 && ts <= this.times[at - 1]) {
        at = this.indexOf(ts);
        if (this.times[at] !== ts) this.#open(at);
        for (const consumer of this.consumers) consumer.next = Math.min(consumer.next, at);
      } else {
        this.length += 1;
      }
      this.times[at] = ts;
      for (let c = 0; c < this.columns.length; c += 1) {
        this.columns[c][at] = c < channels ? flat[i * channels + c] : NaN;
      }
    }
    this.version += 1;
  }

  /**
   * Notes that samples arrived live, and judges the device's clock by it.
   * @param {number} now the node's time
   * @param {number} before the newest time held before they arrived
   */
  heard(now, before) {
    if (!(this.newest > before)) return;
    const running = now - this.arrived < RUNNING_MS;
    this.arrived = now;
    const behind = now - this.newest;
    if (behind > -AHEAD_MS && behind < SKEW_MS) this.skew = 0;
    else if (running && (this.skew === 0 || Math.abs(behind - this.skew) > AHEAD_MS)) this.skew = behind;
  }

  /** Half of the last samples came faster than this, in ms; NaN while none has come live. */
  get latency() {
    return [...this.latencies].sort((a, b) => a - b)[this.latencies.length >> 1] ?? NaN;
  }

  /**
   * Notes when samples came live: how long the newest took, and which stretch was filled in afterwards.
   * @param {ArrayLike<number>} times as they came
   * @param {number} now the node's time
   * @param {number} before the newest time held before they arrived
   */
  came(times, now, before) {
    let from = Infinity;
    let to = -Infinity;
    let newest = -Infinity;
    for (let i = 0; i < times.length; i += 1) {
      newest = Math.max(newest, times[i]);
      if (!(times[i] < before) && !(now - times[i] - this.skew > FILLED_MS)) continue;
      from = Math.min(from, times[i]);
      to = Math.max(to, times[i]);
    }
    if (from <= to) this.#fill(from, to);
    else if (newest > -Infinity) this.latencies = [...this.latencies, now - newest].slice(-LATENCIES);
  }

  /**
   * @param {number} from
   * @param {number} to
   */
  #fill(from, to) {
    const last = this.filled.at(-1);
    if (last && from - last.to <= this.gap && last.from - to <= this.gap) {
      last.from = Math.min(last.from, from);
      last.to = Math.max(last.to, to);
    } else {
      this.filled = [...this.filled, { from, to }].slice(-MAX_FILLED);
    }
  }

  /**
   * Lets go of samples before `ts`.
   * @param {number} ts
   */
  forget(ts) {
    this.#drop(this.indexOf(ts));
    this.version += 1;
  }

  /** @param {number} count of the oldest samples */
  #drop(count) {
    if (count === 0) return;
    this.times.copyWithin(0, count, this.length);
    for (const column of this.columns) column.copyWithin(0, count, this.length);
    this.length -= count;
    this.dropped += count;
    for (const consumer of this.consumers) consumer.next = 0;
  }

  /**
   * Makes room for `more` samples and at least `channels` columns.
   * @param {number} more
   * @param {number} channels
   */
  #room(more, channels) {
    if (this.length + more > MAX_SAMPLES && this.length > 0) {
      this.#drop(Math.min(this.length, Math.max(more, MAX_SAMPLES >> 2)));
    }
    let capacity = this.times.length;
    while (capacity < this.length + more) capacity *= 2;
    if (capacity > this.times.length) {
      const grown = new Float64Array(capacity);
      grown.set(this.times.subarray(0, this.length));
      this.times = grown;
      this.columns = this.columns.map((column) => {
        const wider = new Float32Array(capacity);
        wider.set(column.subarray(0, this.length));
        return wider;
      });
    }
    while (this.columns.length < channels) this.columns.push(new Float32Array(capacity).fill(NaN));
  }

  /** @param {number} at opens a place at this index */
  #open(at) {
    this.times.copyWithin(at + 1, at, this.length);
    for (const column of this.columns) column.copyWithin(at + 1, at, this.length);
    this.length += 1;
  }
}
