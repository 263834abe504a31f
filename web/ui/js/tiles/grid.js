// @ts-check
// The tiles of a room: one for each attribute of its sensors, in an order that stays.

import { LinesTile } from './lines.js';
import { BatteryTile, EventsTile, MapTile } from './others.js';

/** Tiles this far outside the window are kept ready. */
const MARGIN = '200px';
/** What is looked at first stands first; kinds that are not named stand between. */
const FIRST = ['ecg', 'heartrate', 'spo2', 'respiration', 'hrv', 'imu', 'geolocation', 'temperature', 'humidity'];
const LAST = ['battery', 'button', 'event', 'text'];

/** @typedef {import('./tile.js').Tile} Tile */

/** @param {string} kind */
function rank(kind) {
  if (FIRST.includes(kind)) return FIRST.indexOf(kind);
  return LAST.includes(kind) ? FIRST.length + 1 + LAST.indexOf(kind) : FIRST.length;
}

/**
 * @param {import('./tile.js').Stage} stage
 * @param {import('./tile.js').SensorMeta} sensor
 * @param {string} attribute
 * @returns {Tile}
 */
function made(stage, sensor, attribute) {
  const { kind, channels } = sensor.attributes[attribute];
  if (channels.length === 0) return new EventsTile(stage, sensor, attribute);
  if (kind === 'geolocation') return new MapTile(stage, sensor, attribute);
  if (kind === 'battery') return new BatteryTile(stage, sensor, attribute);
  return new LinesTile(stage, sensor, attribute);
}

export class Grid {
  /**
   * @param {HTMLElement} list
   * @param {import('./tile.js').Stage} stage
   */
  constructor(list, stage) {
    this.list = list;
    this.stage = stage;
    /** @type {Map<string, Tile>} by `sensor/attribute` */
    this.tiles = new Map();
    this.order = '';
    /** @type {Map<Element, Tile>} */
    const byRoot = new Map();
    this.byRoot = byRoot;
    this.sight = new IntersectionObserver(
      (entries) => {
        for (const { target, isIntersecting } of entries) {
          const tile = byRoot.get(target);
          if (isIntersecting) tile?.open();
          else tile?.close();
        }
      },
      { rootMargin: MARGIN },
    );
  }

  /**
   * Shows these sensors, and no others.
   * @param {import('./tile.js').SensorMeta[]} sensors
   */
  show(sensors) {
    const known = new Set();
    for (const sensor of sensors) {
      for (const [attribute, meta] of Object.entries(sensor.attributes)) {
        const name = `${sensor.sensor}/${attribute}`;
        known.add(name);
        const held = this.tiles.get(name);
        if (held && held.meta.kind === meta.kind && held.meta.channels.join() === meta.channels.join()) {
          held.update(sensor);
          continue;
        }
        if (held) this.#drop(name);
        this.#add(name, made(this.stage, sensor, attribute));
      }
    }
    for (const name of [...this.tiles.keys()]) if (!known.has(name)) this.#drop(name);
    this.#arrange();
  }

  /** A sensor was cleared: what its tiles drew is gone everywhere. @param {string} sensor */
  cleared(sensor) {
    for (const [name, tile] of [...this.tiles]) if (tile.sensor.sensor === sensor) this.#drop(name);
  }

  /** @param {number} now */
  tick(now) {
    for (const tile of this.tiles.values()) if (tile.isOpen) tile.tick(now);
  }

  /**
   * @param {string} name
   * @param {Tile} tile
   */
  #add(name, tile) {
    this.tiles.set(name, tile);
    this.byRoot.set(tile.root, tile);
    this.sight.observe(tile.root);
  }

  /** @param {string} name */
  #drop(name) {
    const tile = this.tiles.get(name);
    if (!tile) return;
    this.sight.unobserve(tile.root);
    this.byRoot.delete(tile.root);
    tile.remove();
    tile.root.remove();
    this.tiles.delete(name);
  }

  #arrange() {
    const title = (/** @type {Tile} */ { sensor }) => sensor.name || sensor.sensor;
    const sorted = [...this.tiles.values()].sort(
      (a, b) =>
        title(a).localeCompare(title(b), undefined, { numeric: true }) ||
        a.sensor.sensor.localeCompare(b.sensor.sensor) ||
        rank(a.meta.kind) - rank(b.meta.kind) ||
        a.attribute.localeCompare(b.attribute, undefined, { numeric: true }),
    );
    const order = sorted.map(({ name }) => name).join(' ');
    if (order === this.order) return;
    this.order = order;
    // What stands where it belongs is not moved: moving would lose the focus.
    sorted.forEach(({ root }, i) => {
      if (this.list.children[i] !== root) this.list.insertBefore(root, this.list.children[i] ?? null);
    });
  }
}
