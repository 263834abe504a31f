// @ts-check
// One sensor in the lobby: what is known of it; and, only while it is in sight, a card with a row for each attribute, live.

import * as clock from '../clock.js';
import * as loop from '../charts/loop.js';
import { Spark, windowOf } from '../charts/spark.js';
import { Decimals, age, unitText } from '../format.js';
import { Series } from '../series.js';
import { WORDS, freshness, show } from '../state.js';
import { element, write } from '../shell.js';
import { star } from './star.js';

/** Samples asked for to begin a sparkline with: this many seconds at the declared rate, within bounds. */
const BACKFILL_S = 6;
const MIN_BACKFILL = 80;
const MAX_BACKFILL = 6000;
/** …and where no rate is declared. */
const UNKNOWN_BACKFILL = 400;
/** Heights of a card's head and of each row, and of its border; as in the style sheet. */
const HEAD_PX = 56;
const ROW_PX = 48;
const BORDER_PX = 2;
/** Scrolling past a card for less than this does not end its watch. */
const LINGER_MS = 1000;
/** A sparkline keeps this many times its window before it forgets. */
const KEEP_WINDOWS = 3;

/**
 * @typedef {object} AttributeMeta
 * @property {string} kind
 * @property {string} unit
 * @property {string[]} channels
 * @property {string[]} [units] a unit per channel
 * @property {number | null} rate_hz
 * @property {{ ts: number, value: unknown } | null} last
 *
 * @typedef {object} SensorMeta
 * @property {string} sensor
 * @property {string | null} name
 * @property {boolean} online
 * @property {number | null} last_ts
 * @property {Record<string, AttributeMeta>} attributes
 */

/**
 * How many samples a row begins with; of texts, the last is all that it shows.
 * @param {AttributeMeta} meta
 */
function backfillOf(meta) {
  if (meta.channels.length === 0) return 1;
  if (!meta.rate_hz) return UNKNOWN_BACKFILL;
  return Math.max(MIN_BACKFILL, Math.min(MAX_BACKFILL, Math.ceil(meta.rate_hz * BACKFILL_S)));
}

class Row {
  /**
   * @param {string} attribute
   * @param {AttributeMeta} meta
   */
  constructor(attribute, meta) {
    this.meta = meta;
    this.series = new Series(meta.rate_hz);
    this.decimals = [new Decimals(), new Decimals()];
    this.text = '';
    this.value = element('strong', { 'data-role': 'value' });
    this.age = element('span', { class: 'age', 'data-role': 'age' });
    const name = element('span', { class: 'row-name', title: `${attribute} (${meta.kind})` }, [attribute]);
    this.root = element('div', { class: 'row', 'data-attribute': attribute });
    /** @type {Spark | null} */
    this.spark = null;
    /** Newest time of a text. */
    this.at = NaN;
    this.shown = -1;
    if (this.isText || meta.kind === 'geolocation') {
      // A line says nothing of a text or a place; the room is for the words.
      this.root.append(name, element('span', { class: 'row-text row-value' }, [this.value, ' ', this.age]));
    } else {
      const canvas = /** @type {HTMLCanvasElement} */ (element('canvas', { 'aria-hidden': 'true' }));
      this.spark = new Spark(canvas, this.series);
      const shown = element('span', { class: 'row-value' }, [
        this.value,
        ' ',
        element('span', { class: 'unit', 'data-role': 'unit' }, [unitText(meta.unit)]),
        this.age,
      ]);
      this.root.append(name, canvas, shown);
    }
  }

  get isText() {
    return this.meta.channels.length === 0;
  }

  get newest() {
    const held = this.isText ? this.at : this.series.newest;
    return Number.isFinite(held) ? held : (this.meta.last?.ts ?? NaN);
  }

