// @ts-check
// The page's one connection to a node. It stays open by itself: a silent or lost node is left for the next one, and
// what every series missed comes first, asked for by the newest time that this page holds.

import { decode } from './wire.js';
import * as clock from './clock.js';
import * as nodes from './nodes.js';

/** A node beats every 250 ms; silence for longer than this and the page moves on. */
const SILENCE_MS = 1250;
/** How often silence is looked for. */
const WATCHDOG_MS = 200;
/** Time for messages that wait behind a busy page to be read before it calls the node silent. */
const GRACE_MS = 80;
/** A connection that has not opened by then is given up. */
const OPEN_MS = 2000;
/** Delay before the nth attempt: doubled each time, up to the cap, and drawn at random from its upper half. */
const BACKOFF_MS = 100;
const MAX_BACKOFF_MS = 3000;
/** After this many failures in a row the state is Offline rather than Reconnecting; it goes on trying. */
const OFFLINE_AFTER = 6;
/** For this long after a watch, what comes may be its backfill rather than news. */
const SETTLE_MS = 700;
/** A beat that took this long to arrive means that what is shown is late. */
const DELAYED_MS = 1500;
/** A node may hear of a room a moment after the page did: it is entered again after this long, so many times. */
const ENTER_AGAIN_MS = 500;
const ENTER_TRIES = 10;

/**
 * @typedef {'connecting' | 'live' | 'delayed' | 'reconnecting' | 'offline'} LinkState
 *
 * @typedef {object} Batch samples of one series, as they came
 * @property {string} series `sensor/attribute`
 * @property {ArrayLike<number>} times ms
 * @property {number} channels 0 for texts
 * @property {ArrayLike<number>} flat sample after sample
 * @property {string[] | null} texts
 *
 * @typedef {object} Watch
 * @property {number} id
 * @property {string[]} series
 * @property {string} attention none, low, medium or high
 * @property {number} backfill samples to begin with
 * @property {boolean} cluster whether the nodes' figures and events are wanted
 * @property {OnSamples} onSamples
 * @property {number} sentAt when it was last sent
 *
 * @typedef {object} Stay somebody in a room, as `enter` says it
 * @property {string} id
 * @property {string} name
 * @property {boolean} call
 *
 * @typedef {(batch: Batch, settled: boolean) => void} OnSamples `settled` is false while what comes may be from the past
 */

