// @ts-check
// Where a sensor went, without a map service: a metres grid around its newest place, the trail, and a circle of the
// stated accuracy.

import { fit, generation, palette } from './palette.js';
import { duration, number } from '../format.js';

/** Metres per degree of latitude, on a sphere of the earth's mean radius. */
const METRES_PER_DEGREE = (6_371_008.8 * Math.PI) / 180;
/** The view shows at least this much, so that a resting sensor's noise is not magnified. */
const MIN_EXTENT_M = 20;
/** Grid lines across the shorter side, about. */
const GRID_LINES = 5;

/**
 * @typedef {object} Place
 * @property {number} ts ms
 * @property {number} lat degrees
 * @property {number} lon degrees
 * @property {number} accuracy metres, NaN when not stated
 */

/**
 * Metres east and north of `origin`; right to a few parts in a thousand over tens of kilometres.
 * @param {Place} place
 * @param {Place} origin
 */
export function metres(place, origin) {
  const shrink = Math.cos((origin.lat * Math.PI) / 180);
  const turn = ((place.lon - origin.lon + 540) % 360) - 180;
  return { east: turn * METRES_PER_DEGREE * shrink, north: (place.lat - origin.lat) * METRES_PER_DEGREE };
}

/**
 * Places from the API's samples; without those that have no coordinates.
 * @param {{ ts: number, value: (number | null)[] }[]} samples
 * @returns {Place[]}
 */
export function placesOf(samples) {
  const places = samples.map(({ ts, value: [lat, lon, accuracy] }) => ({
    ts,
    lat: lat ?? NaN,
    lon: lon ?? NaN,
    accuracy: accuracy ?? NaN,
  }));
  return places.filter(({ lat, lon }) => Number.isFinite(lat) && Number.isFinite(lon));
}

export class TrailMap {
  /**
   * @param {HTMLCanvasElement} canvas
   */
  constructor(canvas) {
    this.host = canvas;
    this.canvas = canvas;
    this.context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d'));
    /** @type {Place[]} ascending in time */
    this.places = [];
    this.stale = true;
    this.generation = -1;
    this.width = 0;
    this.height = 0;
    new ResizeObserver(([entry]) => {
      this.width = entry.contentRect.width;
      this.height = entry.contentRect.height;
      this.stale = true;
    }).observe(canvas);
  }

  /** @param {Place[]} places ascending in time */
  show(places) {
    this.places = places;
    this.stale = true;
  }

  /** What the map shows, in words. */
  get text() {
    const last = this.places.at(-1);
    if (!last) return 'No position yet.';
    let length = 0;
    for (let i = 1; i < this.places.length; i += 1) {
      const { east, north } = metres(this.places[i], this.places[i - 1]);
      length += Math.hypot(east, north);
    }
    const over = this.places.length > 1 ? `, trail of ${number(length, 0)} m` : '';
    const time = this.places.length > 1 ? ` over ${duration(last.ts - this.places[0].ts)}` : '';
    return `Latitude ${number(last.lat, 6)}°, longitude ${number(last.lon, 6)}°${over}${time}.`;
  }

  draw() {
    if (this.width === 0 || (!this.stale && this.generation === generation)) return;
    this.stale = false;
    this.generation = generation;
    const { canvas, context: g } = this;
    fit(canvas, this.width, this.height);
    g.clearRect(0, 0, canvas.width, canvas.height);
    const here = this.places.at(-1);
    if (!here) return;
    const colors = palette();
    const ratio = window.devicePixelRatio || 1;
    const points = this.places.map((place) => metres(place, here));
    const accuracy = Number.isFinite(here.accuracy) ? here.accuracy : 0;
    const box = { west: -accuracy, east: accuracy, south: -accuracy, north: accuracy };
    for (const { east, north } of points) {
      box.west = Math.min(box.west, east);
      box.east = Math.max(box.east, east);
      box.south = Math.min(box.south, north);
      box.north = Math.max(box.north, north);
    }
    const extent = Math.max(
      MIN_EXTENT_M,
      box.north - box.south,
      ((box.east - box.west) * canvas.height) / canvas.width,
    );
    const scale = canvas.height / (extent * 1.2);
    const middle = { east: (box.west + box.east) / 2, north: (box.south + box.north) / 2 };
    const x = (/** @type {number} */ east) => canvas.width / 2 + (east - middle.east) * scale;
    const y = (/** @type {number} */ north) => canvas.height / 2 - (north - middle.north) * scale;

    const rough = extent / GRID_LINES;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((n) => n * power).find((s) => s >= rough) ?? rough;
    g.strokeStyle = colors.grid;
    g.lineWidth = Math.max(1, Math.round(ratio));
    g.beginPath();
    const across = canvas.width / 2 / scale;
    const upward = canvas.height / 2 / scale;
    for (let e = Math.ceil((middle.east - across) / step) * step; e <= middle.east + across; e += step) {
      g.moveTo(x(e), 0);
      g.lineTo(x(e), canvas.height);
    }
    for (let n = Math.ceil((middle.north - upward) / step) * step; n <= middle.north + upward; n += step) {
      g.moveTo(0, y(n));
      g.lineTo(canvas.width, y(n));
    }
    g.stroke();

    g.strokeStyle = g.fillStyle = colors.lines[0];
    g.lineJoin = 'bevel';
    if (accuracy > 0) {
      g.globalAlpha = 0.15;
      g.beginPath();
      g.arc(x(0), y(0), accuracy * scale, 0, 2 * Math.PI);
      g.fill();
      g.globalAlpha = 1;
    }
    g.lineWidth = Math.round(2 * ratio);
    g.beginPath();
    points.forEach((p, i) => (i ? g.lineTo(x(p.east), y(p.north)) : g.moveTo(x(p.east), y(p.north))));
    g.stroke();
    g.beginPath();
    g.arc(x(0), y(0), 5 * ratio, 0, 2 * Math.PI);
    g.fill();

    // The scale bar is as long as a grid square.
    g.strokeStyle = g.fillStyle = colors.text;
    g.lineWidth = Math.max(1, Math.round(ratio));
    const left = 12 * ratio;
    const bottom = canvas.height - 12 * ratio;
    g.beginPath();
    g.moveTo(left, bottom - 5 * ratio);
    g.lineTo(left, bottom);
    g.lineTo(left + step * scale, bottom);
    g.lineTo(left + step * scale, bottom - 5 * ratio);
    g.stroke();
    g.font = `${Math.round(11 * ratio)}px ${colors.font}`;
    g.textBaseline = 'bottom';
    g.fillText(step >= 1000 ? `${number(step / 1000)} km` : `${number(step)} m`, left + 6 * ratio, bottom - 4 * ratio);
    g.textBaseline = 'top';
    g.fillText('N ↑', left, 10 * ratio);
  }
}