  /**
   * @param {import('../live.js').Batch} batch
   * @param {boolean} settled
   */
  take(batch, settled) {
    if (batch.texts) {
      const last = batch.times.length - 1;
      if (last >= 0 && !(batch.times[last] < this.at)) {
        this.at = batch.times[last];
        this.text = batch.texts[last];
      }
      return;
    }
    const before = this.series.newest;
    this.series.join(batch.times, batch.flat, batch.channels);
    if (settled) this.series.heard(clock.now(), before);
  }

  /** @param {number} now */
  write(now) {
    const { series, meta } = this;
    const ts = this.newest;
    write(this.age, Number.isFinite(ts) ? age(now - ts - series.skew) : 'no sample yet');
    if (this.isText) {
      write(this.value, this.text || String(meta.last?.value ?? ''));
      return;
    }
    const held = series.length > 0;
    const last = meta.last?.value;
    const fromMeta = (/** @type {number} */ c) => Number((Array.isArray(last) ? last[c] : c === 0 ? last : NaN) ?? NaN);
    const value = (/** @type {number} */ c) => (held ? series.value(c) : fromMeta(c));
    write(
      this.value,
      meta.kind === 'geolocation'
        ? `${value(0).toFixed(4)}, ${value(1).toFixed(4)}`
        : this.decimals[0].text(value(0)),
    );
  }
}

export class SensorCard {
  /**
   * @param {SensorMeta} meta
   * @param {import('../live.js').Live} live
   * @param {() => void} starred is told when it became a favourite, or no longer is
   */
  constructor(meta, live, starred) {
    this.id = meta.sensor;
    this.live = live;
    this.starred = starred;
    /** @type {HTMLElement | null} none while it is out of sight */
    this.root = null;
    /** @type {HTMLElement | null} */
    this.pill = null;
    /** @type {Map<string, Row>} */
    this.rows = new Map();
    /** @type {{ close: () => void }[]} */
    this.watches = [];
    this.leaving = 0;
    /** @type {import('../state.js').Freshness} */
    this.state = 'offline';
    this.meta = meta;
    /** When `meta` was true, on the node's clock. */
    this.metaAt = NaN;
    this.text = '';
    this.update(meta);
  }

  /** CSS pixels; it does not depend on whether it is in sight, so nothing jumps. */
  get height() {
    return HEAD_PX + BORDER_PX + ROW_PX * Object.keys(this.meta.attributes).length;
  }

  get name() {
    return this.meta.name || this.id;
  }

  get kinds() {
    return Object.values(this.meta.attributes).map((attribute) => attribute.kind);
  }

  /** Charge of its battery in per cent; Infinity where it tells of none. */
  get battery() {
    const found = Object.values(this.meta.attributes).find(({ kind }) => kind === 'battery')?.last?.value;
    return Number((Array.isArray(found) ? found[0] : found) ?? Infinity);
  }

  get newest() {
    let newest = this.meta.last_ts ?? NaN;
    for (const row of this.rows.values()) if (!(row.newest <= newest)) newest = row.newest;
    return newest;
  }

  /**
   * @param {string[]} words all must be found in the sensor's name, id, attributes or kinds
   * @param {string} kind empty for all
   */
  matches(words, kind) {
    if (kind && !this.kinds.includes(kind)) return false;
    return words.every((word) => this.text.includes(word));
  }

  /** @param {SensorMeta} meta */
  update(meta) {
    this.meta = meta;
    this.metaAt = clock.now();
    this.text = [this.name, this.id, ...Object.keys(meta.attributes), ...this.kinds].join(' ').toLowerCase();
    if (!this.root) return;
    this.#head(this.root);
    for (const [attribute, row] of this.rows) row.meta = meta.attributes[attribute] ?? row.meta;
    if (Object.keys(meta.attributes).some((attribute) => !this.rows.has(attribute))) this.#fill(this.root);
  }