export class Live extends EventTarget {
  constructor() {
    super();
    this.failures = 0;
    this.nextId = 1;
    /** @type {Map<number, Watch>} */
    this.watches = new Map();
    /** @type {Map<string, Stay>} the rooms that this page is in: on whichever node it is, as the same person */
    this.stays = new Map();
    this.refusals = 0;
    /** @type {{ level: number, charging: boolean } | null} */
    this.charge = null;
    /** @type {Map<string, number>} newest time held of each watched series */
    this.newest = new Map();
    /** @type {Map<number, string>} what this connection's binary frames call each series */
    this.names = new Map();
    /** @type {LinkState} */
    this.state = 'connecting';
    /** @type {WebSocket | null} */
    this.socket = null;
    this.heardAt = 0;
    this.openedAt = 0;
    this.retry = 0;
    this.connects = 0;
    setInterval(() => this.#watchdog(), WATCHDOG_MS);
    addEventListener('online', () => this.#soon(0));
    document.addEventListener('visibilitychange', () => {
      if (!document.hidden && !this.socket) this.#soon(0);
    });
    this.#connect();
  }

  /**
   * Watches series until `close` is called. A series that does not exist yet may be watched.
   * @param {{ series: string[], attention?: string, backfill?: number, onSamples: OnSamples }} options
   * @returns {{ close: () => void }}
   */
  watch({ series, attention = 'medium', backfill = 0, onSamples }) {
    return this.#begin({ series, attention, backfill, cluster: false, onSamples });
  }

  /** Has the node tell the figures of all nodes, and what happened to them, in its `cluster` messages. */
  watchCluster() {
    return this.#begin({ series: [], attention: 'none', backfill: 0, cluster: true, onSamples: () => {} });
  }

  /**
   * Is in a room until `leave`; what others see of it comes as `presence`. To enter again is to be called otherwise.
   * @param {string} room
   * @param {Stay} stay
   */
  enter(room, stay) {
    this.stays.set(room, stay);
    this.refusals = 0;
    this.#say({ type: 'enter', room, ...stay });
  }

  /** @param {string} room */
  leave(room) {
    if (this.stays.delete(room)) this.#say({ type: 'leave', room });
  }

  /**
   * Says how this device's battery is: nodes have less sent when it is low.
   * @param {{ level: number, charging: boolean }} charge
   */
  battery({ level, charging }) {
    this.charge = { level, charging };
    this.#say({ type: 'battery', level, charging });
  }

  /** @param {object} message not kept for a later connection */
  #say(message) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  #enterAgain() {
    for (const [room, stay] of this.stays) this.#say({ type: 'enter', room, ...stay });
  }

  /** @param {Omit<Watch, 'id' | 'sentAt'>} wish */
  #begin(wish) {
    const watch = { ...wish, id: this.nextId, sentAt: Infinity };
    this.nextId += 1;
    this.watches.set(watch.id, watch);
    this.#send(watch, new Map());
    const { series } = watch;
    return {
      close: () => {
        this.watches.delete(watch.id);
        for (const name of series) {
          if (![...this.watches.values()].some((other) => other.series.includes(name))) this.newest.delete(name);
        }
        this.#say({ type: 'unwatch', id: watch.id });
      },
    };
  }

  #connect() {
    if (this.socket) return;
    const url = new URL(nodes.url('/api/v1/live').replace(/^http/, 'ws'));
    url.searchParams.set('format', 'binary');
    const socket = new WebSocket(url);
    socket.binaryType = 'arraybuffer';
    this.socket = socket;
    this.openedAt = performance.now();
    this.heardAt = 0;
    socket.addEventListener('open', () => {
      if (socket !== this.socket) return;
      clock.forget();
      this.names.clear();
      this.heardAt = performance.now();
      this.connects += 1;
      this.refusals = 0;
      if (this.charge) this.#say({ type: 'battery', ...this.charge });
      this.#enterAgain();
      const held = new Map(this.newest);
      for (const watch of this.watches.values()) this.#send(watch, held);
    });
    socket.addEventListener('message', (event) => {
      if (socket !== this.socket) return;
      this.heardAt = performance.now();
      if (typeof event.data === 'string') this.#text(event.data);
      else this.#binary(event.data);
    });
    socket.addEventListener('close', () => this.#lost(socket));
  }

