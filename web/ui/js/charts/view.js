// @ts-check
// Which stretch of time a chart shows: following what is live, or standing still where someone looks back.

import * as clock from '../clock.js';

/** What is drawn runs this far behind, so that samples arriving in bursts still glide. */
export const PLAYOUT_MS = 500;
/** Choices of the window, in ms. */
export const WINDOWS = [5_000, 10_000, 30_000, 60_000, 300_000, 900_000, 3_600_000];
/** Pausing and dragging to closer than this to the newest moment means live again. */
const LIVE_MS = 50;

export class View extends EventTarget {
  /** @param {number} windowMs */
  constructor(windowMs) {
    super();
    this.windowMs = windowMs;
    /** Right edge on the node's clock while paused; NaN while live. */
    this.at = NaN;
  }

  get paused() {
    return !Number.isNaN(this.at);
  }

  /** Right edge now, on the node's clock. */
  get right() {
    return this.paused ? this.at : clock.now() - PLAYOUT_MS;
  }

  pause() {
    this.#stand(this.right);
  }

  live() {
    this.#stand(NaN);
  }

  toggle() {
    if (this.paused) this.live();
    else this.pause();
  }

  /**
   * Moves the window; to the future of now it cannot go.
   * @param {number} ms
   */
  pan(ms) {
    this.show(this.right + ms);
  }

  /**
   * Pauses with this right edge.
   * @param {number} right on the node's clock
   */
  show(right) {
    const end = clock.now() - PLAYOUT_MS;
    this.#stand(right > end - LIVE_MS ? NaN : right);
  }

  /** @param {number} steps to longer (+) or shorter (−) windows */
  zoom(steps) {
    const at = WINDOWS.indexOf(this.windowMs);
    this.choose(WINDOWS[Math.max(0, Math.min(WINDOWS.length - 1, at + steps))]);
  }

  /** @param {number} windowMs */
  choose(windowMs) {
    this.windowMs = windowMs;
    this.dispatchEvent(new Event('change'));
  }

  /** @param {number} at */
  #stand(at) {
    this.at = at;
    this.dispatchEvent(new Event('change'));
  }
}