  /** The card came into sight. */
  open() {
    clearTimeout(this.leaving);
    this.leaving = 0;
    if (this.root) return this.root;
    this.link = element('a', { href: `/sensors/${encodeURIComponent(this.id)}` });
    this.sub = element('span', { class: 'card-id' });
    this.pill = element('span', { class: 'pill', 'data-role': 'state' });
    const head = element('div', { class: 'card-head' }, [
      star(`sensor/${this.id}`, this.name, this.starred),
      element('span', { class: 'card-name' }, [this.link, this.sub]),
      this.pill,
    ]);
    this.root = element('li', { class: 'card', 'data-sensor': this.id }, [head]);
    this.#head(this.root);
    this.#fill(this.root);
    this.tick(clock.now());
    return this.root;
  }

  /** @param {HTMLElement} root */
  #head(root) {
    if (this.link) write(this.link, this.name);
    if (this.sub) write(this.sub, this.meta.name && this.meta.name !== this.id ? this.id : '');
    root.style.height = `${this.height}px`;
  }

  /** The card left; what it watched is kept for a moment, should it come back. */
  close() {
    if (this.root && !this.leaving) this.leaving = window.setTimeout(() => this.remove(), LINGER_MS);
  }

  /** Makes rows for all attributes and watches those that are not watched yet. @param {HTMLElement} root */
  #fill(root) {
    /** @type {Map<number, string[]>} series by how much they begin with */
    const groups = new Map();
    for (const [attribute, meta] of Object.entries(this.meta.attributes)) {
      if (this.rows.has(attribute)) continue;
      const row = new Row(attribute, meta);
      this.rows.set(attribute, row);
      root.append(row.root);
      if (row.spark) loop.add(row.spark);
      const backfill = backfillOf(meta);
      groups.set(backfill, [...(groups.get(backfill) ?? []), `${this.id}/${attribute}`]);
    }
    for (const [backfill, series] of groups) {
      const onSamples = this.#take.bind(this);
      this.watches.push(this.live.watch({ series, attention: 'medium', backfill, onSamples }));
    }
  }

  /**
   * @param {import('../live.js').Batch} batch
   * @param {boolean} settled
   */
  #take(batch, settled) {
    const row = this.rows.get(batch.series.slice(this.id.length + 1));
    if (!row) return;
    row.take(batch, settled);
    const { series } = row;
    const keep = KEEP_WINDOWS * windowOf(series);
    if (series.newest - series.oldest > 2 * keep) series.forget(series.newest - keep);
  }

  /** Lets go of everything but what is known of the sensor. */
  remove() {
    clearTimeout(this.leaving);
    this.leaving = 0;
    for (const watch of this.watches) watch.close();
    this.watches = [];
    for (const row of this.rows.values()) {
      if (!row.spark) continue;
      loop.remove(row.spark);
      row.spark.close();
    }
    this.rows.clear();
    this.root?.remove();
    this.root = this.pill = null;
  }

  /**
   * Writes ages, values and the state: that of its freshest attribute.
   * @param {number} now
   */
  tick(now) {
    /** @type {import('../state.js').Freshness} */
    let best = this.meta.online ? 'stale' : 'offline';
    const rank = { live: 3, delayed: 2, stale: 1, offline: 0 };
    for (const [attribute, meta] of Object.entries(this.meta.attributes)) {
      const row = this.rows.get(attribute);
      // Out of sight, the last that was asked is what is known: as of then, not of now.
      const state = freshness({
        now: row ? now : this.metaAt,
        newest: row ? row.newest : (meta.last?.ts ?? NaN),
        arrived: row?.series.arrived ?? NaN,
        skew: row?.series.skew ?? 0,
        interval: row ? row.series.interval : meta.rate_hz ? 1000 / meta.rate_hz : NaN,
        online: this.meta.online,
      });
      if (rank[state] > rank[best]) best = state;
      if (row && !this.leaving) row.write(now);
    }
    this.state = best;
    if (this.pill) show(this.pill, best, WORDS[best]);
  }
}
