// @ts-check
// Tiles that are no lines: where a sensor went, how full its battery is, what happened.

import * as loop from '../charts/loop.js';
import { TrailMap, placesOf } from '../charts/map.js';
import { Past } from '../charts/past.js';
import { Strip } from '../charts/strip.js';
import { View } from '../charts/view.js';
import { moment, number } from '../format.js';
import { beyond, limitsOf } from '../limits.js';
import { element, get, write } from '../shell.js';
import { Tile } from './tile.js';

/** Exact places (live values have seven digits) are asked for this often, and this many. */
const PLACES_MS = 2000;
const PLACES = 1000;
/** Events listed. */
const SHOWN = 50;
/** What a battery did is seen over hours, whatever window the other tiles have. */
const BATTERY_WINDOW_MS = 3_600_000;

/** The trail in metres, and the coordinates as text. */
export class MapTile extends Tile {
  begin() {
    const canvas = /** @type {HTMLCanvasElement} */ (element('canvas', { 'aria-hidden': 'true' }));
    this.words = element('p', { class: 'words', 'data-role': 'value' }, ['No position yet.']);
    this.body.replaceChildren(element('div', { class: 'map' }, [canvas]), this.words, this.age);
    this.map = new TrailMap(canvas);
    this.askAt = -Infinity;
    loop.add(this.map);
  }

  finish() {
    if (this.map) loop.remove(this.map);
    this.map = undefined;
    this.body.replaceChildren();
  }

  get backfill() {
    return 1;
  }

  /** @param {number} now */
  write(now) {
    if (!this.isOpen || document.hidden || now - (this.askAt ?? 0) < PLACES_MS) return;
    this.askAt = now;
    this.#ask();
  }

  async #ask() {
    const { stage, series, name } = this;
    const path = name.split('/').map(encodeURIComponent).join('/');
    const right = stage.view.right - series.skew;
    const range = `&from=${right - stage.view.windowMs}${stage.view.paused ? `&to=${right}` : ''}`;
    try {
      const { samples } = await get(`sensors/${path}/samples?limit=${PLACES}&points=${PLACES}${range}`);
      // A sensor that rests outside the window is still somewhere.
      const shown = samples.length ? samples : (await get(`sensors/${path}/samples?limit=1`)).samples;
      this.map?.show(placesOf(shown));
      if (this.map && this.words) write(this.words, this.map.text);
    } catch {
      // The node is away for a moment; the map keeps what it shows.
    }
  }
}

/** How full a battery is, as number and bar. */
export class BatteryTile extends Tile {
  begin() {
    this.number = element('span', { class: 'number', 'data-role': 'value' }, ['–']);
    this.bar = element('meter', { class: 'level', min: '0', max: '100', low: '20', optimum: '100', 'aria-label': 'Charge' });
    this.more = element('p', { class: 'stats', 'data-role': 'stats' });
    this.alert = element('span', { class: 'pill', 'data-role': 'alert', 'data-state': 'alarm', role: 'status' });
    const large = element('div', { class: 'tile-large', 'data-count': '1' }, [
      element('span', { class: 'tile-reading' }, [element('span', {}, [this.number, ' ', element('span', { class: 'unit' }, ['%'])])]),
      this.alert,
      this.age,
    ]);
    const canvas = /** @type {HTMLCanvasElement} */ (element('canvas', { 'aria-hidden': 'true' }));
    const host = element('div', { class: 'chart' }, [canvas]);
    this.body.replaceChildren(large, this.bar, host, element('div', { class: 'tile-foot' }, [this.more]));
    const { series } = this;
    const view = new View(BATTERY_WINDOW_MS);
    const channels = [{ index: 0, name: 'level', color: 0 }];
    this.past = new Past(this.name, series, view, { show: (history) => this.strip && (this.strip.history = history) });
    this.strip = new Strip(host, canvas, { series, history: this.past.history, view, channels, paper: false });
    loop.add(this.strip);
    this.past.look();
  }

  finish() {
    if (this.strip) loop.remove(this.strip);
    this.strip?.close();
    this.past?.close();
    this.strip = this.past = undefined;
    this.body.replaceChildren();
  }

  write() {
    if (!this.number || !this.bar || !this.more || !this.alert) return;
    const level = this.last(0);
    write(this.number, number(level, 0));
    if (Number.isFinite(level)) /** @type {HTMLMeterElement} */ (this.bar).value = level;
    const charging = this.last(1);
    const volts = this.last(2);
    const words = [
      charging > 0 ? 'Charging' : charging === 0 ? 'Not charging' : '',
      Number.isFinite(volts) ? `${number(volts)} V` : '',
      'last hour',
    ];
    write(this.more, words.filter(Boolean).join(' · '));
    const limits = limitsOf(this.name, 'battery');
    write(this.alert, charging > 0 || beyond(level, limits) !== 'low' ? '' : `Below ${limits.low} %`);
  }
}

/** What happened, the newest first. */
export class EventsTile extends Tile {
  begin() {
    /** @type {Map<number, string>} texts by time */
    this.texts = new Map();
    this.dirty = true;
    this.list = element('ol', { class: 'events', 'aria-label': 'Newest first', tabindex: '0' });
    this.body.replaceChildren(this.list);
  }

  get backfill() {
    return SHOWN;
  }

  /** @param {import('../live.js').Batch} batch */
  take({ times, texts }) {
    if (!texts || !this.texts) return;
    for (let i = 0; i < times.length; i += 1) {
      this.texts.set(times[i], texts[i]);
      if (!(times[i] <= this.textAt)) this.textAt = times[i];
    }
    if (this.texts.size > SHOWN) this.texts = new Map([...this.texts].sort(([a], [b]) => a - b).slice(-SHOWN));
    this.dirty = true;
  }

  /** @param {number} now */
  write(now) {
    if (!this.dirty || !this.list || !this.texts) return;
    this.dirty = false;
    const newest = [...this.texts].sort(([a], [b]) => b - a);
    const told = /** @type {[number, string][]} */ (this.meta.last ? [[this.meta.last.ts, String(this.meta.last.value)]] : []);
    this.list.replaceChildren(
      ...(newest.length ? newest : told).map(([ts, text], i) =>
        element('li', {}, [
          element('time', {}, [moment(ts, now)]),
          element('span', i === 0 ? { 'data-role': 'value' } : {}, [text]),
        ]),
      ),
    );
  }
}
