// @ts-check
// What somebody wants at the top: sensors and rooms, kept in the browser.

import { keep, readJson } from './keep.js';

const KEY = 'favourites';
/** As many are kept; the one chosen longest ago goes for one more. */
const MAX = 200;

/** @type {Set<string>} `sensor/…` and `room/…` */
const chosen = new Set(readJson(KEY, /** @type {string[]} */ ([])));

/** @param {string} what */
export function has(what) {
  return chosen.has(what);
}

/**
 * Takes it in, or lets it go.
 * @param {string} what
 * @returns {boolean} whether it is one now
 */
export function toggle(what) {
  if (!chosen.delete(what)) chosen.add(what);
  for (const oldest of chosen) {
    if (chosen.size <= MAX) break;
    chosen.delete(oldest);
  }
  keep(KEY, JSON.stringify([...chosen]));
  return chosen.has(what);
}
