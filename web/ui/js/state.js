// @ts-check
// How fresh a series is, as one word. Colour is never alone: the word stands beside it.

/** A series is late after this many usual intervals… */
const LATE_INTERVALS = 3;
/** …but never sooner than this. */
const MIN_LATE_MS = 2500;
/** Without a connected device and silent for this long (or ten intervals), it is away. */
const AWAY_MS = 30_000;
const AWAY_INTERVALS = 10;
/** Taken for the interval of a series that declared none and has shown none. */
const DEFAULT_INTERVAL_MS = 1000;

/** @typedef {'live' | 'delayed' | 'stale' | 'offline'} Freshness */

/** @type {Record<Freshness, string>} */
export const WORDS = { live: 'Live', delayed: 'Delayed', stale: 'Stale', offline: 'Offline' };

/**
 * Live: samples arrive and are recent. Delayed: they arrive, but were measured a while ago. Stale: none has come
 * when one was due. Offline: none for long, and no device is connected.
 * @param {object} facts
 * @param {number} facts.now the node's time
 * @param {number} facts.newest time of the newest sample, NaN when there is none
 * @param {number} facts.arrived when the newest sample came in, NaN when that was before this page
 * @param {number} facts.skew how far the device's clock is plainly off
 * @param {number} facts.interval usual interval in ms, NaN when unknown
 * @param {boolean} facts.online whether a device of the sensor is connected to a node
 * @returns {Freshness}
 */
export function freshness({ now, newest, arrived, skew, interval, online }) {
  const usual = Number.isFinite(interval) ? interval : DEFAULT_INTERVAL_MS;
  const late = Math.max(LATE_INTERVALS * usual, MIN_LATE_MS);
  const behind = now - newest - skew;
  const silent = now - (Number.isFinite(arrived) ? Math.max(arrived, newest + skew) : newest);
  if (silent <= late) return behind <= late ? 'live' : 'delayed';
  if (online || silent <= Math.max(AWAY_MS, AWAY_INTERVALS * usual)) return 'stale';
  return 'offline';
}

/**
 * Shows a state in an element: the word, and the colour by its data attribute.
 * @param {HTMLElement} element
 * @param {string} state
 * @param {string} word
 */
export function show(element, state, word) {
  if (element.dataset.state === state && element.textContent === word) return;
  element.dataset.state = state;
  element.textContent = word;
}
