// @ts-check
// An attribute with numbers: its readings, its charts, and what one can do with them.

import * as clock from '../clock.js';
import { handle } from '../charts/gestures.js';
import * as loop from '../charts/loop.js';
import { TrailMap, placesOf } from '../charts/map.js';
import { Past } from '../charts/past.js';
import { Strip } from '../charts/strip.js';
import { View } from '../charts/view.js';
import { Decimals, age, duration, moment, number, unitText, whole } from '../format.js';
import { offer, savePicture } from '../save.js';
import { Series } from '../series.js';
import { ask } from '../nodes.js';
import { get, part, write } from '../shell.js';
import { WORDS, freshness, show } from '../state.js';

/** Samples asked for to begin with; what lies before is fetched, thinned, when someone looks there. */
const BACKFILL = 20_000;
/** Statistics are computed this often, and texts for screen readers written this often. */
const STATS_MS = 500;
const WORDS_MS = 10_000;
/** A geolocation's exact places (live values have seven digits) are asked for this often, and this many. */
const PLACES_MS = 1000;
const PLACES = 2000;
/** What shaded stretches mean. */
const FILLED = 'Shaded: came afterwards.';
/** The window that an ECG begins with: as on a printed strip, or what fits a phone. */
const ECG_WINDOW_MS = 10_000;
const NARROW_ECG_WINDOW_MS = 5_000;
const NARROW_PX = 640;

/**
 * The window that suits a rate.
 * @param {number} interval ms, NaN when unknown
 */
function windowFor(interval) {
  if (!(interval > 50)) return Number.isNaN(interval) ? 60_000 : 10_000;
  if (interval <= 2500) return 60_000;
  return interval <= 15_000 ? 300_000 : 3_600_000;
}

function ecgWindow() {
  return innerWidth < NARROW_PX ? NARROW_ECG_WINDOW_MS : ECG_WINDOW_MS;
}

