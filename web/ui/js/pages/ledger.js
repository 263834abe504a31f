// @ts-check
// What became of everything that a sensor sent, in words: nothing is dropped in silence.

import { element, get } from '../shell.js';
import { whole } from '../format.js';

/**
 * @typedef {object} Ledger as the API has it
 * @property {number} received
 * @property {number} stored
 * @property {number} duplicate
 * @property {number} late
 * @property {number} replaced
 * @property {number} cleared
 * @property {number} evicted
 * @property {number} merged
 * @property {Record<string, number>} refused by code
 */

/**
 * A sentence for each thing that happened to a sample, those that happened to none left out.
 * @param {Ledger} ledger
 * @returns {string[]}
 */
export function sentences(ledger) {
  const { received, stored, duplicate, late, replaced, cleared, evicted, merged, refused } = ledger;
  if (received === 0) return ['No sample has been received since the counts began.'];
  const few = (/** @type {number} */ count, /** @type {string} */ one, /** @type {string} */ many) =>
    `${whole(count)} ${count === 1 ? one : many}`;
  const told = [`${few(received, 'sample was', 'samples were')} received; ${whole(stored)} of them stored.`];
  if (duplicate) told.push(`${few(duplicate, 'was', 'were')} sent again and already there: nothing changed.`);
  if (replaced) told.push(`${few(replaced, 'had', 'had')} the time of an earlier one and another value: the newer one counts.`);
  if (late) told.push(`${few(late, 'was', 'were')} older than all that is kept of the series, and not kept.`);
  if (cleared) told.push(`${few(cleared, 'was', 'were')} from before the sensor was cleared, and not kept.`);
  for (const [code, count] of Object.entries(refused)) {
    told.push(`${few(count, 'was', 'were')} refused: ${code.replaceAll('_', ' ')}. The device was told.`);
  }
  if (evicted) told.push(`${few(evicted, 'has', 'have')} made room for newer ones since.`);
  if (merged) told.push(`${few(merged, 'was', 'were')} taken on two nodes that could not hear each other, and became one.`);
  return told;
}

/**
 * @param {HTMLElement} list
 * @param {string} sensor
 */
export async function showLedger(list, sensor) {
  const ledger = await get(`sensors/${encodeURIComponent(sensor)}/ledger`);
  list.replaceChildren(...sentences(ledger).map((text) => element('li', {}, [text])));
}
