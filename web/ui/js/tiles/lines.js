// @ts-check
// A tile of lines over time: numbers with their trend and limits, the axes of a motion sensor, the leads of an ECG.

import { valueAt } from '../charts/cursor.js';
import { handle } from '../charts/gestures.js';
import * as loop from '../charts/loop.js';
import { Past } from '../charts/past.js';
import { Strip } from '../charts/strip.js';
import { Sweep } from '../charts/sweep.js';
import { Decimals, moment, number } from '../format.js';
import { beyond, limitsOf } from '../limits.js';
import { element, write } from '../shell.js';
import { Tile } from './tile.js';

/** Samples that a tile holds; what is older is kept as least and greatest value of each second. */
const MAX_HELD = 40_000;
const HELD = 30_000;
/** Up to so many channels each has a large number of its own. */
const MAX_LARGE = 2;
/** A trend compares this last part of a minute… */
const TREND_MS = 60_000;
const TREND_PART = 0.25;
/** …and is steady within this share of the spread of the values, or of the value itself. */
const STEADY_SHARE = 0.25;
const STEADY_LEAST = 0.002;
/** An ECG sweeps while it is live and no longer window is chosen. */
const SWEEP_UP_TO_MS = 60_000;
/** Statistics are written this often. */
const STATS_MS = 500;

/**
 * Channels of one unit, by their place.
 * @param {Tile} tile
 */
function groupsOf(tile) {
  /** @type {Map<string, number[]>} */
  const groups = new Map();
  tile.meta.channels.forEach((_, index) => {
    const unit = tile.unit(index);
    groups.set(unit, [...(groups.get(unit) ?? []), index]);
  });
  return [...groups].map(([unit, channels]) => ({ unit, channels }));
}

export class LinesTile extends Tile {
  /**
   * @param {import('./tile.js').Stage} stage
   * @param {import('./tile.js').SensorMeta} sensor
   * @param {string} attribute
   */
  constructor(stage, sensor, attribute) {
    super(stage, sensor, attribute);
    this.groups = groupsOf(this);
    this.isEcg = this.meta.kind === 'ecg';
    this.single = this.meta.channels.length === 1 && !this.isEcg;
    this.statsAt = 0;
    /** Says that the value is beyond a limit. */
    this.alert = element('span', { class: 'pill', 'data-role': 'alert', 'data-state': 'alarm', role: 'status' });
    if (this.single) {
      this.pill.before(this.alert);
      const label = `Limits of ${attribute} of ${sensor.name || sensor.sensor}`;
      this.tools.append(element('button', { class: 'quiet', type: 'button', 'data-role': 'limits-of', 'aria-label': label, title: 'Limits' }, ['±']));
    }
    /** @type {{ index: number, value: HTMLElement, decimals: Decimals }[]} */
    this.readings = [];
    this.trend = element('span', { class: 'trend', 'data-role': 'trend' });
    this.stats = element('p', { class: 'stats', 'data-role': 'stats' });
    this.canvas = /** @type {HTMLCanvasElement} */ (element('canvas', { 'aria-hidden': 'true' }));
    this.sweepCanvas = this.isEcg
      ? /** @type {HTMLCanvasElement} */ (element('canvas', { 'aria-hidden': 'true', class: 'sweep' }))
      : null;
    const lanes = this.isEcg ? this.meta.channels.length : this.groups.length;
    this.host = element('div', {
      class: 'chart',
      'data-role': 'chart',
      'data-lanes': String(lanes),
      tabindex: '0',
      role: 'group',
      'aria-label': `Chart of ${attribute}`,
      'aria-keyshortcuts': 'Space ArrowLeft ArrowRight + - , . Home End',
    });
    this.jump = element('button', { class: 'chart-empty', type: 'button', 'data-role': 'jump', hidden: '' });
    this.jump.addEventListener('click', () => stage.view.show(this.newest + this.series.skew + stage.view.windowMs * 0.05));
    this.host.append(this.canvas, ...(this.sweepCanvas ? [this.sweepCanvas] : []), this.jump);
    const readings = this.isEcg ? [] : [this.#readings()];
    this.body.append(...readings, this.host, ...this.#foot());
    /** @type {Strip | null} */
    this.strip = null;
    /** @type {Sweep | null} */
    this.sweep = null;
    /** @type {Past | null} */
    this.past = null;
  }

  #readings() {
    const { channels } = this.meta;
    const large = channels.length <= MAX_LARGE;
    const reading = (/** @type {number} */ index, /** @type {number} */ color, /** @type {string} */ name) => {
      const value = element('span', { class: 'number', 'data-role': 'value', 'data-channel': String(index) }, ['–']);
      this.readings.push({ index, value, decimals: new Decimals() });
      const unit = large ? [' ', element('span', { class: 'unit', 'data-role': 'unit' }, [this.unit(index)])] : [];
      const label = name ? [element('span', { class: 'legend', 'data-line': String(color + 1) }, [element('i', { class: 'swatch' }), name])] : [];
      return element('span', { class: 'tile-reading' }, [...label, element('span', {}, [value, ...unit])]);
    };
    if (large) {
      const name = (/** @type {number} */ index) => (channels.length > 1 ? channels[index] : '');
      return element('div', { class: 'tile-large', 'data-count': String(channels.length) }, [
        ...channels.map((_, index) => reading(index, index, name(index))),
        this.trend,
        this.age,
      ]);
    }
    const rows = this.groups.map(({ unit, channels: of }, row) =>
      element('div', { class: 'tile-row' }, [
        ...of.map((index, color) => reading(index, color, channels[index])),
        element('span', { class: 'unit' }, [unit]),
        ...(row === 0 ? [this.age] : []),
      ]),
    );
    return element('div', { class: 'tile-rows' }, rows);
  }

  #foot() {
    if (this.single) return [element('div', { class: 'tile-foot' }, [this.stats])];
    if (!this.isEcg) return [];
    this.scale = element('span', { 'data-role': 'paper' });
    const note = element('span', {}, [this.scale, element('strong', {}, ['Not for diagnosis'])]);
    return [element('div', { class: 'tile-foot disclaimer' }, [note, this.age])];
  }

