// @ts-check
// Sends what this browser measures to the node that the page is on, over the protocol that every device speaks. What is not
// acknowledged is kept, in order, and sent again to the next node; what finds no room any more is counted and said.

import * as nodes from '../nodes.js';

/** Samples that wait for a node or its acknowledgement; the oldest go for more. */
const MAX_WAITING = 20_000;
/** Samples in one frame. */
const MAX_FRAME = 1000;
/** How long samples are gathered into a frame, unless the node advises otherwise. */
const WINDOW_MS = 200;
/** A node that closed, or never opened, is tried again after this long; the page itself moves to another one. */
const RETRY_MS = 500;

/**
 * @typedef {object} Sample
 * @property {string} attribute
 * @property {number} ts
 * @property {number | string | (number | null)[]} value
 *
 * @typedef {'idle' | 'connecting' | 'sending' | 'paused'} OutletState
 */

export class Outlet extends EventTarget {
  constructor() {
    super();
    this.sensor = '';
    this.name = '';
    /** @type {Record<string, object>} what is said of the attributes that are measured */
    this.attributes = {};
    /** @type {Sample[]} not sent yet */
    this.waiting = [];
    /** @type {{ seq: number, samples: Sample[] }[]} sent, and not acknowledged yet */
    this.sent = [];
    this.counts = { acknowledged: 0, refused: 0, dropped: 0 };
    /** What was wrong with the last frame that was refused. */
    this.complaint = '';
    this.windowMs = WINDOW_MS;
    this.paused = false;
    /** @type {WebSocket | null} */
    this.socket = null;
    this.welcome = false;
    this.seq = 0;
    this.retry = 0;
    this.timer = 0;
    nodes.moves.addEventListener('move', () => this.#again());
  }

  /** @returns {OutletState} */
  get state() {
    if (!this.sensor) return 'idle';
    if (!this.welcome) return 'connecting';
    return this.paused ? 'paused' : 'sending';
  }

  /** Samples that no node has acknowledged. */
  get open() {
    return this.waiting.length + this.sent.reduce((sum, { samples }) => sum + samples.length, 0);
  }

  /**
   * Begins, or goes on with other attributes.
   * @param {string} sensor
   * @param {string} name
   * @param {Record<string, object>} attributes
   */
  begin(sensor, name, attributes) {
    Object.assign(this, { sensor, name, attributes });
    this.#again();
  }

  /** Sends what waits, and ends. */
  end() {
    this.#flush();
    this.sensor = '';
    this.#close();
    this.#tell();
  }

  /** @param {Sample} sample */
  put(sample) {
    if (!this.sensor) return;
    this.waiting.push(sample);
    if (this.open > MAX_WAITING) {
      this.waiting.shift();
      this.counts.dropped += 1;
    }
    if (!this.timer) this.timer = window.setTimeout(() => this.#flush(), this.windowMs);
  }

  #again() {
    this.#close();
    if (this.sensor) this.#connect();
    this.#tell();
  }

  #close() {
    clearTimeout(this.retry);
    const { socket } = this;
    this.socket = null;
    this.welcome = false;
    socket?.close();
    // In the order in which it was measured.
    this.waiting = [...this.sent.flatMap(({ samples }) => samples), ...this.waiting];
    this.sent = [];
  }

  #connect() {
    const socket = new WebSocket(nodes.url('/api/v1/ingest/ws').replace(/^http/, 'ws'));
    this.socket = socket;
    this.seq = 0;
    const say = (/** @type {object} */ message) => socket.send(JSON.stringify(message));
    socket.addEventListener('open', () => {
      say({ type: 'hello', sensor: this.sensor, name: this.name, attributes: this.attributes });
    });
    socket.addEventListener('message', ({ data }) => {
      if (socket === this.socket) this.#hear(JSON.parse(data));
    });
    socket.addEventListener('close', () => {
      if (socket !== this.socket) return;
      this.#close();
      this.retry = window.setTimeout(() => this.#again(), RETRY_MS);
      this.#tell();
    });
  }

  /** @param {any} message */
  #hear(message) {
    switch (message.type) {
      case 'welcome':
        this.welcome = true;
        this.#flush();
        break;
      case 'ack':
        for (const { seq, samples } of this.sent) if (seq <= message.seq) this.counts.acknowledged += samples.length;
        this.sent = this.sent.filter(({ seq }) => seq > message.seq);
        break;
      case 'error': {
        this.complaint = message.message;
        const refused = this.sent.find(({ seq }) => seq === message.seq);
        this.counts.refused += refused?.samples.length ?? 0;
        this.sent = this.sent.filter((frame) => frame !== refused);
        break;
      }
      case 'advice':
        this.windowMs = message.window_ms;
        this.paused = message.paused;
        this.#flush();
        break;
      default:
        break;
    }
    this.#tell();
  }

  #flush() {
    clearTimeout(this.timer);
    this.timer = 0;
    while (this.welcome && !this.paused && this.waiting.length > 0) {
      const samples = this.waiting.splice(0, MAX_FRAME);
      this.seq += 1;
      this.sent.push({ seq: this.seq, samples });
      this.socket?.send(JSON.stringify({ type: 'samples', seq: this.seq, samples }));
    }
    this.#tell();
  }

  #tell() {
    this.dispatchEvent(new Event('change'));
  }
}
