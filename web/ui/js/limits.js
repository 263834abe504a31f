// @ts-check
// Between which values a series is as it should be. People set their own, kept in the browser; for what rooms are lived in
// by there are usual ones. Beyond a limit a page says so, in words and in colour.

import { keep, readJson } from './keep.js';

const KEY = 'limits';
/** Series whose limits are kept; the one set longest ago is forgotten for one more. */
const MAX_KEPT = 200;

/**
 * @typedef {object} Limits
 * @property {number | null} low
 * @property {number | null} high
 */

/** @type {Limits} */
const NONE = { low: null, high: null };

/** What is usual, by kind: comfort in rooms, and batteries that want charging. Nothing of what bodies do. */
const USUAL = new Map([
  ['temperature', { low: 17, high: 27 }],
  ['humidity', { low: 30, high: 65 }],
  ['air_quality', { low: null, high: 1400 }],
  ['sound', { low: null, high: 85 }],
  ['battery', { low: 20, high: null }],
]);

/** @returns {Record<string, Limits>} */
function all() {
  return readJson(KEY, {});
}

/**
 * @param {string} series `sensor/attribute`
 * @param {string} kind
 * @returns {Limits}
 */
export function limitsOf(series, kind) {
  return all()[series] ?? USUAL.get(kind) ?? NONE;
}

/**
 * @param {string} series
 * @param {Limits} limits
 */
export function setLimits(series, limits) {
  const { [series]: _, ...others } = all();
  const kept = Object.entries({ ...others, [series]: limits }).slice(-MAX_KEPT);
  keep(KEY, JSON.stringify(Object.fromEntries(kept)));
}

/**
 * On which side of its limits a value is; empty within them, and where there is none.
 * @param {number} value
 * @param {Limits} limits
 * @returns {'' | 'low' | 'high'}
 */
export function beyond(value, { low, high }) {
  if (low !== null && value < low) return 'low';
  if (high !== null && value > high) return 'high';
  return '';
}