  begin() {
    const { stage, series, host, meta, end } = this;
    const { view, cursor } = stage;
    const past = new Past(this.name, series, view, { show: (history) => strip && (strip.history = history) });
    const few = meta.channels.length <= MAX_LARGE;
    const color = (/** @type {number[]} */ of, /** @type {number} */ index) => (few ? index : of.indexOf(index));
    const lanes = (this.isEcg ? meta.channels.map((name, i) => ({ unit: name, channels: [i] })) : this.groups).map(
      ({ unit, channels }) => ({
        name: unit,
        channels: channels.map((index) => ({ index, name: meta.channels[index], color: color(channels, index) })),
      }),
    );
    const channels = lanes.flatMap((lane) => lane.channels);
    const strip = new Strip(host, this.canvas, { series, history: past.history, view, channels, paper: this.isEcg, lanes });
    this.strip = strip;
    this.past = past;
    if (this.sweepCanvas) this.sweep = new Sweep(this.sweepCanvas, { series, view, channels });
    this.drawn = { host, draw: (/** @type {number} */ now) => this.#draw(now) };
    loop.add(this.drawn);
    handle(host, strip, { signal: end.signal, oldest: () => view.show(series.oldest + series.skew + view.windowMs * 0.95) });
    this.pointed = cursor.over(host, () => (this.isSweeping && this.sweep) || strip, end.signal);
    view.addEventListener('change', () => this.#viewChanged(), { signal: end.signal });
    cursor.addEventListener('change', () => this.#values(), { signal: end.signal });
    this.limitsChanged();
    this.#viewChanged();
  }

  finish() {
    if (this.drawn) loop.remove(this.drawn);
    this.strip?.close();
    this.sweep?.close();
    this.past?.close();
    this.strip = this.sweep = this.past = null;
    // A canvas of no size holds no picture.
    this.canvas.width = 0;
    if (this.sweepCanvas) this.sweepCanvas.width = 0;
  }

  get isSweeping() {
    const { view } = this.stage;
    return this.sweep !== null && !view.paused && view.windowMs <= SWEEP_UP_TO_MS;
  }

  /** @param {number} now */
  #draw(now) {
    if (this.isSweeping) {
      this.sweep?.draw(now);
      this.pointed?.again();
    } else {
      this.strip?.draw(now);
    }
  }

  #viewChanged() {
    this.past?.look();
    this.statsAt = 0;
    if (!this.sweepCanvas) return;
    this.sweepCanvas.hidden = !this.isSweeping;
    this.canvas.hidden = this.isSweeping;
  }

  /** People have set other limits. */
  limitsChanged() {
    if (!this.single) return;
    this.limits = limitsOf(this.name, this.meta.kind);
    const { low, high } = this.limits;
    if (this.strip) this.strip.limits = [low, high].filter((limit) => limit !== null);
  }

  /** @param {import('../live.js').Batch} batch */
  take(batch) {
    super.take(batch);
    if (this.series.length > MAX_HELD) this.past?.absorb(this.series.length - HELD);
  }

  /** The values: the last ones, or those of the moment that the cursor is on. */
  #values() {
    const { stage, series } = this;
    const { cursor, view } = stage;
    const at = view.right - series.skew - cursor.ago;
    const layers = this.past ? [series, this.past.history] : [series];
    for (const { index, value, decimals } of this.readings) {
      write(value, decimals.text(cursor.shown ? valueAt(layers, index, at) : this.last(index)));
    }
    this.root.toggleAttribute('data-pointed', cursor.shown);
  }