export class NumbersCard {
  /**
   * @param {HTMLElement} root
   * @param {string} name `sensor/attribute`
   * @param {import('../live.js').Live} live
   */
  constructor(root, name, live) {
    this.root = root;
    this.name = name;
    this.live = live;
    this.attribute = root.dataset.attribute ?? '';
    this.channels = root.dataset.channels ?? '';
    this.isEcg = root.dataset.kind === 'ecg';
    this.series = new Series(Number(root.dataset.rate) || null);
    this.view = new View(this.isEcg ? ecgWindow() : windowFor(this.series.interval));
    this.chosen = this.isEcg || this.series.rateHz !== null;
    this.past = new Past(name, this.series, this.view, {
      show: (history) => {
        for (const { strip } of this.charts) strip.history = history;
      },
      say: (error) => this.#sayPast(error),
    });
    this.state = part(root, 'state');
    this.age = part(root, 'age');
    this.play = part(root, 'play');
    this.note = part(root, 'note');
    this.latency = part(root, 'latency');
    this.paper = this.isEcg ? part(root, 'paper') : null;
    this.fallback = Number(root.dataset.last ?? NaN);
    this.statsAt = 0;
    this.wordsAt = 0;
    this.placesAt = 0;
    /** @type {AbortController} removes what this card listens to */
    this.end = new AbortController();

    this.readings = [...root.querySelectorAll('[data-role="reading"]')].map((reading) => {
      const host = /** @type {HTMLElement} */ (reading);
      const unit = unitText(host.dataset.unit ?? '');
      write(part(host, 'unit'), unit);
      const label = (host.querySelector('.legend')?.textContent ?? '').trim();
      const index = Number(host.dataset.channel);
      const value = part(host, 'value');
      return { index, label, unit, value, stats: part(host, 'stats'), decimals: new Decimals() };
    });
    for (const label of root.querySelectorAll('[data-role="axis-unit"]')) {
      write(label, unitText(/** @type {HTMLElement} */ (label).dataset.unit ?? ''));
    }
    this.charts = [...root.querySelectorAll('[data-role="chart"]')].map((host) => this.#chart(/** @type {HTMLElement} */ (host)));
    const map = root.querySelector('[data-role="map"]');
    this.map = map ? new TrailMap(/** @type {HTMLCanvasElement} */ (map.querySelector('canvas'))) : null;
    this.mapWords = map ? part(map, 'words') : null;
    if (this.map) loop.add(this.map);
    this.#tools();
    this.view.addEventListener('change', () => this.#viewChanged());
    this.#viewChanged();
    this.watch = live.watch({
      series: [name],
      attention: 'high',
      backfill: BACKFILL,
      onSamples: (batch, settled) => this.#take(batch, settled),
    });
  }

  close() {
    this.watch.close();
    this.end.abort();
    this.past.close();
    for (const { strip } of this.charts) {
      loop.remove(strip);
      strip.close();
    }
    if (this.map) loop.remove(this.map);
  }

  /** @param {HTMLElement} host */
  #chart(host) {
    const canvas = /** @type {HTMLCanvasElement} */ (host.querySelector('canvas'));
    const names = this.channels.split(',');
    const channels = (host.dataset.channels ?? '0').split(',').map((text) => {
      const index = Number(text);
      return { index, name: names[index] ?? '', color: index };
    });
    const strip = new Strip(host, canvas, {
      series: this.series,
      history: this.history,
      view: this.view,
      channels,
      paper: host.dataset.paper === 'true',
    });
    loop.add(strip);
    const jump = part(host, 'jump');
    const { signal } = this.end;
    jump.addEventListener('click', () => this.#showLast(), { signal });
    handle(host, strip, { signal, oldest: () => this.#showOldest() });
    return { strip, words: part(host, 'words'), jump };
  }

  #tools() {
    const { signal } = this.end;
    this.play.addEventListener('click', () => this.view.toggle(), { signal });
    for (const button of this.root.querySelectorAll('[data-window]')) {
      const ms = Number(/** @type {HTMLElement} */ (button).dataset.window);
      button.addEventListener(
        'click',
        () => {
          this.chosen = true;
          this.view.choose(ms);
        },
        { signal },
      );
    }
    const csv = /** @type {HTMLAnchorElement} */ (part(this.root, 'csv'));
    csv.addEventListener(
      'click',
      (event) => {
        event.preventDefault();
        download(csv).catch((error) => write(this.note, `CSV: ${error.message}`));
      },
      { signal },
    );
    part(this.root, 'png').addEventListener('click', () => this.#picture(), { signal });
    for (const button of this.root.querySelectorAll('button[data-role="legend"]')) {
      const reading = /** @type {HTMLElement} */ (button.closest('[data-role="reading"]'));
      const index = Number(reading.dataset.channel);
      button.addEventListener(
        'click',
        () => {
          const hide = button.getAttribute('aria-pressed') === 'true';
          button.setAttribute('aria-pressed', String(!hide));
          for (const { strip } of this.charts) {
            if (hide) strip.hidden.add(index);
            else strip.hidden.delete(index);
          }
        },
        { signal },
      );
    }
  }

  /** What the charts and the map show now, as a picture with a title. */
  #picture() {
    const shown = this.charts.map(({ strip }) => strip.canvas);
    if (this.map) shown.push(this.map.canvas);
    const { right, left } = { right: this.view.right, left: this.view.right - this.view.windowMs };
    const span = `${moment(left, clock.now())} to ${moment(right, clock.now())}`;
    const unit = this.readings[0]?.unit;
    const title = `${this.name.replace('/', ' · ')}${unit ? `, ${unit}` : ''}`;
    savePicture(shown, title, span, `${this.name.replace('/', '_')}.png`).catch((error) => write(this.note, `PNG: ${error.message}`));
  }

  #viewChanged() {
    const { view } = this;
    show(this.play, view.paused ? 'paused' : 'live', view.paused ? 'Paused' : 'Live');
    this.play.title = view.paused ? 'Go live (space)' : 'Pause (space)';
    for (const button of this.root.querySelectorAll('[data-window]')) {
      const chosen = Number(/** @type {HTMLElement} */ (button).dataset.window) === view.windowMs;
      button.setAttribute('aria-pressed', String(chosen));
    }
    this.statsAt = 0;
    this.past.look();
  }

  /** What was fetched from before the samples that the page holds, thinned. */
  get history() {
    return this.past.history;
  }

  /** @param {string} error why the past could not be read; empty when it was */
  #sayPast(error) {
    // Between two nodes the header says what is going on.
    if (error && this.live.state === 'live') write(this.note, `History: ${error}`);
    else if (!error && this.note.textContent?.startsWith('History:')) write(this.note, '');
  }

  /**
   * @param {import('../live.js').Batch} batch
   * @param {boolean} settled
   */
  #take({ times, flat, channels }, settled) {
    const { series } = this;
    const before = series.newest;
    series.join(times, flat, channels);
    if (settled) {
      const now = clock.now();
      series.heard(now, before);
      series.came(times, now, before);
    }
    if (!this.chosen && series.length >= 3) {
      this.chosen = true;
      this.view.choose(windowFor(series.interval));
    }
  }

