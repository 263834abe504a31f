// @ts-check
// A text attribute: what happened, the newest first.

import { element, write } from '../shell.js';
import { age, moment } from '../format.js';
import { WORDS, freshness, show } from '../state.js';

/** Events listed. */
const SHOWN = 100;

export class TextsCard {
  /**
   * @param {HTMLElement} root
   * @param {string} name `sensor/attribute`
   * @param {import('../live.js').Live} live
   */
  constructor(root, name, live) {
    this.root = root;
    this.channels = root.dataset.channels ?? '';
    this.list = /** @type {HTMLElement} */ (root.querySelector('[data-role="events"]'));
    this.age = /** @type {HTMLElement} */ (root.querySelector('[data-role="age"]'));
    this.state = /** @type {HTMLElement} */ (root.querySelector('[data-role="state"]'));
    /** @type {Map<number, string>} texts by time */
    this.texts = new Map();
    this.newest = Number(root.dataset.last ?? NaN);
    this.arrived = NaN;
    this.dirty = true;
    this.watch = live.watch({ series: [name], attention: 'high', backfill: SHOWN, onSamples: this.#take.bind(this) });
  }

  /** The texts held, as a series of numbers would show its samples. */
  get series() {
    return this.texts;
  }

  close() {
    this.watch.close();
  }

  /** @param {import('../live.js').Batch} batch */
  #take({ times, texts }) {
    if (!texts) return;
    for (let i = 0; i < times.length; i += 1) {
      this.texts.set(times[i], texts[i]);
      if (!(times[i] <= this.newest)) this.newest = times[i];
    }
    if (this.texts.size > SHOWN) {
      const newest = [...this.texts].sort(([a], [b]) => a - b).slice(-SHOWN);
      this.texts = new Map(newest);
    }
    this.dirty = true;
  }

  /**
   * @param {number} now
   * @param {boolean} online
   */
  tick(now, online) {
    write(this.age, age(now - this.newest));
    // Texts come when something happens: with its device connected the series is live however long ago that was.
    const facts = { now, newest: this.newest, arrived: NaN, skew: 0, interval: NaN, online };
    const state = online ? 'live' : freshness(facts);
    show(this.state, state, WORDS[state]);
    if (!this.dirty || this.texts.size === 0) return;
    this.dirty = false;
    const newestFirst = [...this.texts].sort(([a], [b]) => b - a);
    this.list.replaceChildren(
      ...newestFirst.map(([ts, text]) =>
        element('li', {}, [element('time', { datetime: isoOf(ts) }, [moment(ts, now)]), text]),
      ),
    );
  }
}

/** @param {number} ts a time beyond what dates can hold has no text */
function isoOf(ts) {
  const date = new Date(ts);
  return Number.isNaN(date.getTime()) ? '' : date.toISOString();
}