  /** @param {number} now */
  write(now) {
    this.#values();
    if (this.scale) {
      const told = this.isSweeping ? `${this.sweep?.scale} · ` : this.strip?.onPaper ? '25 mm/s · 10 mm/mV · ' : '';
      write(this.scale, told);
    }
    const shown = this.isSweeping && this.sweep ? this.sweep.windowMs : this.stage.view.windowMs;
    const { newest } = this;
    this.jump.hidden = !(newest < this.stage.view.right - this.series.skew - shown);
    if (!this.jump.hidden) write(this.jump, `No sample in this window. Show the last, of ${moment(newest, now)}`);
    if (!this.single || now - this.statsAt < STATS_MS) return;
    this.statsAt = now;
    write(this.stats, this.#inView());
    write(this.trend, this.#trend(now));
    const value = this.last(0);
    const alarm = this.limits ? beyond(value, this.limits) : '';
    const limit = alarm && this.limits?.[alarm];
    const words = typeof limit === 'number' ? `${alarm === 'low' ? 'Below' : 'Above'} ${number(limit)} ${this.unit(0)}` : '';
    write(this.alert, words.trim());
  }

  /** Least, mean and greatest value in view. */
  #inView() {
    const { series, stage } = this;
    const right = stage.view.right - series.skew;
    let low = Infinity;
    let high = -Infinity;
    let sum = 0;
    let count = 0;
    for (const layer of [series, this.past?.history]) {
      const values = layer?.columns[0];
      if (!layer || !values) continue;
      const end = layer.indexOf(right);
      for (let i = layer.indexOf(right - stage.view.windowMs); i < end; i += 1) {
        const value = values[i];
        if (Number.isNaN(value)) continue;
        if (value < low) low = value;
        if (value > high) high = value;
        sum += value;
        count += 1;
      }
    }
    return count > 0 ? `min ${number(low)} · mean ${number(sum / count)} · max ${number(high)}` : 'no sample in view';
  }

  /** Whether the value rises or falls, compared with a minute ago. @param {number} now */
  #trend(now) {
    const { series } = this;
    const to = now - series.skew;
    const part = TREND_MS * TREND_PART;
    const before = mean(series, to - TREND_MS, to - TREND_MS + part);
    const after = mean(series, to - part, to);
    if (!(before.count > 0 && after.count > 0) || series.interval * 4 > TREND_MS) return '';
    const change = after.mean - before.mean;
    const calm = Math.max((after.spread + before.spread) * STEADY_SHARE, Math.abs(after.mean) * STEADY_LEAST);
    if (Math.abs(change) <= calm) return 'steady';
    const amount = number(Math.abs(change), this.readings[0].decimals.needed);
    return `${change > 0 ? '↗ +' : '↘ −'}${amount} in 1 min`;
  }
}

/**
 * Mean and spread of the first channel in a stretch of time.
 * @param {import('../series.js').Series} series
 * @param {number} from
 * @param {number} to
 */
function mean(series, from, to) {
  const values = series.columns[0] ?? [];
  let low = Infinity;
  let high = -Infinity;
  let sum = 0;
  let count = 0;
  const end = series.indexOf(to);
  for (let i = series.indexOf(from); i < end; i += 1) {
    if (Number.isNaN(values[i])) continue;
    low = Math.min(low, values[i]);
    high = Math.max(high, values[i]);
    sum += values[i];
    count += 1;
  }
  return { mean: sum / count, spread: high - low, count };
}