  /** Shows the newest samples, however old. */
  #showLast() {
    const newest = this.series.length ? this.series.newest : this.fallback;
    if (Number.isFinite(newest)) this.view.show(newest + this.series.skew + this.view.windowMs * 0.05);
  }

  #showOldest() {
    const oldest = this.series.length ? this.series.oldest : this.fallback;
    if (Number.isFinite(oldest)) this.view.show(oldest + this.series.skew + this.view.windowMs * 0.95);
  }

  /**
   * @param {number} now
   * @param {boolean} online
   */
  tick(now, online) {
    const { series } = this;
    const newest = series.length ? series.newest : this.fallback;
    const { arrived, skew, interval } = series;
    const state = freshness({ now, newest, arrived, skew, interval, online });
    if (Number.isFinite(newest)) show(this.state, state, WORDS[state]);
    else show(this.state, 'unknown', 'No sample yet');
    write(this.age, Number.isFinite(newest) ? age(now - newest - skew) : '');
    for (const { index, value, decimals } of this.readings) {
      const last = series.value(index);
      if (series.length) write(value, this.map && index < 2 ? number(last, 5) : decimals.text(last));
    }
    if (skew !== 0) {
      write(this.note, `The device's clock is ${duration(skew)} ${skew > 0 ? 'behind' : 'ahead'}.`);
    }
    const right = this.view.right - skew;
    const filled = series.filled.some(({ from, to }) => to >= right - this.view.windowMs && from <= right);
    if (filled && !this.note.textContent) write(this.note, FILLED);
    else if (!filled && this.note.textContent === FILLED) write(this.note, '');
    // Of a device whose clock is wrong nobody knows how long its samples take.
    const known = Number.isFinite(series.latency) && skew === 0;
    write(this.latency, known ? `${whole(Math.max(0, series.latency))} ms from the device` : '');
    if (this.paper) this.paper.hidden = !this.charts[0].strip.onPaper;
    if (now - this.statsAt >= STATS_MS) {
      this.statsAt = now;
      this.#stats(now);
    }
    if (this.map && now - this.placesAt >= PLACES_MS && !document.hidden) {
      this.placesAt = now;
      this.#places();
    }
    if (now - this.wordsAt >= WORDS_MS) {
      this.wordsAt = now;
      this.#words(state);
    }
  }

  /**
   * Least, mean and greatest value in view, and a way back when nothing is.
   * @param {number} now
   */
  #stats(now) {
    const { series, history, view } = this;
    const right = view.right - series.skew;
    const left = right - view.windowMs;
    let any = false;
    for (const reading of this.readings) {
      let low = Infinity;
      let high = -Infinity;
      let sum = 0;
      let count = 0;
      // History is thinned to extremes: it tells the range, and the mean where nothing better is held.
      const held = series.indexOf(right) > series.indexOf(left);
      for (const layer of [series, history]) {
        const values = layer.columns[reading.index];
        if (!values) continue;
        const end = layer.indexOf(right);
        for (let i = layer.indexOf(left); i < end; i += 1) {
          const value = values[i];
          if (Number.isNaN(value)) continue;
          if (value < low) low = value;
          if (value > high) high = value;
          if (layer === series || !held) {
            sum += value;
            count += 1;
          }
        }
      }
      any ||= low <= high;
      // The mean of coordinates says nothing; the map does.
      if (this.map && reading.index < 2) continue;
      const range = () => `min ${number(low)} · mean ${number(sum / count)} · max ${number(high)}`;
      write(reading.stats, low <= high ? range() : 'no sample in view');
    }
    const newest = series.length ? series.newest : this.fallback;
    for (const { jump } of this.charts) {
      const lost = !any && Number.isFinite(newest);
      jump.hidden = !lost;
      if (lost) write(jump, `No sample in this window. Show the last, of ${moment(newest, now)}`);
    }
  }

  /** The trail from exact values. */
  async #places() {
    const { map, series, view } = this;
    if (!map || !this.mapWords) return;
    const [sensor, attribute] = this.name.split('/');
    const right = view.right - series.skew;
    const range = view.paused ? `&from=${right - view.windowMs}&to=${right}` : '';
    try {
      const answer = await get(
        `sensors/${encodeURIComponent(sensor)}/${encodeURIComponent(attribute)}/samples?limit=${PLACES}${range}`,
      );
      map.show(placesOf(answer.samples));
      write(this.mapWords, map.text);
    } catch {
      // The node is away for a moment; the map keeps what it shows.
    }
  }

  /**
   * What the charts show, for those who cannot see them.
   * @param {import('../state.js').Freshness} state
   */
  #words(state) {
    const window = `${this.view.paused ? 'paused' : 'live'}, window ${duration(this.view.windowMs)}`;
    for (const { strip, words } of this.charts) {
      const said = this.readings
        .filter(({ index }) => strip.channels.some((channel) => channel.index === index))
        .map(({ label, unit, value, stats }) => `${label} ${value.textContent} ${unit}, ${stats.textContent}`);
      write(words, `${this.attribute} is ${WORDS[state]}, ${window}. ${said.join('. ').replaceAll(' ·', ',')}`);
    }
  }
}

/**
 * Fetches the link as CSV (a plain link cannot ask for a type) and hands it to the browser as a file.
 * @param {HTMLAnchorElement} link
 */
async function download(link) {
  const { pathname, search } = new URL(link.href);
  const response = await ask(pathname + search, { headers: { accept: 'text/csv' } });
  if (!response.ok) throw new Error(`the node answered ${response.status}`);
  offer(await response.blob(), link.download);
}
