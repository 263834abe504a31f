// @ts-check
// The node's clock as this page knows it. A beat can only arrive late, never early, so of the last beats the one
// with the greatest offset tells the node's time best.

/** Beats that the estimate looks back on: 10 s of them. */
const BEATS = 40;
/** A step above this is followed at once; below it the clock is slewed so that charts do not jump. */
const JUMP_MS = 1000;
/** Share of the remaining error that one beat corrects. */
const SLEW = 0.1;

/** @type {number[]} */
let offsets = [];
let offset = 0;
let heard = false;

/** Milliseconds since 1970 by the local clock, with fractions, never going backwards. */
function local() {
  return performance.timeOrigin + performance.now();
}

/**
 * Takes the time that a beat carries.
 * @param {number} ts the node's time in ms
 */
export function hear(ts) {
  if (!Number.isFinite(ts)) return;
  offsets.push(ts - local());
  if (offsets.length > BEATS) offsets.shift();
  const best = Math.max(...offsets);
  const error = best - offset;
  offset += !heard || Math.abs(error) > JUMP_MS ? error : error * SLEW;
  heard = true;
}

/** Forgets what another node's beats said; the current estimate stays until the new node's first beat. */
export function forget() {
  offsets = [];
  heard = false;
}

/** The node's time now, in ms since 1970. */
export function now() {
  return local() + offset;
}