  /**
   * @param {Watch} watch
   * @param {Map<string, number>} held newest times from before this connection
   */
  #send(watch, held) {
    if (this.socket?.readyState !== WebSocket.OPEN) return;
    /** @type {Record<string, number>} */
    const since = {};
    for (const name of watch.series) {
      const newest = held.get(name);
      if (newest !== undefined) since[name] = newest;
    }
    const { id, series, attention, backfill, cluster } = watch;
    watch.sentAt = performance.now();
    this.socket.send(JSON.stringify({ type: 'watch', id, series, attention, since, backfill, cluster }));
  }

  /** @param {string} data */
  #text(data) {
    const message = JSON.parse(data);
    switch (message.type) {
      case 'beat':
        clock.hear(message.ts);
        this.failures = 0;
        this.#become(clock.now() - message.ts > DELAYED_MS ? 'delayed' : 'live');
        break;
      case 'series':
        this.names.set(message.ref, message.series);
        break;
      case 'samples':
        this.#samples(fromJson(message));
        break;
      case 'cluster':
        nodes.learn(message.me, message.nodes);
        break;
      case 'reconnect':
        nodes.prefer(message.nodes ?? []);
        this.#lost(this.socket, message.delay_ms ?? 0);
        break;
      case 'room':
        // The node has taken everybody out of a room that is gone.
        if (message.gone) this.stays.delete(message.room);
        break;
      case 'lag':
        this.#become('delayed');
        break;
      case 'error':
        if (message.code === 'unknown_room' && this.stays.size > 0 && this.refusals < ENTER_TRIES) {
          this.refusals += 1;
          setTimeout(() => this.#enterAgain(), ENTER_AGAIN_MS);
          return;
        }
        // The page says nothing that a node should refuse: this is a fault, to be seen.
        console.error(`the node refused a message: ${message.code}: ${message.message}`);
        return;
      default:
        break;
    }
    this.dispatchEvent(new CustomEvent(message.type, { detail: message }));
  }

  /** @param {ArrayBuffer} data */
  #binary(data) {
    const { ref, channels, times, flat } = decode(data);
    const series = this.names.get(ref);
    if (series === undefined) throw new Error(`a frame came for series ${ref}, which was not named`);
    this.#samples({ series, times, channels, flat, texts: null });
  }

  /** @param {Batch} batch */
  #samples(batch) {
    const { times } = batch;
    let newest = this.newest.get(batch.series) ?? -Infinity;
    for (let i = 0; i < times.length; i += 1) if (times[i] > newest) newest = times[i];
    if (newest > -Infinity) this.newest.set(batch.series, newest);
    const now = performance.now();
    for (const watch of this.watches.values()) {
      if (watch.series.includes(batch.series)) watch.onSamples(batch, now - watch.sentAt > SETTLE_MS);
    }
  }

  #watchdog() {
    const socket = this.socket;
    if (!socket) return;
    const now = performance.now();
    if (socket.readyState === WebSocket.CONNECTING) {
      if (now - this.openedAt > OPEN_MS) this.#lost(socket);
      return;
    }
    const heardAt = this.heardAt;
    if (now - heardAt <= SILENCE_MS) return;
    setTimeout(() => {
      if (socket === this.socket && this.heardAt === heardAt) this.#lost(socket);
    }, GRACE_MS);
  }

  /**
   * Leaves `socket` and tries the next node: at once when it is the first time, ever more slowly after that.
   * @param {WebSocket | null} socket
   * @param {number} [delay]
   */
  #lost(socket, delay) {
    if (!socket || socket !== this.socket) return;
    this.socket = null;
    socket.close();
    nodes.leave();
    this.failures += 1;
    this.#become(this.failures > OFFLINE_AFTER ? 'offline' : 'reconnecting');
    const backoff = Math.min(MAX_BACKOFF_MS, BACKOFF_MS * 2 ** Math.min(this.failures - 1, 10));
    this.#soon(delay ?? backoff * (0.5 + Math.random() / 2));
  }

  /** @param {number} delay */
  #soon(delay) {
    clearTimeout(this.retry);
    this.retry = window.setTimeout(() => this.#connect(), delay);
  }

  /** @param {LinkState} state */
  #become(state) {
    if (state === this.state) return;
    this.state = state;
    this.dispatchEvent(new CustomEvent('state', { detail: state }));
  }
}

/**
 * Texts travel as JSON even on a binary connection.
 * @param {{ series: string, samples: [number, any][] }} message
 * @returns {Batch}
 */
function fromJson({ series, samples }) {
  const times = samples.map(([ts]) => ts);
  if (samples.some(([, value]) => typeof value === 'string')) {
    return { series, times, channels: 0, flat: [], texts: samples.map(([, value]) => String(value)) };
  }
  const rows = samples.map(([, value]) => (Array.isArray(value) ? value : [value]));
  const channels = Math.max(1, ...rows.map((row) => row.length));
  const flat = rows.flatMap((row) => Array.from({ length: channels }, (_, c) => row[c] ?? NaN));
  return { series, times, channels, flat, texts: null };
}
