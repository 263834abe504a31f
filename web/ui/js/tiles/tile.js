// @ts-check
// A tile: one attribute of a sensor in a room. It always has its name and last known value; only in sight does it watch its
// series, draw, and cost anything.

import * as clock from '../clock.js';
import { age, unitText } from '../format.js';
import { Series } from '../series.js';
import { element, write } from '../shell.js';
import { WORDS, freshness, show } from '../state.js';

/** Scrolling past a tile for less than this does not end its watch. */
const LINGER_MS = 1000;
/** Samples to begin with: those of the window, and a little more, within bounds. */
const MORE = 1.1;
const MIN_BACKFILL = 100;
const MAX_BACKFILL = 20_000;
/** …and where no rate is declared. */
const UNKNOWN_BACKFILL = 1000;

/**
 * @typedef {object} Stage what the tiles of a page share
 * @property {import('../live.js').Live} live
 * @property {import('../charts/view.js').View} view one window for all
 * @property {import('../charts/cursor.js').Cursor} cursor
 *
 * @typedef {import('../pages/card.js').SensorMeta} SensorMeta
 * @typedef {import('../pages/card.js').AttributeMeta} AttributeMeta
 */

export class Tile {
  /**
   * @param {Stage} stage
   * @param {SensorMeta} sensor
   * @param {string} attribute
   */
  constructor(stage, sensor, attribute) {
    this.stage = stage;
    this.sensor = sensor;
    this.attribute = attribute;
    this.name = `${sensor.sensor}/${attribute}`;
    this.link = element('a', { href: `/sensors/${encodeURIComponent(sensor.sensor)}` }, [attribute]);
    this.of = element('span', { class: 'tile-of' });
    this.tools = element('span', { class: 'tile-tools' });
    this.pill = element('span', { class: 'pill', 'data-role': 'state', 'data-state': 'unknown' }, ['…']);
    this.age = element('span', { class: 'age', 'data-role': 'age' });
    this.body = element('div', { class: 'tile-body' });
    this.root = element(
      'li',
      { class: 'tile-card', 'data-role': 'tile', 'data-kind': this.meta.kind, 'data-sensor': sensor.sensor, 'data-attribute': attribute },
      [
        element('div', { class: 'tile-head' }, [
          element('h3', {}, [this.link, ' ', this.of]),
          this.tools,
          this.pill,
        ]),
        this.body,
      ],
    );
    this.series = new Series(this.meta.rate_hz);
    /** Newest time of a text, which no series holds. */
    this.textAt = NaN;
    /** @type {{ close: () => void } | null} none while the tile is out of sight */
    this.watch = null;
    this.leaving = 0;
    /** @type {import('../state.js').Freshness} */
    this.state = 'offline';
    /** Ends what is listened to while it is in sight. */
    this.end = new AbortController();
    this.update(sensor);
  }

  /** @returns {AttributeMeta} */
  get meta() {
    return this.sensor.attributes[this.attribute];
  }

  get isText() {
    return this.meta.channels.length === 0;
  }

  get isOpen() {
    return this.watch !== null;
  }

  /** @param {SensorMeta} sensor as it is known now */
  update(sensor) {
    if (sensor.attributes[this.attribute]) this.sensor = sensor;
    const name = this.sensor.name || this.sensor.sensor;
    write(this.of, name);
    this.root.setAttribute('aria-label', `${this.attribute} of ${name}`);
  }

  /** Unit of a channel as people write it. @param {number} channel */
  unit(channel) {
    return unitText(this.meta.units?.[channel] ?? this.meta.unit);
  }

  /** The last value that the list of sensors told. @param {number} channel */
  told(channel) {
    const last = this.meta.last?.value;
    return Number((Array.isArray(last) ? last[channel] : channel === 0 ? last : NaN) ?? NaN);
  }

  /** The last value of a channel. @param {number} channel */
  last(channel) {
    return this.series.length > 0 ? this.series.value(channel) : this.told(channel);
  }

  get newest() {
    const held = this.isText ? this.textAt : this.series.newest;
    return Number.isFinite(held) ? held : (this.meta.last?.ts ?? NaN);
  }

  /** The tile came into sight. */
  open() {
    clearTimeout(this.leaving);
    this.leaving = 0;
    if (this.watch) return;
    this.end = new AbortController();
    this.series = new Series(this.meta.rate_hz);
    this.begin();
    const onSamples = this.#take.bind(this);
    this.watch = this.stage.live.watch({ series: [this.name], attention: 'high', backfill: this.backfill, onSamples });
  }

  /** The tile left. */
  close() {
    if (this.watch && !this.leaving) this.leaving = window.setTimeout(() => this.remove(), LINGER_MS);
  }

  /** Lets go of everything at once. */
  remove() {
    clearTimeout(this.leaving);
    this.leaving = 0;
    if (!this.watch) return;
    this.watch.close();
    this.watch = null;
    this.end.abort();
    this.finish();
  }

  get backfill() {
    const { rate_hz: rate } = this.meta;
    if (!rate) return UNKNOWN_BACKFILL;
    const wanted = Math.ceil(rate * (this.stage.view.windowMs / 1000) * MORE);
    return Math.max(MIN_BACKFILL, Math.min(MAX_BACKFILL, wanted));
  }

  /**
   * @param {import('../live.js').Batch} batch
   * @param {boolean} settled
   */
  #take(batch, settled) {
    const before = this.series.newest;
    this.take(batch);
    if (settled && !batch.texts) this.series.heard(clock.now(), before);
  }

  /** @param {number} now */
  tick(now) {
    const ts = this.newest;
    const { arrived, skew, interval } = this.series;
    const { online } = this.sensor;
    const state = freshness({ now, newest: ts, arrived, skew, interval, online });
    // Texts come when something happens: with its device connected the series is live however long ago that was.
    this.state = this.isText && online ? 'live' : state;
    if (Number.isFinite(ts)) show(this.pill, this.state, WORDS[this.state]);
    else show(this.pill, 'unknown', 'No sample yet');
    write(this.age, Number.isFinite(ts) ? age(now - ts - skew) : '');
    this.write(now);
  }

  // What kinds of tiles do in their own way.

  /** Makes ready to draw `this.series`. */
  begin() {}

  /** The tile is out of sight: nothing is drawn any more. */
  finish() {}

  /** @param {import('../live.js').Batch} batch */
  take({ times, flat, channels }) {
    this.series.join(times, flat, channels);
  }

  /** Writes what is said in words. @param {number} _now */
  write(_now) {}
}
